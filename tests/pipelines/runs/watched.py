"""A run of the real command while it goes on: waited for, hurt, and looked after."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil

from rankline.runtime import ledger
from tests.cli.command import RANKLINE


class Watched:
    """One `rankline run` under way in a workspace."""

    def __init__(self, workspace: Path, process: subprocess.Popen[str], before: set[Path]) -> None:
        self.workspace, self.process, self.before = workspace, process, before

    @property
    def folder(self) -> Path:
        """The run's folder, as soon as it is there."""
        return until(lambda: next(iter(folders(self.workspace) - self.before), None))

    def reached(self, step: str) -> ledger.Entry:
        """The entry of a step, once it runs."""
        return until(lambda: entry if (entry := ledger.read_entries(self.folder).get(step)) else None)

    def runner(self) -> psutil.Process:
        """The process of Kubeflow's local runner."""
        return until(lambda: next(iter(psutil.Process(self.process.pid).children()), None))

    def ended(self) -> tuple[int, str, str]:
        """(exit code, standard output, standard error), with no stack trace in either."""
        out, err = self.process.communicate(timeout=600)
        assert "Traceback" not in out + err, out + err
        return self.process.returncode, out, err

    def nothing_is_left(self) -> None:
        """Wait until no process of this run lives any more; fail if one stays."""
        until(lambda: not alive(self.folder), timeout_s=60)


@contextmanager
def watched(workspace: Path, *settings: str, **environment: str) -> Iterator[Watched]:
    """`rankline run --recipe smoke` with these settings, begun."""
    before = folders(workspace)
    process = subprocess.Popen(
        [RANKLINE, "run", "--recipe", "smoke", "-w", str(workspace), *(f"--set={each}" for each in settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        yield Watched(workspace, process, before)
    finally:
        process.kill()
        process.communicate()


@contextmanager
def served(workspace: Path) -> Iterator[str]:
    """`rankline serve` on a workspace's champion; where it answers."""
    process = subprocess.Popen(
        [RANKLINE, "serve", "-w", str(workspace), "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert " on http://" in line, line
        yield line.split(" on ")[1].strip()
    finally:
        process.kill()
        process.communicate()


def folders(workspace: Path) -> set[Path]:
    return set((workspace / "runs").glob("*"))


def summary(workspace: Path) -> dict[str, Any]:
    """The summary of the last run."""
    result: dict[str, Any] = json.loads((max(folders(workspace)) / "summary.json").read_text())
    return result


def steps(workspace: Path) -> dict[str, str]:
    """Step -> its status in the last run."""
    return {step["step"]: step["status"] for step in summary(workspace)["steps"]}


def reasons(workspace: Path) -> dict[str, str]:
    """Step -> why it ran, or did not, in the last run."""
    return {step["step"]: step["why"] for step in summary(workspace)["steps"]}


def alive(folder: Path) -> list[psutil.Process]:
    """Every process that was told of this run's folder."""
    matches = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("RANKLINE_RUN_DIR") == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                matches.append(process)
        except psutil.Error:
            continue
    return matches


T = TypeVar("T")


def until(ask: Callable[[], T | None], *, timeout_s: float = 300) -> T:
    """What ``ask`` answers as soon as it is something; fail if it never is."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if matches := ask():
            return matches
        time.sleep(0.02)
    raise AssertionError("it never happened")


def flip(path: Path) -> None:
    """Change one byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()  # it may share its bytes with an artifact, which stays as it was
    path.write_bytes(content)
