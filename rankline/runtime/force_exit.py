"""An exit from native code: a signal ends a step even if its main thread is stuck in a library."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable

TIMEOUT_S = 10.0  # in which a step may end by itself and clean up


class ForceExit:
    """Calls ``on_timeout`` and ends this process if it is still working some time after SIGTERM or SIGINT.

    Python runs signal handlers only between two instructions of the main thread. The signal itself writes a byte
    to a socket (`signal.set_wakeup_fd`), which a thread of this class reads.
    """

    def __init__(self, on_timeout: Callable[[], None], *, timeout_s: float = TIMEOUT_S) -> None:
        self._on_timeout, self._timeout_s = on_timeout, timeout_s
        self._done = threading.Event()
        self._read_socket, self._write_socket = socket.socketpair()
        self._write_socket.setblocking(False)
        self._installed = threading.current_thread() is threading.main_thread()  # Python refuses others
        if self._installed:
            self._previous_fd = signal.set_wakeup_fd(self._write_socket.fileno(), warn_on_full_buffer=False)
            threading.Thread(target=self._watch, daemon=True).start()

    def cancel(self) -> None:
        """Stop watching: the work has ended by itself."""
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
