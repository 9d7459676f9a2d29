"""The embedded scheduler: one process for a workspace that begins what its schedules ask for.

APScheduler wakes it, with a persistent store (`schedules/scheduler.db`) of when each schedule is to be looked at next.
What has been done is told by the claims alone (pipelines/schedules/firings.py), since the library moves a job on even where its
start went wrong: each look takes whatever is due and unclaimed, so a wake-up that is lost costs time and never a run.

It may be killed at any moment. Runs end with it; the next one begins what was claimed and never ended, as the same
claims, then what was missed meanwhile, as each schedule says.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from apscheduler.triggers.base import BaseTrigger

from pipelines.schedules import webhook, worker
from pipelines.schedules.firings import Firing, Firings
from pipelines.schedules.store import FOLDER, GRACE_S, Due, LocalSchedules, Schedule, due
from rankline.errors import RanklineError, UsageError

STORE, LOCK = "scheduler.db", "scheduler.lock"
MAX_CRASHES = 3  # how often a run may end without a word before it is given up
POLL_S = 1.0


class Clock(Protocol):
    """What time it is."""

    def now(self) -> datetime:
        """This moment, UTC."""

    def real(self, moment: datetime) -> datetime:
        """The machine's own time when this clock shows ``moment``."""


class MachineClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """This moment, UTC."""
        return datetime.now(UTC)

    def real(self, moment: datetime) -> datetime:
        """The same moment."""
        return moment


class NextFiringTrigger(BaseTrigger):  # type: ignore[misc]  # it has no types
    """APScheduler's trigger of a schedule: when a run of it may begin next. Kept in the store by its names only."""

    def __init__(self, workspace: Path, name: str, clock: Clock) -> None:
        self.workspace, self.name, self.clock = workspace, name, clock

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime | None:
        """The next moment later than now, on the machine's clock; none where nothing is to come."""
        now_here, history = self.clock.now(), LocalSchedules(self.workspace).history(self.name)
        max_jitter_s = max((each.jitter_s for each in history), default=0.0)
        for scheduled_at, schedule in due(history, after=now_here - timedelta(seconds=max_jitter_s)):
            if schedule.earliest_start(scheduled_at) > now_here:
                return self.clock.real(schedule.earliest_start(scheduled_at))
        return None


@dataclass
class ActiveRun:
    """A run that this scheduler started."""

    firing: Firing
    process: worker.WorkerProcess


