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

# The line, in its order; `look` comes before it and `summary` after.
STEPS = (
    "look",
    "ingest",
    "validate",
    "featurize",
    "finetune",
    "distill",
    "export",
    "evaluate",
    "decide",
    "promote",
)


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

    @property
    def seconds(self) -> float:
        """Wall time from the step's start to its end (or to now)."""
        return (self.finished or time.time()) - self.started


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never a half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    partial.write_text(json.dumps(value, indent=2, default=str) + "\n")
    os.replace(partial, path)


def write(run_dir: Path, entry: Entry) -> None:
    """Put a step's entry into the run's folder."""
    write_json(run_dir / f"{entry.step}.json", entry.model_dump())


def read(run_dir: Path) -> dict[str, Entry]:
    """Step -> entry for every step that has begun in this run, in the order of the line."""
    entries = {}
    for step in STEPS:
        path = run_dir / f"{step}.json"
        if path.is_file():
            entries[step] = Entry.model_validate_json(path.read_text())
    return entries
