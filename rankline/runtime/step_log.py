"""The log of a step: what its process prints goes to the console and to `<run folder>/<step>.log`."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

STDOUT, STDERR = 1, 2
CLOSE_TIMEOUT_S = 5.0  # a child process that outlives its step may hold the pipe open


def log_path(run_dir: Path, step: str) -> Path:
    """The log of a step."""
    return run_dir / f"{step}.log"


@contextlib.contextmanager
def recorded(path: Path) -> Iterator[None]:
    """Append stdout and stderr of this process, its native libraries and its children to ``path``.

    The copying is done by `tee`, a process of its own: it writes what came before a kill or a crash, and native code
    that prints while it holds Python's interpreter lock cannot block it. Without `tee` there is no log.
    """
    # file descriptors belong to the whole process: a second thread must not redirect them, too
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    _flush()
    consoles, tees = {}, []
    try:
        for descriptors in _distinct_outputs():
            tee = _start_tee(path, descriptors[0])
            if tee is None or tee.stdin is None:
                break
            tees.append(tee)
            for descriptor in descriptors:
                consoles[descriptor] = os.dup(descriptor)
                os.dup2(tee.stdin.fileno(), descriptor)
        with _warnings_only():
            yield
    finally:
        _flush()
        for descriptor, console in consoles.items():
            os.dup2(console, descriptor)
            os.close(console)
        for tee in tees:
            _close(tee)


def append(path: Path, text: str) -> None:
    """Write a line into a log that does not go to the console; a full disk loses it."""
    _flush()
    with contextlib.suppress(OSError), path.open("a") as log:
        log.write(text + "\n")


@contextlib.contextmanager
def _warnings_only() -> Iterator[None]:
    """Silence the INFO messages of libraries, which Kubeflow's executor turns on."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        root.setLevel(level)


def _distinct_outputs() -> list[list[int]]:
    """Stdout and stderr, together where both are one file: only then does the log keep their order."""
    outputs: dict[tuple[int, int], list[int]] = {}
    for descriptor in (STDOUT, STDERR):
        with contextlib.suppress(OSError):  # the process has none
            status = os.fstat(descriptor)
            outputs.setdefault((status.st_dev, status.st_ino), []).append(descriptor)
    return list(outputs.values())


def _start_tee(path: Path, console: int) -> subprocess.Popen[bytes] | None:
    # in a session of its own: a signal to the step's process group must not cut off the step's last lines
    with contextlib.suppress(OSError):
        return subprocess.Popen(["tee", "-a", str(path)], stdin=subprocess.PIPE, stdout=console, start_new_session=True)
    return None


def _close(tee: subprocess.Popen[bytes]) -> None:
    if tee.stdin is not None:
        tee.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        tee.wait(timeout=CLOSE_TIMEOUT_S)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, full, or none
            stream.flush()