@dataclass
class Scheduler:
    """What begins runs, for as long as :meth:`running` lasts."""

    workspace: Path
    max_runs: int = 2
    clock: Clock = field(default_factory=MachineClock)
    command: worker.WorkerCommand = worker.worker_command
    say: Callable[[str], None] = print
    poll_s: float = POLL_S

    def __post_init__(self) -> None:
        self.store = LocalSchedules(self.workspace)
        self._lock = threading.RLock()
        self._active_runs: dict[tuple[str, datetime], ActiveRun] = {}
        self._interrupted: dict[str, list[datetime]] = {}  # claims that an earlier scheduler began and nobody ended
        self._known_revisions: dict[str, int] = {}  # schedule -> the revision it was last looked at in
        self._waiting: set[str] = set()
        self._reported_errors: dict[str, str] = {}
        self._notifiers: set[threading.Thread] = set()
        self._stopping = threading.Event()
        self._job_scheduler: Any = None

    @contextlib.contextmanager
    def running(self) -> Iterator[Scheduler]:
        """It works while the block runs; at its end what it started is ended in order, to be gone on with later.

        Raises:
            UsageError: another scheduler is at work in this workspace.
        """
        folder = self.workspace / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        with _single_instance(folder / LOCK):
            _SCHEDULERS[str(self.workspace)] = self
            self._recover()
            self._job_scheduler = _apscheduler(folder / STORE, self.poll_s, self.workspace)
            self._job_scheduler.start()
            try:
                self.poll()
                yield self
            finally:
                self._stopping.set()
                self._job_scheduler.shutdown(wait=False)
                with self._lock:
                    for active_run in self._active_runs.values():
                        if active_run.process.stdin:
                            active_run.process.stdin.close()
                    for active_run in self._active_runs.values():
                        worker.stop_worker(active_run.process)
                    self._reap()
                for notifier in list(self._notifiers):
                    notifier.join(webhook.TIMEOUT_S)
                _SCHEDULERS.pop(str(self.workspace), None)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, waits for room, or is still to be told."""
        with self._lock:
            return not (self._active_runs or self._waiting or any(self._interrupted.values()) or self._notifiers)

    # -- what APScheduler calls ----------------------------------------------------------------------------

    def check(self, name: str) -> None:
        """Begin what is due of a schedule, as far as there is room; the rest waits."""
        with self._lock, self._reporting_errors(name), self.store.lock(name):
            self._waiting.add(name)  # whatever goes wrong from here on is tried again
            if not self._stopping.is_set() and not self._start_due(name):
                self._waiting.discard(name)

    def poll(self) -> None:
        """Note what has ended, notice changed schedules, and look again at what had to wait."""
        with self._lock:
            if self._stopping.is_set():
                return
            self._reap()
            for name in self.store.names(deleted=True):
                with self._reporting_errors(name):
                    latest = self.store.history(name)[-1]
                    if self._known_revisions.get(name) != latest.revision:
                        self._waiting.add(name)
                        self._schedule_next_check(name, latest)
            for name in sorted(self._waiting):
                self.check(name)

    @contextlib.contextmanager
    def _reporting_errors(self, name: str) -> Iterator[None]:
        """What goes wrong with one schedule (a damaged file, a full disk) is said once, and stops no other."""
        try:
            yield
            self._reported_errors.pop(name, None)
        except (RanklineError, OSError, ValueError, TypeError) as error:
            if self._reported_errors.get(name) != str(error):
                self.say(f"{name}: {error}\n  it is tried again all the time")
            self._reported_errors[name] = str(error)

    # -- beginning -----------------------------------------------------------------------------------------

    def _start_due(self, name: str) -> bool:
        """Begin what there is room for; whether something is left."""
        history, firings, now = self.store.history(name), self.store.firings(name), self.clock.now()
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
            kind = (
                "scheduled" if now - schedule.earliest_start(scheduled_at) <= timedelta(seconds=GRACE_S) else "catch-up"
            )
            window = schedule.window_of(scheduled_at)
            firing = Firing(
                schedule=name,
                scheduled_at=scheduled_at.isoformat(),
                window_start=window.start.isoformat() if window.start else None,
                window_end=window.end.isoformat(),
                kind=kind,  # type: ignore[arg-type]
                revision=schedule.revision,
                claimed_at=now.isoformat(),
            )
            if firings.create(firing):
                self._start(firings, firing, schedule)
            firings.mark_handled(scheduled_at)
        return bool(waiting)

    def _has_capacity(self, schedule: Schedule) -> bool:
        active = sum(1 for name, _ in self._active_runs if name == schedule.name)
        return active < schedule.max_runs and len(self._active_runs) < self.max_runs

    def _start(self, firings: Firings, firing: Firing, schedule: Schedule) -> None:
        argv = self.command(self.workspace, firing.schedule, firing.instant)
        try:
            process = worker.start_worker(argv, firings.path(firing.instant, "log"), directory=schedule.directory)
        except OSError as error:
            why = f"it cannot be started: {error.strerror}: {error.filename}"
            try:
                self._report_end(firings, worker.mark_failed(firings, firing, why))
            except OSError:  # not even that can be noted: it stays claimed, and is begun when it can
                self._interrupted.setdefault(firing.schedule, []).append(firing.instant)
                raise
            return
        self._active_runs[firing.schedule, firing.instant] = ActiveRun(firing, process)
        self.say(f"{firing.schedule}: begins {firing.scheduled_at} ({firing.kind}, data to {firing.window_end})")

    # -- ending --------------------------------------------------------------------------------------------

    def _reap(self) -> None:
        for key, active_run in list(self._active_runs.items()):
            if active_run.process.poll() is not None:
                with self._reporting_errors(key[0]):
                    self._record_end(*key, active_run)
                    del self._active_runs[key]
                    self._waiting.add(key[0])

    def _record_end(self, name: str, instant: datetime, active_run: ActiveRun) -> None:
        firings = self.store.firings(name)
        firing = firings.read(instant) or active_run.firing
        if firing.status != "ended":
            if self._stopping.is_set():
                self.say(f"{name}: {firing.scheduled_at} was ended; the next scheduler goes on with it")
            elif firing.deaths + 1 < MAX_CRASHES:
                firings.write(firing.replace(deaths=firing.deaths + 1))
                self._interrupted.setdefault(name, []).append(instant)
                self.say(f"{name}: {firing.scheduled_at} ended without a word; it begins again")
            else:
                firing = worker.mark_failed(
                    firings, firing, worker.describe_crash(firings.path(instant, "log"), times=MAX_CRASHES)
                )
        if firing.status == "ended":
            self._report_end(firings, firing)

    def _report_end(self, firings: Firings, firing: Firing) -> None:
        worker.remove_empty_log(firings.path(firing.instant, "log"))
        self.say(
            f"{firing.schedule}: ended {firing.scheduled_at}: {firing.outcome}" + (f", {firing.run}" * bool(firing.run))
        )
        self._notify(firings, firing)

    def _notify(self, firings: Firings, firing: Firing) -> None:
        """Tell the schedule's webhook of a failure; beside everything else, and again after a restart."""
        latest = self.store.history(firing.schedule)[-1]
        if firing.exit_code == 0 or firing.notified:
            return
        if not webhook.should_notify(firing, latest):
            firings.write(
                firing.replace(notified=webhook.NOT_REQUESTED)
            )  # nor will it be told when a webhook is set one day
            return

        def work() -> None:
            delivery = webhook.notify(firing, latest, wait=self._stopping.wait)
            if delivery == "delivered" or not self._stopping.is_set():
                firings.write(firing.replace(notified=delivery))
            self.say(f"{firing.schedule}: webhook for {firing.scheduled_at}: {delivery}")
            self._notifiers.discard(threading.current_thread())

        notifier = threading.Thread(target=work, daemon=True)
        self._notifiers.add(notifier)
        notifier.start()

    # -- coming back ---------------------------------------------------------------------------------------

    def _recover(self) -> None:
        """What an earlier scheduler began and nobody ended, and what it had no time to tell."""
        for name in self.store.names(deleted=True):
            with self._reporting_errors(name):
                firings, deleted = self.store.firings(name), self.store.history(name)[-1].deleted
                for firing in firings.all():
                    if firing.kind == "backfill":  # its own command goes on with it
                        continue
                    if firing.status == "ended":
                        self._notify(firings, firing)
                    elif not deleted:
                        self._interrupted.setdefault(name, []).append(firing.instant)
                        self.say(f"{name}: {firing.scheduled_at} was begun and not ended; it is gone on with")

    def _schedule_next_check(self, name: str, latest: Schedule) -> None:
        """Have APScheduler look at a schedule when it fires next."""
        from apscheduler.jobstores.base import JobLookupError

        trigger = NextFiringTrigger(self.workspace, name, self.clock)
        if trigger.get_next_fire_time(None, self.clock.now()) is None:  # paused, deleted, or at its end
            with contextlib.suppress(JobLookupError):
                self._job_scheduler.remove_job(name, jobstore="schedules")
        else:
            self._job_scheduler.add_job(
                _check_job, trigger, (str(self.workspace), name), id=name, jobstore="schedules", replace_existing=True
            )
        self._known_revisions[name] = latest.revision


