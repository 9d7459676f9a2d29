"""The processes that run firings, as seen by the scheduler or backfill that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pipelines.schedules.firing import TIMESTAMP_FORMAT, Firing
from pipelines.schedules.firings import Firings

STOP_TIMEOUT_S = 30.0
WorkerCommand = Callable[[Path, str, datetime], Sequence[str]]
Key = tuple[str, datetime]  # the name of a schedule and a fire time


def worker_command(workspace: Path, name: str, instant: datetime) -> list[str]:
    """The command line that runs a firing (pipelines/schedules/worker.py)."""
    stamp = instant.astimezone(UTC).strftime(TIMESTAMP_FORMAT)
    return [sys.executable, "-P", "-m", "pipelines.schedules.worker", str(workspace), name, stamp]


class Workers:
    """The processes that this process started; they end when their standard input closes, as it does on a kill."""

    def __init__(self, workspace: Path, command: WorkerCommand = worker_command) -> None:
        self.workspace, self.command = workspace, command
        self._processes: dict[Key, subprocess.Popen[bytes]] = {}
        self._firings: dict[Key, Firing] = {}

    def __len__(self) -> int:
        return len(self._processes)

    def count(self, name: str) -> int:
        """How many run firings of this schedule."""
        return sum(1 for schedule, _ in self._processes if schedule == name)

    def start(self, firing: Firing, log: Path, *, directory: str) -> None:
        """Run a firing in the schedule's folder.

        Raises:
            OSError: the folder does not exist.
        """
        with log.open("ab") as output:
            process = subprocess.Popen(
                self.command(self.workspace, firing.schedule, firing.instant),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=directory or None,
            )
        key = (firing.schedule, firing.instant)
        self._processes[key], self._firings[key] = process, firing

    def ended(self) -> list[Key]:
        """Those whose process has ended; `forget` takes them off the list."""
        return [key for key, process in self._processes.items() if process.poll() is not None]

    def forget(self, key: Key) -> None:
        """Take an ended process off the list."""
        del self._processes[key], self._firings[key]

    def firing(self, key: Key) -> Firing:
        """The firing as it was when its process started."""
        return self._firings[key]

    def stop(self) -> None:
        """Ask every process to end, wait, and kill what does not."""
        for process in self._processes.values():
            if process.stdin:
                process.stdin.close()
        for process in self._processes.values():
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def mark_failed(firings: Firings, firing: Firing, error: str) -> Firing:
    """Record that a firing ended without its process recording a result."""
    ended_at = datetime.now(UTC).isoformat(timespec="seconds")
    firing = firing.replace(status="ended", outcome="failed", exit_code=1, error=error, ended_at=ended_at)
    firings.write(firing)
    return firing


def describe_crash(log: Path, *, times: int = 1) -> str:
    """The error of a process that ended without a result, with the last line of its log."""
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    last_line = next((line for line in reversed(lines) if line.strip()), "none")
    repeated = "" if times == 1 else f" {times} times"
    return f"its process ended without a verdict{repeated}; its last log line: {last_line}\n  where: {log}"


def remove_empty_log(log: Path) -> None:
    """Remove a log without a line."""
    if log.is_file() and not log.stat().st_size:
        log.unlink()
