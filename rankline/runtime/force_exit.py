"""A way out of native code: a signal ends a step even where its main thread waits in a library and hears none."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable

PATIENCE_S = 10.0  # in which a step ends by itself and tidies up


class Watchdog:
    """Ends this process if it still works so long after SIGTERM or SIGINT; ``last_words`` are said before.

    Python runs handlers of signals between two steps of the main thread only. The byte that is read here was
    written by the signal itself, and it is read by a thread of its own.
    """

    def __init__(self, last_words: Callable[[], None], *, patience_s: float = PATIENCE_S) -> None:
        self._last_words, self._patience_s = last_words, patience_s
        self._ended = threading.Event()
        self._here, self._there = socket.socketpair()
        self._there.setblocking(False)
        self._set = threading.current_thread() is threading.main_thread()  # others may not ask for signals
        if self._set:
            self._before = signal.set_wakeup_fd(self._there.fileno(), warn_on_full_buffer=False)
            threading.Thread(target=self._watch, daemon=True).start()

    def end(self) -> None:
        """The work has ended by itself."""
        self._ended.set()
        if self._set:
            signal.set_wakeup_fd(self._before)
        self._there.close()

    def _watch(self) -> None:
        with self._here:
            for told in iter(lambda: self._here.recv(1), b""):
                if told[0] in (signal.SIGTERM, signal.SIGINT):
                    if not self._ended.wait(self._patience_s):
                        self._last_words()
                        os._exit(128 + told[0])
                    return
