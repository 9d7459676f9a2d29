"""A server's process for the length of a test session: started on free ports, waited for, ended by its id."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any


def free_port() -> int:
    """A port nobody listens on, nor on the one 10000 above it, which some servers take as well.

    Both lie below the ports that the system gives to outgoing connections, so none of those takes one between this
    answer and the server's start.
    """
    choose = random.Random(f"{os.getpid()} {time.monotonic_ns()}")
    while True:
        port = choose.randrange(11_000, 22_000)
        if _unused(port) and _unused(port + 10_000):
            return port


def _unused(port: int) -> bool:
    with contextlib.suppress(OSError), socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return True
    return False


def listens(port: int) -> bool:
    """Whether something accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


class Server:
    """A process that can be stopped, killed and started again on the same data."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        ready: Callable[[], bool],
        timeout_s: float = 60,
        **options: Any,
    ) -> None:
        self._command, self._log, self._ready = list(command), log, ready
        self._timeout_s, self._options = timeout_s, options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **self._options
            )
        deadline = time.monotonic() + self._timeout_s
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                reported = self._log.read_text(errors="replace")[-2000:]
                self.stop()
                raise RuntimeError(f"{self._command[0]} did not start:\n{reported}")
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it and its children, which stand in a group of their own."""
        if self._process is None:
            return
        for each in (number, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, each)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=10)
                break
        self._process = None

    @contextlib.contextmanager
    def running(self) -> Iterator[Server]:
        """Started, and stopped whatever happens."""
        self.start()
        try:
            yield self
        finally:
            self.stop(signal.SIGKILL)  # nobody reads what it leaves
