"""What `rankline schedule` asks of a place that stores schedules: a workspace (local.py) or a cluster (kubeflow)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from pipelines.schedules.backfill import BackfillOptions, BackfillStatus
from pipelines.schedules.model import Schedule
from pipelines.schedules.triggers.held import Held
from pipelines.schedules.triggers.observation import Check
from rankline.runtime.outcomes import VERDICT_EXIT_CODES


@dataclass(frozen=True)
class ScheduleChanges:
    """The settings that a command sets; the others keep their values."""

    values: Mapping[str, Any]  # fields of `Schedule`
    seconds_first: bool = False  # refuse a cron expression of five fields
    experiment: str | None = None  # these two are for clusters only
    account: str | None = None


@dataclass(frozen=True)
class ScheduleInfo:
    """A schedule and what its place says about it."""

    schedule: Schedule
    revisions: int
    details: Mapping[str, str] = field(default_factory=dict)  # of a cluster: experiment, account, recurring_run, url
    notes: tuple[str, ...] = ()  # on the schedule, or the command that returned it
    started_by: str = ""  # what starts its runs
    remaining: tuple[str, ...] = ()  # what a change or a deletion has left


@dataclass(frozen=True)
class UnreadableSchedule:
    """A schedule that is listed but cannot be used."""

    name: str
    state: str  # in the place of its next fire time
    details: Mapping[str, Any]  # in JSON
    error: str = ""


@dataclass(frozen=True)
class FiringRecord:
    """A fire time that was taken, wherever its run is."""

    schedule: str
    scheduled_at: str
    window_start: str | None
    window_end: str | None
    kind: str
    status: str  # claimed, running, interrupted, ended
    outcome: str
    exit_code: int | None
    run: str
    attempts: int
    revision: int | None
    error: str
    notified: str
    why: str = ""  # of a firing by need

    @property
    def failed(self) -> bool:
        """Whether it ended without a verdict."""
        return self.exit_code is not None and self.exit_code not in VERDICT_EXIT_CODES

    @property
    def state(self) -> str:
        """Its outcome, or how far it is, for people."""
        if self.status == "interrupted":
            continued_by = "backfill" if self.kind == "backfill" else "scheduler"
            return self.outcome or f"interrupted (the next {continued_by} continues it)"
        return self.outcome or self.status

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON."""
        return dataclasses.asdict(self)


class BackfillInterrupted(KeyboardInterrupt):
    """Ctrl-C during a backfill whose runs go on; the message says which."""


class Schedules(Protocol):
    """The schedules of one place. Methods that take a name raise UsageError where there is no such schedule."""

    zone_note: str  # on the place's own time zone; empty where each schedule has its own
    unsupported: Sequence[str]  # settings that mean nothing here

    def list(self) -> list[ScheduleInfo | UnreadableSchedule]:
        """Every schedule, by name."""

    def get(self, name: str) -> ScheduleInfo:
        """One schedule."""

    def create(self, name: str, changes: ScheduleChanges, *, now: datetime) -> ScheduleInfo:
        """Create a schedule after checking all of it, its recipe included."""

    def update(self, name: str, changes: ScheduleChanges, *, now: datetime) -> ScheduleInfo:
        """Change some settings; active runs go on, and fire times after ``now`` follow the new revision."""

    def set_paused(self, name: str, paused: bool, *, now: datetime) -> ScheduleInfo:
        """Stop starting runs, or start them again."""

    def delete(self, name: str, *, now: datetime, end_runs: bool = False) -> ScheduleInfo:
        """Delete a schedule; ``end_runs`` allows what deleting does on a cluster: it ends active runs."""

    def earliest_start(self, schedule: Schedule, scheduled_at: datetime) -> datetime:
        """When the run of a fire time may start."""

    def firings(self, name: str, *, limit: int = 10) -> Sequence[FiringRecord]:
        """The latest firings, oldest first."""

    def skipped(self, name: str, *, limit: int = 10) -> Sequence[dict[str, Any]] | None:
        """The latest skipped fire times; None where the place does not record them."""

    def check(self, name: str, *, now: datetime) -> Check:
        """Check the triggers of a schedule."""

    def last_check(self, name: str) -> Check | None:
        """What the triggers of a schedule last observed; None where they were not checked."""

    def held_back(self, name: str, *, limit: int = 10) -> Sequence[Held]:
        """The latest needs that started no run."""

    def backfill(
        self, name: str, options: BackfillOptions, *, now: datetime, say: Callable[[str], None]
    ) -> Sequence[tuple[FiringRecord, BackfillStatus]]:
        """Run past fire times to their end."""
