"""A way out of native code: a signal ends a step even where its main thread waits in a library and hears none."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable

TIMEOUT_S = 10.0  # in which a step ends by itself and tidies up


class ForceExit:
    """Ends this process if it still works so long after SIGTERM or SIGINT; ``last_words`` are said before.

    Python runs handlers of signals between two steps of the main thread only. The byte that is read here was
    written by the signal itself, and it is read by a thread of its own.
    """

    def __init__(self, on_timeout: Callable[[], None], *, timeout_s: float = TIMEOUT_S) -> None:
        self._on_timeout, self._timeout_s = on_timeout, timeout_s
        self._done = threading.Event()
        self._read_socket, self._write_socket = socket.socketpair()
        self._write_socket.setblocking(False)
        self._installed = threading.current_thread() is threading.main_thread()  # others may not ask for signals
        if self._installed:
            self._previous_fd = signal.set_wakeup_fd(self._write_socket.fileno(), warn_on_full_buffer=False)
            threading.Thread(target=self._watch, daemon=True).start()

    def cancel(self) -> None:
        """The work has ended by itself."""
        self._done.set()
        if self._installed:
            signal.set_wakeup_fd(self._previous_fd)
        self._write_socket.close()

    def _watch(self) -> None:
        with self._read_socket:
            for signal_byte in iter(lambda: self._read_socket.recv(1), b""):
                if signal_byte[0] in (signal.SIGTERM, signal.SIGINT):
                    if not self._done.wait(self._timeout_s):
                        self._on_timeout()
                        os._exit(128 + signal_byte[0])
                    return
