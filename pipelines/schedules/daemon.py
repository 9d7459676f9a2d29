"""The embedded scheduler: one process per workspace that starts the runs of its schedules.

It is a loop. Each round records the runs that have ended and starts what is due and has no firing yet. Creating a
firing is exclusive (pipelines/schedules/firings.py), so no fire time runs twice, whoever else starts runs.

You can kill it at any moment. Its runs end with it. The next scheduler first continues the firings that have not ended,
then starts what was missed meanwhile, as each schedule says.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from pipelines.schedules.firing import Firing, Kind
from pipelines.schedules.firings import Firings
from pipelines.schedules.model import Due, Schedule, due, in_force
from pipelines.schedules.processes import (
    WorkerCommand,
    Workers,
    describe_crash,
    mark_failed,
    remove_empty_log,
    worker_command,
)
from pipelines.schedules.store import FOLDER, ScheduleStore
from pipelines.schedules.triggers.limits import held_back
from pipelines.schedules.triggers.needs import CheckCommand, Needs, check_command
from pipelines.schedules.webhook import Notifier
from rankline.errors import RanklineError, UsageError
from rankline.io import files
from rankline.notifications.delivery import TIMEOUT_S

LOCK = "scheduler.lock"
MAX_CRASHES = 3  # how often the process of a firing may end without a result
GRACE_S = 60.0  # a run that starts later than this is a catch-up
POLL_S = 1.0


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """The time, UTC."""


class MachineClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """The time, UTC."""
        return datetime.now(UTC)


@dataclass(frozen=True)
class NextCheck:
    """When a schedule is checked again, as long as its revision stays."""

    revision: int
    checked_at: datetime
    due_at: datetime | None  # None: never

    def is_due(self, revision: int, now: datetime) -> bool:
        """Whether it is; a clock that was set back makes it so, too."""
        return revision != self.revision or now < self.checked_at or (self.due_at is not None and self.due_at <= now)


@dataclass
class Scheduler:
    """Starts runs while :meth:`running` lasts and :meth:`tick` is called."""

    workspace: Path
    max_runs: int = 2
    clock: Clock = field(default_factory=MachineClock)
    command: WorkerCommand = worker_command
    check_command: CheckCommand = check_command
    say: Callable[[str], None] = print
    poll_s: float = POLL_S

    def __post_init__(self) -> None:
        self.store = ScheduleStore(self.workspace)
        self._workers = Workers(self.workspace, self.command)
        self._notifier = Notifier(self.say)
        self._needs = Needs(self.store, self.say, self.check_command)
        self._interrupted: dict[str, list[datetime]] = {}  # firings to start again
        self._next_checks: dict[str, NextCheck] = {}  # none for a schedule that waits for capacity or has an error
        self._reported_errors: dict[str, str] = {}
        self._stopping = False

    def serve(self, on_start: Callable[[], None]) -> None:
        """Start runs until :meth:`stop` is called, from a signal handler for instance.

        Raises:
            UsageError: another scheduler runs in this workspace.
        """
        with self.running():
            on_start()
            while not self._stopping:
                self.tick()
                time.sleep(self.poll_s)

    def stop(self) -> None:
        """End :meth:`serve` after the round that it is in."""
        self._stopping = True

    @contextmanager
    def running(self) -> Iterator[None]:
        """Be the only scheduler of the workspace while the block runs; at its end stop the runs, to be continued later.

        Raises:
            UsageError: another scheduler runs in this workspace.
        """
        with _single_instance(self.workspace / FOLDER / LOCK):
            self._recover()
            try:
                yield
            finally:
                self._stopping = True
                self._needs.stop()
                self._workers.stop()
                self._reap()
                self._notifier.collect(timeout_s=TIMEOUT_S)

    def tick(self) -> None:
        """One round: record what has ended, and start what is due."""
        with self._reporting_errors("webhook results"):
            self._notifier.collect()
        self._reap()
        for name in self.store.names(deleted=True):
            with self._reporting_errors(name):
                now, latest = self.clock.now(), self.store.history(name)[-1]
                check = self._next_checks.get(name)
                if check is None or check.is_due(latest.revision, now):
                    self._next_checks.pop(name, None)
                    with self.store.lock(name):
                        waiting = self._start_due(name, now)
                    if not waiting:
                        history = self.store.history(name)
                        self._next_checks[name] = NextCheck(history[-1].revision, now, next_start(history, now))
                self._start_needed(latest, now)

    @contextmanager
    def _reporting_errors(self, name: str) -> Iterator[None]:
        """Report the error of one schedule (a damaged file, a full disk) once, and go on with the others."""
        try:
            yield
            self._reported_errors.pop(name, None)
        except (RanklineError, OSError, ValueError, TypeError) as error:
            if self._reported_errors.get(name) != str(error):
                self.say(f"{name}: {error}\n  the scheduler retries until this is fixed")
            self._reported_errors[name] = str(error)

    # -- starting runs -------------------------------------------------------------------------------------

    def _start_due(self, name: str, now: datetime) -> bool:
        """Start what there is capacity for; returns whether something has to wait."""
        history, firings = self.store.history(name), self.store.firings(name)
        latest = history[-1]
        if latest.paused or latest.deleted:
            return False
        interrupted = self._interrupted.get(name, [])
        while interrupted and self._has_capacity(latest):
            firing = firings.read(interrupted.pop(0))
            if firing and firing.status != "ended":
                self._start(firings, firing, history[firing.revision - 1])
        if interrupted:
            return True
        waiting = select_due(history, firings, now)
        while waiting and self._has_capacity(latest):
            scheduled_at, schedule = waiting.pop(0)
            delay = now - schedule.earliest_start(scheduled_at)
            kind: Kind = "scheduled" if delay <= timedelta(seconds=GRACE_S) else "catch-up"
            firing = schedule.firing(scheduled_at, kind, now=now)
            if firings.create(firing):
                self._start(firings, firing, schedule)
            firings.mark_handled(scheduled_at)
        return bool(waiting)

    def _start_needed(self, schedule: Schedule, now: datetime) -> None:
        """Start what a trigger needs, or record why it does not start; without capacity it waits."""
        if not schedule.when or schedule.paused or schedule.deleted:
            return
        need = self._needs.next(schedule, now)
        if need is None:
            return
        with self.store.lock(schedule.name):
            firings = self.store.firings(schedule.name)
            if why := held_back(schedule, firings.all(), self.workspace, now=now):
                self._needs.hold(schedule, need, why, now=now)
                return
            if not self._has_capacity(schedule):
                return
            firing = schedule.firing(need.instant, "need", now=now, why=need.why)
            if firings.create(firing):
                self._start(firings, firing, schedule)
            self._needs.serve(schedule, need, now=now)

    def _has_capacity(self, schedule: Schedule) -> bool:
        return self._workers.count(schedule.name) < schedule.max_runs and len(self._workers) < self.max_runs

    def _start(self, firings: Firings, firing: Firing, schedule: Schedule) -> None:
        try:
            self._workers.start(firing, firings.path(firing.instant, "log"), directory=schedule.directory)
        except OSError as error:
            why = f"it cannot be started: {error.strerror}: {error.filename}"
            try:
                self._report_end(firings, mark_failed(firings, firing, why))
            except OSError:  # a full disk, perhaps: start it when there is space
                self._interrupted.setdefault(firing.schedule, []).append(firing.instant)
                raise
            return
        why = f": {firing.why}" if firing.why else ""
        self.say(f"{firing.schedule}: started {firing.scheduled_at} ({firing.kind}, data to {firing.window_end}){why}")

    # -- ending runs ---------------------------------------------------------------------------------------

    def _reap(self) -> None:
        for name, instant in self._workers.ended():
            with self._reporting_errors(name):
                self._record_end(name, instant)
                self._workers.forget((name, instant))
                self._next_checks.pop(name, None)

    def _record_end(self, name: str, instant: datetime) -> None:
        firings = self.store.firings(name)
        firing, log = firings.read(instant) or self._workers.firing((name, instant)), firings.path(instant, "log")
        if firing.status == "ended":
            self._report_end(firings, firing)
        elif self._stopping:
            self.say(f"{name}: stopped {firing.scheduled_at}; the next scheduler continues it")
        elif firing.deaths + 1 < MAX_CRASHES:
            firings.write(firing.replace(deaths=firing.deaths + 1))
            self._interrupted.setdefault(name, []).append(instant)
            self.say(f"{name}: {firing.scheduled_at} ended without a result; it starts again")
        else:
            self._report_end(firings, mark_failed(firings, firing, describe_crash(log, times=MAX_CRASHES)))

    def _report_end(self, firings: Firings, firing: Firing) -> None:
        remove_empty_log(firings.path(firing.instant, "log"))
        run = f", {firing.run}" if firing.run else ""
        self.say(f"{firing.schedule}: ended {firing.scheduled_at}: {firing.outcome}{run}")
        self._notifier.notify(firings, firing, self.store.history(firing.schedule)[-1])

    def _recover(self) -> None:
        """Find the firings that have not ended, and those whose webhook was not called."""
        for name in self.store.names(deleted=True):
            with self._reporting_errors(name):
                firings, latest = self.store.firings(name), self.store.history(name)[-1]
                for firing in firings.all():
                    if firing.kind == "backfill":  # `rankline schedule backfill` continues it
                        continue
                    if firing.status == "ended":
                        self._notifier.notify(firings, firing, latest)
                    elif not latest.deleted:
                        self._interrupted.setdefault(name, []).append(firing.instant)
                        self.say(f"{name}: {firing.scheduled_at} was interrupted and continues")


def next_start(history: list[Schedule], now: datetime) -> datetime | None:
    """The next time after ``now`` at which a run may start; None where there is none."""
    max_jitter = timedelta(seconds=max(each.jitter_s for each in history))
    upcoming = due(in_force(history, now), after=now - max_jitter)
    starts = (each.schedule.earliest_start(each.scheduled_at) for each in upcoming)
    return next((start for start in starts if start > now), None)


def select_due(history: list[Schedule], firings: Firings, now: datetime) -> list[Due]:
    """The fire times to run now, oldest first; those that the schedule does not catch up with are noted as skipped."""
    latest, ready = history[-1], []
    after = firings.handled_until(since=history[0].effective_from, now=now)
    for each in due(in_force(history, now), after=after, until=now):
        if each.schedule.earliest_start(each.scheduled_at) > now:
            break
        if firings.read(each.scheduled_at) is None:
            ready.append(each)
    selected = ready[-(1 if latest.catch_up == "coalesce" else latest.catch_up_limit) :]
    if skipped := ready[: len(ready) - len(selected)]:
        coalesced = latest.catch_up == "coalesce"
        first, last = skipped[0].scheduled_at, skipped[-1].scheduled_at
        note = {
            "first": first.isoformat(),
            "last": last.isoformat(),
            "count": len(skipped),
            "why": "coalesced" if coalesced else f"more than {latest.catch_up_limit} were waiting",
            "at": now.isoformat(timespec="seconds"),
        }
        firings.mark_handled(last, skipped=note)
    return selected


@contextmanager
def _single_instance(lock: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(files.locked(lock, timeout_s=0))
        except TimeoutError:
            raise UsageError(
                "another scheduler runs in this workspace",
                expected="one scheduler per workspace",
                found=lock.read_text().strip() or "a scheduler that left no name",
                where=str(lock),
                hint="stop that one, or use another workspace; one scheduler runs any number of schedules",
            ) from None
        since = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
        lock.write_text(f"process {os.getpid()} on {os.uname().nodename}, since {since}\n")
        yield
