"""Hurting a run at a chosen moment: kill -9, no more memory, a clock set back, and disks that are full or read-only."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# Python imports this by itself when it starts, in every process of a run; only the step does what is waited for.
_WATCHER = """
import os, re, resource, signal, sys
EVENT, PATTERN = os.environ["HURT_AT"].split(":", 1)
HOW = os.environ.get("HURT_BY", "kill")

def watch(event, arguments):
    global EVENT
    paths = [os.fspath(a) for a in arguments if isinstance(a, (str, os.PathLike))]
    if event == EVENT and any(re.search(PATTERN, path) for path in paths):
        EVENT = ""
        if HOW == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif HOW == "clock":
            open(os.environ["FAKETIME_TIMESTAMP_FILE"], "w").write("-1d")
        else:
            used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + int(HOW), used + int(HOW)))

sys.addaudithook(watch)
"""


def killing(folder: Path, timestamp: str) -> dict[str, str]:
    """The environment in which a process kills itself at a moment, ``<audit event>:<pattern of its paths>``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_WATCHER)
    return {"HURT_AT": timestamp, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


def starving(folder: Path, timestamp: str, *, megabytes: int) -> dict[str, str]:
    """The environment in which a process gets so much memory from a moment on, and no more."""
    return {**killing(folder, timestamp), "HURT_BY": str(megabytes * 1_000_000)}


def set_back(folder: Path, timestamp: str) -> dict[str, str]:
    """The environment in which the clock goes back by a day at a moment; the test is skipped without libfaketime."""
    result = [
        *Path("/usr/lib").glob("*/faketime/libfaketime.so.1"),
        *Path("/usr/lib").glob("faketime/libfaketime.so.1"),
    ]
    if not result:
        pytest.skip("no clock can be set back for one process here: `apt-get install libfaketime`")
    environment = killing(folder, timestamp)
    (folder / "clock").write_text("+0d")
    clock = {"FAKETIME_TIMESTAMP_FILE": str(folder / "clock"), "FAKETIME_NO_CACHE": "1", "DONT_FAKE_MONOTONIC": "1"}
    return {**environment, **clock, "HURT_BY": "clock", "LD_PRELOAD": str(result[0])}


class Disk:
    """A small disk in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, *, leave: int) -> None:
        """Leave only so many bytes."""
        with self._ballast.open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, max(shutil.disk_usage(self.folder).free - leave, 1))

    def free_space(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def read_only(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(self.folder)], check=True)


@contextmanager
def disk(folder: Path, *, megabytes: int) -> Iterator[Disk]:
    """A disk of that size, mounted while the block lasts; the test is skipped where nothing may be mounted."""
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
