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
from pipelines.schedules.firings import Claim, Claims
from pipelines.schedules.store import FOLDER, GRACE_S, Due, Schedule, Schedules, due
from rankline.errors import RanklineError, UsageError

STORE, LOCK = "scheduler.db", "scheduler.lock"
MAX_DEATHS = 3  # how often a run may end without a word before it is given up
TEND_S = 1.0


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


class NextLook(BaseTrigger):  # type: ignore[misc]  # it has no types
    """APScheduler's trigger of a schedule: when a run of it may begin next. Kept in the store by its names only."""

    def __init__(self, workspace: Path, name: str, clock: Clock) -> None:
        self.workspace, self.name, self.clock = workspace, name, clock

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime | None:
        """The next moment later than now, on the machine's clock; none where nothing is to come."""
        here, history = self.clock.now(), Schedules(self.workspace).history(self.name)
        late = max((each.jitter_s for each in history), default=0.0)
        for at, by in due(history, after=here - timedelta(seconds=late)):
            if by.begins(at) > here:
                return self.clock.real(by.begins(at))
        return None


@dataclass
class Running:
    """A run that this scheduler started."""

    claim: Claim
    process: worker.Process


@dataclass
class Scheduler:
    """What begins runs, for as long as :meth:`running` lasts."""

    workspace: Path
    max_runs: int = 2
    clock: Clock = field(default_factory=MachineClock)
    command: worker.Command = worker.command
    say: Callable[[str], None] = print
    tend_s: float = TEND_S

    def __post_init__(self) -> None:
        self.store = Schedules(self.workspace)
        self._guard = threading.RLock()
        self._under_way: dict[tuple[str, datetime], Running] = {}
        self._begun: dict[str, list[datetime]] = {}  # claims that an earlier scheduler began and nobody ended
        self._known: dict[str, int] = {}  # schedule -> the revision it was last looked at in
        self._waiting: set[str] = set()
        self._troubles: dict[str, str] = {}
        self._tellers: set[threading.Thread] = set()
        self._ending = threading.Event()
        self._jobs: Any = None

    @contextlib.contextmanager
    def running(self) -> Iterator[Scheduler]:
        """It works while the block runs; at its end what it started is ended in order, to be gone on with later.

        Raises:
            UsageError: another scheduler is at work in this workspace.
        """
        folder = self.workspace / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        with _only_one(folder / LOCK):
            _LIVE[str(self.workspace)] = self
            self._recover()
            self._jobs = _engine(folder / STORE, self.tend_s, self.workspace)
            self._jobs.start()
            try:
                self.tend()
                yield self
            finally:
                self._ending.set()
                self._jobs.shutdown(wait=False)
                with self._guard:
                    for each in self._under_way.values():
                        if each.process.stdin:
                            each.process.stdin.close()
                    for each in self._under_way.values():
                        worker.end(each.process)
                    self._reap()
                for teller in list(self._tellers):
                    teller.join(webhook.TIMEOUT_S)
                _LIVE.pop(str(self.workspace), None)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, waits for room, or is still to be told."""
        with self._guard:
            return not (self._under_way or self._waiting or any(self._begun.values()) or self._tellers)

    # -- what APScheduler calls ----------------------------------------------------------------------------

    def look(self, name: str) -> None:
        """Begin what is due of a schedule, as far as there is room; the rest waits."""
        with self._guard, self._minding(name), self.store.alone(name):
            self._waiting.add(name)  # whatever goes wrong from here on is tried again
            if not self._ending.is_set() and not self._begin_due(name):
                self._waiting.discard(name)

    def tend(self) -> None:
        """Note what has ended, notice changed schedules, and look again at what had to wait."""
        with self._guard:
            if self._ending.is_set():
                return
            self._reap()
            for name in self.store.names(deleted=True):
                with self._minding(name):
                    latest = self.store.history(name)[-1]
                    if self._known.get(name) != latest.revision:
                        self._waiting.add(name)
                        self._wake_at(name, latest)
            for name in sorted(self._waiting):
                self.look(name)

    @contextlib.contextmanager
    def _minding(self, name: str) -> Iterator[None]:
        """What goes wrong with one schedule (a damaged file, a full disk) is said once, and stops no other."""
        try:
            yield
            self._troubles.pop(name, None)
        except (RanklineError, OSError, ValueError, TypeError) as error:
            if self._troubles.get(name) != str(error):
                self.say(f"{name}: {error}\n  it is tried again all the time")
            self._troubles[name] = str(error)

    # -- beginning -----------------------------------------------------------------------------------------

    def _begin_due(self, name: str) -> bool:
        """Begin what there is room for; whether something is left."""
        history, claims, now = self.store.history(name), self.store.claims(name), self.clock.now()
        latest = history[-1]
        if latest.paused or latest.deleted:
            return False
        begun = self._begun.get(name, [])
        while begun and self._room(latest):
            claim = claims.read(begun.pop(0))
            if claim and claim.status != "ended":
                self._start(claims, claim, history[claim.revision - 1])
        if begun:
            return True
        left = to_begin(history, claims, now)
        while left and self._room(latest):
            at, by = left.pop(0)
            kind = "scheduled" if now - by.begins(at) <= timedelta(seconds=GRACE_S) else "catch-up"
            window = by.window_of(at)
            claim = Claim(
                schedule=name,
                scheduled_at=at.isoformat(),
                window_start=window.start.isoformat() if window.start else None,
                window_end=window.end.isoformat(),
                kind=kind,  # type: ignore[arg-type]
                revision=by.revision,
                claimed_at=now.isoformat(),
            )
            if claims.make(claim):
                self._start(claims, claim, by)
            claims.handle(at)
        return bool(left)

    def _room(self, schedule: Schedule) -> bool:
        own = sum(1 for name, _ in self._under_way if name == schedule.name)
        return own < schedule.max_runs and len(self._under_way) < self.max_runs

    def _start(self, claims: Claims, claim: Claim, by: Schedule) -> None:
        argv = self.command(self.workspace, claim.schedule, claim.moment)
        try:
            process = worker.begin(argv, claims.path(claim.moment, "log"), directory=by.directory)
        except OSError as error:
            why = f"it cannot be started: {error.strerror}: {error.filename}"
            try:
                self._ended(claims, worker.given_up(claims, claim, why))
            except OSError:  # not even that can be noted: it stays claimed, and is begun when it can
                self._begun.setdefault(claim.schedule, []).append(claim.moment)
                raise
            return
        self._under_way[claim.schedule, claim.moment] = Running(claim, process)
        self.say(f"{claim.schedule}: begins {claim.scheduled_at} ({claim.kind}, data to {claim.window_end})")

    # -- ending --------------------------------------------------------------------------------------------

    def _reap(self) -> None:
        for key, each in list(self._under_way.items()):
            if each.process.poll() is not None:
                with self._minding(key[0]):
                    self._note_end(*key, each)
                    del self._under_way[key]
                    self._waiting.add(key[0])

    def _note_end(self, name: str, moment: datetime, each: Running) -> None:
        claims = self.store.claims(name)
        claim = claims.read(moment) or each.claim
        if claim.status != "ended":
            if self._ending.is_set():
                self.say(f"{name}: {claim.scheduled_at} was ended; the next scheduler goes on with it")
            elif claim.deaths + 1 < MAX_DEATHS:
                claims.write(claim.but(deaths=claim.deaths + 1))
                self._begun.setdefault(name, []).append(moment)
                self.say(f"{name}: {claim.scheduled_at} ended without a word; it begins again")
            else:
                claim = worker.given_up(claims, claim, worker.last_words(claims.path(moment, "log"), times=MAX_DEATHS))
        if claim.status == "ended":
            self._ended(claims, claim)

    def _ended(self, claims: Claims, claim: Claim) -> None:
        worker.tidy(claims.path(claim.moment, "log"))
        self.say(
            f"{claim.schedule}: ended {claim.scheduled_at}: {claim.outcome}" + (f", {claim.run}" * bool(claim.run))
        )
        self._tell(claims, claim)

    def _tell(self, claims: Claims, claim: Claim) -> None:
        """Tell the schedule's webhook of a failure; beside everything else, and again after a restart."""
        latest = self.store.history(claim.schedule)[-1]
        if claim.exit_code == 0 or claim.notified:
            return
        if not webhook.wanted(claim, latest):
            claims.write(claim.but(notified=webhook.NOT_ASKED))  # nor will it be told when a webhook is set one day
            return

        def work() -> None:
            told = webhook.tell(claim, latest, wait=self._ending.wait)
            if told == "delivered" or not self._ending.is_set():
                claims.write(claim.but(notified=told))
            self.say(f"{claim.schedule}: webhook for {claim.scheduled_at}: {told}")
            self._tellers.discard(threading.current_thread())

        teller = threading.Thread(target=work, daemon=True)
        self._tellers.add(teller)
        teller.start()

    # -- coming back ---------------------------------------------------------------------------------------

    def _recover(self) -> None:
        """What an earlier scheduler began and nobody ended, and what it had no time to tell."""
        for name in self.store.names(deleted=True):
            with self._minding(name):
                claims, deleted = self.store.claims(name), self.store.history(name)[-1].deleted
                for claim in claims.all():
                    if claim.kind == "backfill":  # its own command goes on with it
                        continue
                    if claim.status == "ended":
                        self._tell(claims, claim)
                    elif not deleted:
                        self._begun.setdefault(name, []).append(claim.moment)
                        self.say(f"{name}: {claim.scheduled_at} was begun and not ended; it is gone on with")

    def _wake_at(self, name: str, latest: Schedule) -> None:
        """Have APScheduler look at a schedule when it fires next."""
        from apscheduler.jobstores.base import JobLookupError

        trigger = NextLook(self.workspace, name, self.clock)
        if trigger.get_next_fire_time(None, self.clock.now()) is None:  # paused, deleted, or at its end
            with contextlib.suppress(JobLookupError):
                self._jobs.remove_job(name, jobstore="schedules")
        else:
            self._jobs.add_job(
                _look, trigger, (str(self.workspace), name), id=name, jobstore="schedules", replace_existing=True
            )
        self._known[name] = latest.revision


