"""The run ledger: one small JSON file per step, in the run's folder.

Progress, the run's summary, its cost and the reasons of its reuse are computed from it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from rankline.io.files import first_line, write_json
from rankline.runtime.steps import ALL_STEPS, EARLIER_NAMES

RESERVE_FILE, RESERVE_BYTES = ".reserve", 2**18


class Entry(BaseModel):
    """What one step did in one run."""

    model_config = ConfigDict(extra="forbid")

    step: str
    status: Literal["running", "done", "reused", "failed"]
    why: str = ""
    started: float
    finished: float | None = None
    import_s: float = 0.0
    work_s: float = 0.0
    peak_memory_bytes: int = 0
    core_s: float = 0.0
    pid: int = 0
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    paths: dict[str, str] = {}
    settings: dict[str, Any] = {}  # those that differ from the step's defaults
    result: dict[str, Any] = {}
    error: str = ""
    exit_code: int = 0
    key: str = ""  # the digest of the step's cache key
    final: bool = False  # the step would fail again in the same way
    attempts: int = 1  # in the same run: Kubernetes makes a lost pod again, Kubeflow retries, and so may a user
    first_started: float = 0.0  # when the first of several attempts started

    def continue_from(self, previous: Entry) -> None:
        """Count this as a further attempt after ``previous``."""
        self.attempts, self.first_started = previous.attempts + 1, previous.first_started or previous.started

    @property
    def seconds(self) -> float:
        """Wall time from the step's start to its end, or until now."""
        return max((self.finished or time.time()) - self.started, 0.0)  # the clock may have been set back


def begun_again(entry: Entry, previous: Entry) -> str:
    """Why a step was begun again in the same run, for `Entry.why`."""
    cause = {"running": "its process had been killed", "failed": "it had failed"}.get(previous.status, "it had ended")
    first = time.strftime("%H:%M:%S", time.gmtime(entry.first_started))
    return f"begun again: {cause} (attempt {entry.attempts}, the first at {first} UTC)"


def write_entry(run_dir: Path, entry: Entry) -> None:
    """Write a step's entry into the run's folder."""
    write_json(run_dir / f"{entry.step}.json", entry.model_dump())


def read_entries(run_dir: Path) -> dict[str, Entry]:
    """Step -> entry of every step of this run that has started, in the order of the pipeline.

    An entry that cannot be read is returned as a failed one.
    """
    entries = {}
    for step in ALL_STEPS:
        for name in (step, EARLIER_NAMES.get(step, step)):
            path = run_dir / f"{name}.json"
            if step not in entries and path.is_file():
                entries[step] = _read_entry(path).model_copy(update={"step": step})
    return entries


def _read_entry(path: Path) -> Entry:
    try:
        return Entry.model_validate_json(path.read_bytes())
    except ValueError as error:
        message = f"its ledger entry cannot be read ({first_line(error)})\n  where: {path}"
        hint = "\n  try: run again; finished steps are reused"
        return Entry(step=path.stem, status="failed", started=path.stat().st_mtime, error=message + hint)


def reserve_space(run_dir: Path) -> None:
    """Allocate a file whose space the last entries of a failing run can use if the disk is full by then.

    Raises:
        OSError: the disk is full already.
    """
    (run_dir / RESERVE_FILE).write_bytes(bytes(RESERVE_BYTES))


def release_space(run_dir: Path) -> None:
    """Remove the file of `reserve_space`."""
    (run_dir / RESERVE_FILE).unlink(missing_ok=True)
