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
from pipelines.schedules.firings import Firing, Firings
from pipelines.schedules.store import LocalSchedules, Schedule
from rankline.errors import UsageError

BackfillStatus = Literal["ran", "done before", "under way elsewhere"]
MAX_FIRINGS = 10_000


class BackfillResult(NamedTuple):
    """One past fire time and what became of it."""

    firing: Firing
    status: BackfillStatus


def firing_times(store: LocalSchedules, name: str, *, start: datetime, end: datetime, now: datetime) -> list[datetime]:
    """The fire times from ``start`` up to, not including, ``end``, by the rule the schedule has now.

    Raises:
        UsageError: there is none, there are too many, they lie ahead, or the flow has no past.
    """
    return firing_times_of(store.get(name), start=start, end=end, now=now)


def firing_times_of(schedule: Schedule, *, start: datetime, end: datetime, now: datetime) -> list[datetime]:
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
    for at in schedule.rule.after(start.astimezone(UTC) - _RESOLUTION):
        if at >= end:
            break
        found.append(at)
        if len(found) > MAX_FIRINGS:
            raise UsageError(
                f"these are more than {MAX_FIRINGS} fire times",
                expected="fewer",
                hint="take a shorter stretch at a time",
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
    command: worker.WorkerCommand = worker.worker_command,
    say: Callable[[str], None] = print,
    poll_s: float = 0.2,
) -> list[BackfillResult]:
    """Run the fire times from ``start`` up to ``end``; interrupted, what is under way ends with it.

    Raises:
        UsageError: the stretch is none, or a run's folder is not there.
    """
    store = LocalSchedules(workspace)
    waiting = firing_times(store, name, start=start, end=end, now=now)
    schedule, firings = store.get(name), store.firings(name)
    under_way: dict[datetime, worker.WorkerProcess] = {}
    results: dict[datetime, BackfillResult] = {}
    notifier = _Notifier(firings, say)

    def create_firing(scheduled_at: datetime) -> BackfillResult | Firing:
        window = schedule.window_of(scheduled_at)
        firing = Firing(
            schedule=name,
            scheduled_at=scheduled_at.isoformat(),
            window_start=window.start.isoformat() if window.start else None,
            window_end=window.end.isoformat(),
            kind="backfill",
            revision=schedule.revision,
            claimed_at=now.isoformat(),
            allow_older_window=allow_older_window,
        )
        if firings.create(firing):
            return firing
        previous = firings.read(scheduled_at)
        assert previous is not None
        if firings.is_running(scheduled_at):
            return BackfillResult(previous, "under way elsewhere")
        rerun = previous.failed or (previous.exit_code == 3 and allow_older_window and not previous.allow_older_window)
        if previous.status == "ended" and not rerun:
            return BackfillResult(previous, "done before")
        reset = previous.replace(
            status="claimed", allow_older_window=allow_older_window, error="", notified="", deaths=0
        )
        if rerun:  # by the rule of now, which may have been corrected; what was interrupted goes on as it began
            reset = reset.replace(
                run="", outcome="", exit_code=None, scratch=None,
                revision=firing.revision, window_start=firing.window_start, window_end=firing.window_end,
            )  # fmt: skip
        firings.write(reset)
        return reset

    try:
        while waiting or under_way:
            while waiting and len(under_way) < concurrency:
                scheduled_at = waiting.pop(0)
                found = create_firing(scheduled_at)
                if isinstance(found, BackfillResult):
                    results[scheduled_at] = found
                    if found.status == "done before" and found.firing.kind == "backfill":  # it may have been cut short
                        notifier.notify(found.firing, store.get(name))
                    say(f"{found.firing.scheduled_at}: {found.status}, {found.firing.outcome or found.firing.status}")
                    continue
                revision = store.history(name)[found.revision - 1]
                try:
                    argv = command(workspace, name, scheduled_at)
                    under_way[scheduled_at] = worker.start_worker(
                        argv, firings.path(scheduled_at, "log"), directory=revision.directory
                    )
                except OSError as error:
                    raise UsageError(
                        "the run cannot be started in the schedule's folder",
                        expected="the folder that it was created in",
                        found=str(error.strerror),
                        where=revision.directory,
                        hint=f"`rankline schedule update {name}`, given in another folder, sets that one",
                    ) from error
                say(f"{found.scheduled_at}: begins, data to {found.window_end}")
            for scheduled_at, process in list(under_way.items()):
                if process.poll() is None:
                    continue
                del under_way[scheduled_at]
                firing = firings.read(scheduled_at)
                assert firing is not None
                if firing.status != "ended":
                    firing = worker.mark_failed(
                        firings, firing, worker.describe_crash(firings.path(scheduled_at, "log"))
                    )
                worker.remove_empty_log(firings.path(scheduled_at, "log"))
                results[scheduled_at] = BackfillResult(firing, "ran")
                say(f"{firing.scheduled_at}: {firing.outcome}" + (f"\n  {firing.error}" if firing.error else ""))
                notifier.notify(firing, store.get(name))
            time.sleep(poll_s if under_way else 0)
        notifier.finish()
    finally:
        notifier.stopping.set()
        for process in under_way.values():
            if process.stdin:
                process.stdin.close()
        for process in under_way.values():
            worker.stop_worker(process)
    return [results[scheduled_at] for scheduled_at in sorted(results)]


class _Notifier:
    """Those who tell the webhook of failures, beside the runs that go on."""

    def __init__(self, firings: Firings, say: Callable[[str], None]) -> None:
        self.stopping = threading.Event()  # nobody waits for another try any more
        self._claims, self._say = firings, say
        self._threads: list[threading.Thread] = []

    def notify(self, firing: Firing, schedule: Schedule) -> None:
        """Tell the schedule's webhook of a run that ended, if it is to hear of it and has not."""
        if firing.exit_code == 0 or firing.notified:
            return
        if not webhook.should_notify(firing, schedule):
            self._claims.write(firing.replace(notified=webhook.NOT_REQUESTED))
            return

        def work() -> None:
            delivery = webhook.notify(firing, schedule, wait=self.stopping.wait)
            if delivery == "delivered" or not self.stopping.is_set():
                self._claims.write(firing.replace(notified=delivery))
            self._say(f"{firing.scheduled_at}: webhook: {delivery}")

        self._threads.append(threading.Thread(target=work, daemon=True))
        self._threads[-1].start()

    def finish(self) -> None:
        """Wait until everything is told, or was tried as often as it is."""
        for thread in self._threads:
            thread.join()


_RESOLUTION = datetime.resolution