def select_due(history: list[Schedule], firings: Firings, now: datetime) -> list[Due]:
    """What is due and unclaimed, oldest first, after passing over what the schedule does not catch up with."""
    latest, until = history[-1], firings.handled()["until"]
    after = datetime.fromisoformat(until) if until else history[0].effective_from
    ready = []
    for each in due(history, after=after, until=now):
        if each.schedule.earliest_start(each.scheduled_at) > now:
            break
        if firings.read(each.scheduled_at) is None:
            ready.append(each)
    selected = ready[-(1 if latest.catch_up == "coalesce" else latest.catch_up_limit) :]
    if skipped_times := ready[: len(ready) - len(selected)]:
        why = "coalesced" if latest.catch_up == "coalesce" else f"more than {latest.catch_up_limit} were waiting"
        first, last = skipped_times[0].scheduled_at, skipped_times[-1].scheduled_at
        skipped = {
            "first": first.isoformat(),
            "last": last.isoformat(),
            "count": len(skipped_times),
            "why": why,
            "at": now.isoformat(timespec="seconds"),
        }
        firings.mark_handled(last, skipped=skipped)
    return selected


# -- APScheduler -------------------------------------------------------------------------------------------

_SCHEDULERS: dict[str, Scheduler] = {}  # the store keeps functions by their names: these find their scheduler here


def _check_job(workspace: str, name: str) -> None:
    if workspace in _SCHEDULERS:
        _SCHEDULERS[workspace].check(name)


def _poll_job(workspace: str) -> None:
    if workspace in _SCHEDULERS:
        _SCHEDULERS[workspace].poll()


def _apscheduler(store: Path, poll_s: float, workspace: Path) -> Any:
    from apscheduler.executors.pool import ThreadPoolExecutor
    from apscheduler.jobstores.memory import MemoryJobStore
    from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
    from apscheduler.schedulers.background import BackgroundScheduler

    _discard_damaged_store(store)
    logging.getLogger("apscheduler").setLevel(logging.ERROR)  # that a look took longer than a second is no news
    engine = BackgroundScheduler(
        timezone=UTC,
        jobstores={"default": MemoryJobStore(), "schedules": SQLAlchemyJobStore(url=f"sqlite:///{store}")},
        executors={"default": ThreadPoolExecutor(4)},
        # late is never too late here: the claims say what is to be done
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
    )
    engine.add_job(_poll_job, "interval", (str(workspace),), seconds=poll_s, id="tend")
    return engine


def _discard_damaged_store(store: Path) -> None:
    """A store that cannot be read is put aside: nothing is in it that the schedules do not tell again."""
    if not store.is_file():
        return
    try:
        with contextlib.closing(sqlite3.connect(store)) as database:
            if database.execute("PRAGMA quick_check").fetchone() == ("ok",):
                return
    except sqlite3.DatabaseError:
        pass
    os.replace(store, store.with_name(f"{store.name}.damaged"))


@contextlib.contextmanager
def _single_instance(lock: Path) -> Iterator[None]:
    import fcntl

    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UsageError(
                "another scheduler is at work in this workspace",
                expected="one at a time",
                found=file.read().strip() or "one that does not say who it is",
                where=str(lock),
                hint="end that one, or take a workspace of its own; several schedules share one scheduler",
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n")
        file.flush()
        yield
