"""Backfill: the runs of past fire times, oldest first, a few at once, each claimed like any other.

Given again, it goes on: what has come to its end is left alone, what was interrupted goes on as it began, and what
failed runs anew by the rule and on the window that the schedule has now. A model of an older window than the
champion's is refused by its gate (`decide.allow_older_window`) unless that is asked for.
The schedule's webhook is told of failures as it is by the scheduler.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from pipelines.schedules import webhook, worker
from pipelines.schedules.firings import Claim, Claims
from pipelines.schedules.store import Schedule, Schedules
from rankline.errors import UsageError

What = Literal["ran", "done before", "under way elsewhere"]
MOST = 10_000


class Filled(NamedTuple):
    """One past fire time and what became of it."""

    claim: Claim
    what: What


def moments(store: Schedules, name: str, *, start: datetime, end: datetime, now: datetime) -> list[datetime]:
    """The fire times from ``start`` up to, not including, ``end``, by the rule the schedule has now.

    Raises:
        UsageError: there is none, there are too many, they lie ahead, or the flow has no past.
    """
    return moments_of(store.get(name), start=start, end=end, now=now)


def moments_of(schedule: Schedule, *, start: datetime, end: datetime, now: datetime) -> list[datetime]:
    """The same of a schedule wherever it is kept."""
    if schedule.flow == "refresh":
        raise UsageError(
            "a refresh has no past to make up for: it publishes the items as they are now",
            expected="a schedule of the flow train or features",
            found=f"schedule {schedule.name!r} of the flow refresh",
            hint="the next refresh brings all that the missed ones would have: `rankline schedule plan` shows when",
        )
    if start > end:
        raise UsageError(
            "a backfill begins before it ends",
            expected="--from before --to",
            found=f"--from {start.isoformat()} --to {end.isoformat()}",
        )
    if end > now:
        raise UsageError(
            "a backfill ends in the past",
            expected=f"--to at or before {now.isoformat(timespec='seconds')}",
            found=end.isoformat(),
            hint="what is to come is the scheduler's: `rankline schedule plan` shows it",
        )
    found = []
    for at in schedule.rule.after(start.astimezone(UTC) - _INSTANT):
        if at >= end:
            break
        found.append(at)
        if len(found) > MOST:
            raise UsageError(
                f"these are more than {MOST} fire times", expected="fewer", hint="take a shorter stretch at a time"
            )
    if not found:
        raise UsageError(
            f"schedule {schedule.name!r} has no fire time there",
            expected="a stretch in which it fires",
            found=f"{start.isoformat()} to {end.isoformat()}, cron {schedule.cron!r} in {schedule.zone}",
            hint="`rankline schedule plan` shows when it fires",
        )
    return found


def backfill(
    workspace: Path,
    name: str,
    *,
    start: datetime,
    end: datetime,
    concurrency: int = 1,
    allow_older_window: bool = False,
    now: datetime,
    command: worker.Command = worker.command,
    say: Callable[[str], None] = print,
    poll_s: float = 0.2,
) -> list[Filled]:
    """Run the fire times from ``start`` up to ``end``; interrupted, what is under way ends with it.

    Raises:
        UsageError: the stretch is none, or a run's folder is not there.
    """
    store = Schedules(workspace)
    waiting = moments(store, name, start=start, end=end, now=now)
    schedule, claims = store.get(name), store.claims(name)
    under_way: dict[datetime, worker.Process] = {}
    filled: dict[datetime, Filled] = {}
    tellers = _Tellers(claims, say)

    def claimed(at: datetime) -> Filled | Claim:
        window = schedule.window_of(at)
        claim = Claim(
            schedule=name,
            scheduled_at=at.isoformat(),
            window_start=window.start.isoformat() if window.start else None,
            window_end=window.end.isoformat(),
            kind="backfill",
            revision=schedule.revision,
            claimed_at=now.isoformat(),
            allow_older_window=allow_older_window,
        )
        if claims.make(claim):
            return claim
        before = claims.read(at)
        assert before is not None
        if claims.under_way(at):
            return Filled(before, "under way elsewhere")
        anew = before.failed or (before.exit_code == 3 and allow_older_window and not before.allow_older_window)
        if before.status == "ended" and not anew:
            return Filled(before, "done before")
        again = before.but(status="claimed", allow_older_window=allow_older_window, error="", notified="", deaths=0)
        if anew:  # by the rule of now, which may have been corrected; what was interrupted goes on as it began
            again = again.but(
                run="", outcome="", exit_code=None, scratch=None,
                revision=claim.revision, window_start=claim.window_start, window_end=claim.window_end,
            )  # fmt: skip
        claims.write(again)
        return again

    try:
        while waiting or under_way:
            while waiting and len(under_way) < concurrency:
                at = waiting.pop(0)
                found = claimed(at)
                if isinstance(found, Filled):
                    filled[at] = found
                    if found.what == "done before" and found.claim.kind == "backfill":  # it may have been cut short
                        tellers.tell(found.claim, store.get(name))
                    say(f"{found.claim.scheduled_at}: {found.what}, {found.claim.outcome or found.claim.status}")
                    continue
                by = store.history(name)[found.revision - 1]
                try:
                    argv = command(workspace, name, at)
                    under_way[at] = worker.begin(argv, claims.path(at, "log"), directory=by.directory)
                except OSError as error:
                    raise UsageError(
                        "the run cannot be started in the schedule's folder",
                        expected="the folder that it was created in",
                        found=str(error.strerror),
                        where=by.directory,
                        hint=f"`rankline schedule update {name}`, given in another folder, sets that one",
                    ) from error
                say(f"{found.scheduled_at}: begins, data to {found.window_end}")
            for at, process in list(under_way.items()):
                if process.poll() is None:
                    continue
                del under_way[at]
                claim = claims.read(at)
                assert claim is not None
                if claim.status != "ended":
                    claim = worker.given_up(claims, claim, worker.last_words(claims.path(at, "log")))
                worker.tidy(claims.path(at, "log"))
                filled[at] = Filled(claim, "ran")
                say(f"{claim.scheduled_at}: {claim.outcome}" + (f"\n  {claim.error}" if claim.error else ""))
                tellers.tell(claim, store.get(name))
            time.sleep(poll_s if under_way else 0)
        tellers.finish()
    finally:
        tellers.ending.set()
        for process in under_way.values():
            if process.stdin:
                process.stdin.close()
        for process in under_way.values():
            worker.end(process)
    return [filled[at] for at in sorted(filled)]


class _Tellers:
    """Those who tell the webhook of failures, beside the runs that go on."""

    def __init__(self, claims: Claims, say: Callable[[str], None]) -> None:
        self.ending = threading.Event()  # nobody waits for another try any more
        self._claims, self._say = claims, say
        self._threads: list[threading.Thread] = []

    def tell(self, claim: Claim, schedule: Schedule) -> None:
        """Tell the schedule's webhook of a run that ended, if it is to hear of it and has not."""
        if claim.exit_code == 0 or claim.notified:
            return
        if not webhook.wanted(claim, schedule):
            self._claims.write(claim.but(notified=webhook.NOT_ASKED))
            return

        def work() -> None:
            told = webhook.tell(claim, schedule, wait=self.ending.wait)
            if told == "delivered" or not self.ending.is_set():
                self._claims.write(claim.but(notified=told))
            self._say(f"{claim.scheduled_at}: webhook: {told}")

        self._threads.append(threading.Thread(target=work, daemon=True))
        self._threads[-1].start()

    def finish(self) -> None:
        """Wait until everything is told, or was tried as often as it is."""
        for thread in self._threads:
            thread.join()


_INSTANT = datetime.resolution