def to_begin(history: list[Schedule], claims: Claims, now: datetime) -> list[Due]:
    """What is due and unclaimed, oldest first, after passing over what the schedule does not catch up with."""
    latest, until = history[-1], claims.handled()["until"]
    after = datetime.fromisoformat(until) if until else history[0].since
    ready = []
    for each in due(history, after=after, until=now):
        if each.by.begins(each.at) > now:
            break
        if claims.read(each.at) is None:
            ready.append(each)
    kept = ready[-(1 if latest.catch_up == "coalesce" else latest.catch_up_limit) :]
    if passed := ready[: len(ready) - len(kept)]:
        why = "coalesced" if latest.catch_up == "coalesce" else f"more than {latest.catch_up_limit} were waiting"
        first, last = passed[0].at, passed[-1].at
        skipped = {
            "first": first.isoformat(),
            "last": last.isoformat(),
            "count": len(passed),
            "why": why,
            "at": now.isoformat(timespec="seconds"),
        }
        claims.handle(last, skipped=skipped)
    return kept


# -- APScheduler -------------------------------------------------------------------------------------------

_LIVE: dict[str, Scheduler] = {}  # the store keeps functions by their names: these find their scheduler here


def _look(workspace: str, name: str) -> None:
    if workspace in _LIVE:
        _LIVE[workspace].look(name)


def _tend(workspace: str) -> None:
    if workspace in _LIVE:
        _LIVE[workspace].tend()


def _engine(store: Path, tend_s: float, workspace: Path) -> Any:
    from apscheduler.executors.pool import ThreadPoolExecutor
    from apscheduler.jobstores.memory import MemoryJobStore
    from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
    from apscheduler.schedulers.background import BackgroundScheduler

    _renew(store)
    logging.getLogger("apscheduler").setLevel(logging.ERROR)  # that a look took longer than a second is no news
    engine = BackgroundScheduler(
        timezone=UTC,
        jobstores={"default": MemoryJobStore(), "schedules": SQLAlchemyJobStore(url=f"sqlite:///{store}")},
        executors={"default": ThreadPoolExecutor(4)},
        # late is never too late here: the claims say what is to be done
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
    )
    engine.add_job(_tend, "interval", (str(workspace),), seconds=tend_s, id="tend")
    return engine


def _renew(store: Path) -> None:
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
def _only_one(lock: Path) -> Iterator[None]:
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
