"""Backfill: run past fire times, oldest first, a few at once.

Repeat the command to continue: a firing that has ended is left alone, an interrupted one continues as it started, and a
failed one runs again by the current revision of the schedule, on the window that this revision gives it. The gate of
`decide.allow_older_window` refuses a model on an older window than the champion's, unless you allow it.
The schedule's webhook is called as by the scheduler.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from pipelines.schedules.firing import Firing
from pipelines.schedules.model import Schedule
from pipelines.schedules.processes import (
    WorkerCommand,
    Workers,
    describe_crash,
    mark_failed,
    remove_empty_log,
    worker_command,
)
from pipelines.schedules.store import ScheduleStore
from pipelines.schedules.webhook import Notifier
from rankline.errors import EXIT_REFUSED, UsageError

BackfillStatus = Literal["ran", "done before", "under way elsewhere"]
MAX_FIRINGS = 10_000


@dataclass(frozen=True)
class BackfillOptions:
    """Which past fire times to run, from ``start`` up to and excluding ``end``, and how."""

    start: datetime
    end: datetime
    concurrency: int = 1
    allow_older_window: bool = False


class BackfillResult(NamedTuple):
    """A past fire time and what the backfill did with it."""

    firing: Firing
    status: BackfillStatus


def firing_times(schedule: Schedule, options: BackfillOptions, *, now: datetime) -> list[datetime]:
    """The fire times of a backfill, by the current revision of the schedule.

    Raises:
        UsageError: there are none or too many, they lie in the future, or the flow has no past windows.
    """
    start, end = options.start, options.end
    if schedule.flow == "refresh":
        raise UsageError(
            "a refresh publishes the current items, so there is nothing to backfill",
            expected="a schedule of the flow train or features",
            found=f"schedule {schedule.name!r} of the flow refresh",
            hint="the next refresh includes all that the missed ones would have: `rankline schedule plan` shows when",
        )
    if not schedule.cron:
        raise UsageError(
            f"schedule {schedule.name!r} fires by need alone, so it has no past fire times",
            expected="a schedule with a cron expression",
            found=", ".join(schedule.when),
            hint="`rankline run` runs its recipe now",
        )
    if start > end:
        raise UsageError(
            "--from is later than --to",
            expected="--from before --to",
            found=f"--from {start.isoformat()} --to {end.isoformat()}",
        )
    if end > now:
        raise UsageError(
            "a backfill ends in the past",
            expected=f"--to at or before {now.isoformat(timespec='seconds')}",
            found=end.isoformat(),
            hint="the scheduler runs future fire times: `rankline schedule plan` shows them",
        )
    times = []
    for scheduled_at in schedule.rule.after(start.astimezone(UTC) - datetime.resolution):
        if scheduled_at >= end:
            break
        times.append(scheduled_at)
        if len(times) > MAX_FIRINGS:
            raise UsageError(
                f"these are more than {MAX_FIRINGS} fire times", expected="fewer", hint="choose a shorter period"
            )
    if not times:
        raise UsageError(
            f"schedule {schedule.name!r} has no fire time in this period",
            expected="a period in which it fires",
            found=f"{start.isoformat()} to {end.isoformat()}, cron {schedule.cron!r} in {schedule.zone}",
            hint="`rankline schedule plan` shows when it fires",
        )
    return times


@dataclass
class Backfill:
    """The backfill of one schedule of a workspace."""

    workspace: Path
    name: str
    options: BackfillOptions
    now: datetime
    command: WorkerCommand = worker_command
    say: Callable[[str], None] = print
    poll_s: float = 0.2

    def __post_init__(self) -> None:
        self._store = ScheduleStore(self.workspace)
        self._schedule, self._firings = self._store.get(self.name), self._store.firings(self.name)
        self._workers = Workers(self.workspace, self.command)
        self._notifier = Notifier(self.say)
        self._results: dict[datetime, BackfillResult] = {}

    def run(self) -> list[BackfillResult]:
        """Run the fire times to their end; interrupted, the active runs end with it.

        Raises:
            UsageError: the period has no fire times, or the schedule's folder does not exist.
        """
        waiting = firing_times(self._schedule, self.options, now=self.now)
        try:
            while waiting or self._workers:
                while waiting and len(self._workers) < self.options.concurrency:
                    self._begin(waiting.pop(0))
                self._reap()
                self._notifier.collect()
                time.sleep(self.poll_s if self._workers else 0)
            self._notifier.collect(timeout_s=None)
        finally:
            self._workers.stop()
        return [self._results[scheduled_at] for scheduled_at in sorted(self._results)]

    def _begin(self, scheduled_at: datetime) -> None:
        """Start the run of a fire time, or record why it does not run."""
        new = self._schedule.firing(
            scheduled_at, "backfill", now=self.now, allow_older_window=self.options.allow_older_window
        )
        if self._firings.create(new):
            self._start(new)
            return
        previous = self._firings.read(scheduled_at)
        assert previous is not None
        runs_again = self._runs_again(previous)
        if self._firings.is_running(scheduled_at):
            self._skip(previous, "under way elsewhere")
        elif previous.status == "ended" and not runs_again:
            self._skip(previous, "done before")
        else:
            firing = _reset(previous, new, by_current_revision=runs_again)
            self._firings.write(firing)
            self._start(firing)

    def _runs_again(self, firing: Firing) -> bool:
        older_allowed = self.options.allow_older_window and not firing.allow_older_window
        return firing.failed or (firing.exit_code == EXIT_REFUSED and older_allowed)

    def _skip(self, firing: Firing, status: BackfillStatus) -> None:
        self._results[firing.instant] = BackfillResult(firing, status)
        if status == "done before" and firing.kind == "backfill":  # it may have been killed before the webhook call
            self._notifier.notify(self._firings, firing, self._store.get(self.name))
        self.say(f"{firing.scheduled_at}: {status}, {firing.outcome or firing.status}")

    def _start(self, firing: Firing) -> None:
        directory = self._store.history(self.name)[firing.revision - 1].directory
        try:
            self._workers.start(firing, self._firings.path(firing.instant, "log"), directory=directory)
        except OSError as error:
            raise UsageError(
                "the run cannot be started in the schedule's folder",
                expected="the folder that it was created in",
                found=str(error.strerror),
                where=directory,
                hint=f"run `rankline schedule update {self.name}` in another folder to set that one",
            ) from error
        self.say(f"{firing.scheduled_at}: started, data to {firing.window_end}")

    def _reap(self) -> None:
        for name, scheduled_at in self._workers.ended():
            self._workers.forget((name, scheduled_at))
            firing, log = self._firings.read(scheduled_at), self._firings.path(scheduled_at, "log")
            assert firing is not None
            if firing.status != "ended":
                firing = mark_failed(self._firings, firing, describe_crash(log))
            remove_empty_log(log)
            self._results[scheduled_at] = BackfillResult(firing, "ran")
            self.say(f"{firing.scheduled_at}: {firing.outcome}" + (f"\n  {firing.error}" if firing.error else ""))
            self._notifier.notify(self._firings, firing, self._store.get(self.name))


def _reset(previous: Firing, new: Firing, *, by_current_revision: bool) -> Firing:
    """A firing that runs again: interrupted as it started, else by the revision and window of ``new``."""
    firing = previous.replace(
        status="claimed", allow_older_window=new.allow_older_window, error="", notified="", deaths=0
    )
    if not by_current_revision:
        return firing
    return firing.replace(
        run="",
        outcome="",
        exit_code=None,
        scratch=None,
        revision=new.revision,
        window_start=new.window_start,
        window_end=new.window_end,
    )
