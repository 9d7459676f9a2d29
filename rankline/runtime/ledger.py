"""The run ledger: one small JSON file a step, in the run's folder, that everything else reads.

Progress, the run summary, the cost and "why did this run again" are all drawn from here.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from rankline.runtime.steps import ALL_STEPS

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
    result: dict[str, Any] = {}
    error: str = ""
    exit_code: int = 0
    key: str = ""  # what the work was to be made of, in one digest
    final: bool = False  # the same work would be refused again

    @property
    def seconds(self) -> float:
        """Wall time from the step's start to its end (or to now)."""
        return max((self.finished or time.time()) - self.started, 0.0)  # a clock may have been set back


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never a half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        partial.write_text(json.dumps(value, indent=2, default=str) + "\n")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        error.filename = error.filename or str(path)  # a write does not say where
        raise


def write_entry(run_dir: Path, entry: Entry) -> None:
    """Put a step's entry into the run's folder."""
    write_json(run_dir / f"{entry.step}.json", entry.model_dump())


def read_entries(run_dir: Path) -> dict[str, Entry]:
    """Step -> entry for every step that has begun in this run, in the order of the line.

    One that cannot be read is an entry that says so.
    """
    entries = {}
    for step in ALL_STEPS:
        path = run_dir / f"{step}.json"
        if path.is_file():
            entries[step] = _read_entry(path)
    return entries


def _read_entry(path: Path) -> Entry:
    try:
        return Entry.model_validate_json(path.read_bytes())
    except ValueError as error:
        why = f"its entry in the ledger cannot be read ({str(error).splitlines()[0]})\n  where: {path}"
        hint = "\n  try: run again; what is finished is not done twice"
        return Entry(step=path.stem, status="failed", started=path.stat().st_mtime, error=why + hint)


def reserve_space(run_dir: Path) -> None:
    """Take the room that the last words of a step and of its run need, while there is some.

    Raises:
        OSError: there is none.
    """
    (run_dir / RESERVE_FILE).write_bytes(bytes(RESERVE_BYTES))


def release_space(run_dir: Path) -> None:
    """Give that room back: to be written into on a full disk, or because all went well."""
    (run_dir / RESERVE_FILE).unlink(missing_ok=True)
