"""One fire time of one schedule that was taken, and how its run ended."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rankline.io import files
from rankline.runtime.outcomes import VERDICT_EXIT_CODES

Kind = Literal["scheduled", "catch-up", "backfill", "need"]
Status = Literal["claimed", "running", "ended"]
TIMESTAMP_FORMAT = "%Y%m%dT%H%M%SZ"  # of the name of a firing's file
UNREADABLE = "unreadable"  # outcome of a firing whose file cannot be read


@dataclass(frozen=True)
class Firing:
    """A fire time that was taken; times are ISO, UTC."""

    schedule: str
    scheduled_at: str
    window_start: str | None
    window_end: str
    kind: Kind
    revision: int  # of the schedule
    claimed_at: str
    allow_older_window: bool = False
    status: Status = "claimed"
    attempts: int = 0  # how often its run was started
    deaths: int = 0  # how often its process ended without a result
    run: str = ""  # id of the latest run
    outcome: str = ""  # of the run: promoted, refused, failed…
    exit_code: int | None = None
    error: str = ""
    started_at: str = ""
    ended_at: str = ""
    notified: str = ""  # result of the webhook call
    why: str = ""  # of a firing by need: which trigger, and what it observed
    scratch: bool | None = None  # whether the run trains from scratch; None until that is decided

    @property
    def instant(self) -> datetime:
        """The scheduled time."""
        return datetime.fromisoformat(self.scheduled_at)

    @property
    def failed(self) -> bool:
        """Whether it ended without a verdict on a model."""
        return self.status == "ended" and self.exit_code not in VERDICT_EXIT_CODES and self.outcome != UNREADABLE

    @property
    def trigger(self) -> dict[str, Any]:
        """The content of the run's trigger.json."""
        names = ("schedule", "scheduled_at", "window_start", "window_end", "kind")
        return {**{name: getattr(self, name) for name in names}, **({"why": self.why} if self.why else {})}

    def replace(self, **changes: Any) -> Firing:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """The content of its file."""
        return dataclasses.asdict(self)


def read_firing(path: Path) -> Firing | None:
    """The firing that a file holds; None where there is no such file, or its name is not a firing's.

    A file that cannot be read (damaged, or of a version with other fields) is a firing with the outcome `unreadable`:
    nobody knows whether it ran, so it does not run again.
    """
    try:
        scheduled_at = datetime.strptime(path.stem, TIMESTAMP_FORMAT).replace(tzinfo=UTC).isoformat()
    except ValueError:
        return None
    try:
        firing = Firing(**json.loads(path.read_text()))
        for instant in filter(None, (firing.scheduled_at, firing.window_end, firing.claimed_at, firing.ended_at)):
            if datetime.fromisoformat(instant).tzinfo is None:
                raise ValueError(f"{instant} names no time zone")
        return firing
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        return Firing(
            schedule=path.parents[1].name,
            scheduled_at=scheduled_at,
            window_start=None,
            window_end=scheduled_at,
            kind="scheduled",
            revision=1,
            claimed_at=scheduled_at,
            status="ended",
            outcome=UNREADABLE,
            ended_at=scheduled_at,
            notified="the firing cannot be read",
            error=f"its file cannot be read ({files.first_line(error)})",
        )
