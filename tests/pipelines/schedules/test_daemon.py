"""The embedded scheduler, in this process and as processes that are killed and started again."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.schedules.daemon import Scheduler
from pipelines.schedules.firing import TIMESTAMP_FORMAT, Firing
from pipelines.schedules.firings import Firings
from pipelines.schedules.model import due
from pipelines.schedules.processes import worker_command
from pipelines.schedules.store import ScheduleStore
from rankline.errors import UsageError
from rankline.notifications import delivery
from tests.cli.command import RANKLINE
from tests.cli.in_process import refused
from tests.pipelines.schedules.fast_scheduler import FastClock, command, is_idle
from tests.rankline.notifications.receivers import web_server

ROOT = Path(__file__).resolve().parents[3]
KILLS = 6
START = datetime(2026, 10, 10, 10, 30, tzinfo=UTC)  # the month holds the end of summer time in Europe


def noted(workspace: Path, name: str, word: str) -> Counter[str]:
    path = workspace / f"{name}.{word}"
    return Counter(path.read_text().split() if path.is_file() else ())


@contextmanager
def scheduler_process(workspace: Path, clock: FastClock) -> Iterator[subprocess.Popen[bytes]]:
    """A scheduler as a process, which is killed at the end."""
    argv = [sys.executable, "-m", "tests.pipelines.schedules.fast_scheduler", str(workspace), str(clock)]
    with (workspace / "scheduler.log").open("ab") as output:
        process = subprocess.Popen(argv, cwd=ROOT, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def log(workspace: Path) -> str:
    path = workspace / "scheduler.log"
    return path.read_text() if path.is_file() else ""


def create(workspace: Path, name: str, now: datetime = START, **settings: Any) -> None:
    values = {"name": name, "recipe": "smoke", "cron": "0 0 3 * * *", "window": "30d"} | settings
    ScheduleStore(workspace).create(values, now=now)


@pytest.mark.integration
def test_a_month_of_kills_misses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    end, seed = START + timedelta(days=30), random.randrange(10**6)
    chance, kills = random.Random(seed), 0
    create(tmp_path, "daily", cron="0 30 2 * * *", zone="Europe/Berlin", catch_up="all", catch_up_limit=1000)
    create(tmp_path, "twice", cron="0 0 */12 * * *", catch_up="all", catch_up_limit=1000, max_runs=2, jitter_s=6000)
    create(tmp_path, "often", cron="0 15 */6 * * *", zone="Asia/Shanghai")
    clock = FastClock(START, end, datetime.now(UTC) + timedelta(seconds=1), 30 * 86400 / 10)
    deadline = time.monotonic() + 600  # it takes 20 s where the machine has nothing else to do
    for left in reversed(range(KILLS + 1)):
        before = len(log(tmp_path))
        with scheduler_process(tmp_path, clock) as process:
            if not left:
                process.wait(deadline - time.monotonic())
                assert process.returncode == 0, log(tmp_path)[-3000:]
                break
            if chance.random() < 0.8:  # most while it works, some while it comes up
                while "running" not in log(tmp_path)[before:] and process.poll() is None:
                    assert time.monotonic() < deadline, log(tmp_path)[-3000:]
                    time.sleep(0.02)
            time.sleep(chance.uniform(0, 1.5))
            kills += process.poll() is None
    assert kills >= KILLS / 2
    store = ScheduleStore(tmp_path)
    for name in ("daily", "twice", "often"):
        ended = noted(tmp_path, name, "ended")
        firings = store.firings(name)
        assert set(ended.values()) == {1}, (seed, name, ended.most_common(3))
        assert {firing.status for firing in firings.all()} == {"ended"}
        assert noted(tmp_path, name, "begun").keys() == ended.keys()
        expected = {
            each.scheduled_at.strftime(TIMESTAMP_FORMAT) for each in due(store.history(name), after=START, until=end)
        }
        done = set(ended)
        if name != "often":
            assert done == expected, (seed, name)
            continue
        skipped = _skipped(firings, expected)
        assert not done & skipped
        assert done | skipped == expected, (seed, name)
        assert skipped, "nothing was coalesced"
    assert len(noted(tmp_path, "daily", "ended")) in (30, 31)


def _skipped(firings: Firings, expected: set[str]) -> set[str]:
    stamps = set()
    for each in firings.handled()["skipped"]:
        first, last = (datetime.fromisoformat(each[edge]).strftime(TIMESTAMP_FORMAT) for edge in ("first", "last"))
        inside = {stamp for stamp in expected if first <= stamp <= last}
        # what lies between two skipped ones may have run before
        stamps |= {stamp for stamp in inside if firings.read(_instant(stamp)) is None}
    return stamps


def _instant(stamp: str) -> datetime:
    return datetime.strptime(stamp, TIMESTAMP_FORMAT).replace(tzinfo=UTC)


# -- one scheduler in this process, whose clock stands where it is put --------------------------------------------


class FixedClock:
    """A clock that the test sets."""

    def __init__(self, at: datetime = START) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at


@contextmanager
def running(workspace: Path, clock: FixedClock, *, real: bool = False, max_runs: int = 2) -> Iterator[Scheduler]:
    """A scheduler of tiny runs, or of real ones, after its first round."""
    command_line = worker_command if real else command
    scheduler = Scheduler(workspace, max_runs=max_runs, clock=clock, command=command_line, say=lambda line: None)
    with scheduler.running():
        scheduler.tick()
        yield scheduler


def until(condition: Callable[[], bool], scheduler: Scheduler | None = None, *, within_s: float = 60.0) -> None:
    """Wait for a condition, while the scheduler does its rounds."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition is never met"
        if scheduler is not None:
            scheduler.tick()
        time.sleep(0.02)


def test_a_second_scheduler_in_a_workspace_is_refused(tmp_path: Path) -> None:
    with (
        running(tmp_path, FixedClock()),
        pytest.raises(UsageError, match="another scheduler runs") as refusal,
        running(tmp_path, FixedClock()),
    ):
        pass
    assert f"process {os.getpid()} on" in str(refusal.value)
    with running(tmp_path, FixedClock()):
        pass  # the first one ended


def test_a_scheduler_that_is_ended_ends_its_runs_and_the_next_goes_on_with_them(tmp_path: Path) -> None:
    create(tmp_path, "sleeps")
    firings, instant = ScheduleStore(tmp_path).firings("sleeps"), datetime(2026, 10, 11, 3, tzinfo=UTC)
    clock = FixedClock(instant)
    with running(tmp_path, clock) as scheduler:
        until(lambda: bool(noted(tmp_path, "sleeps", "begun")))
        assert firings.is_running(instant)
        # an update while it runs changes nothing of it
        ScheduleStore(tmp_path).update("sleeps", {"window": "7d", "max_runs": 3}, now=instant + timedelta(hours=1))
        clock.at = instant + timedelta(hours=2)
        scheduler.tick()
        assert firings.is_running(instant)
        assert len(firings.all()) == 1
    assert not firings.is_running(instant)
    assert [(firing.status, firing.attempts, firing.revision) for firing in firings.all()] == [("running", 1, 1)]
    with running(tmp_path, clock):
        until(lambda: noted(tmp_path, "sleeps", "begun").total() == 2)
        assert firings.is_running(instant)
    assert [(firing.kind, firing.window_start) for firing in firings.all()] == [
        ("scheduled", "2026-09-11T03:00:00+00:00")
    ]


def test_no_more_runs_are_under_way_than_allowed(tmp_path: Path) -> None:
    for name in ("a-sleeps", "b-sleeps", "c-sleeps"):
        create(tmp_path, name, catch_up="all", max_runs=2)
    with running(tmp_path, FixedClock(START + timedelta(days=4)), max_runs=3) as scheduler:
        for _ in range(3):
            scheduler.tick()
        assert [scheduler._workers.count(name) for name in ("a-sleeps", "b-sleeps", "c-sleeps")] == [2, 1, 0]
        assert len(ScheduleStore(tmp_path).firings("a-sleeps").all()) == 2, "what waits has no firing yet"


def test_a_paused_schedule_begins_nothing_and_does_not_make_up_for_it(tmp_path: Path) -> None:
    create(tmp_path, "s", catch_up="all")
    store, clock = ScheduleStore(tmp_path), FixedClock(START + timedelta(days=3))
    store.update("s", {"paused": True}, now=START + timedelta(hours=1))
    with running(tmp_path, clock) as scheduler:
        scheduler.tick()
        assert is_idle(scheduler)
        assert store.firings("s").all() == []
        store.update("s", {"paused": False}, now=clock.at)
        clock.at += timedelta(days=1)
        until(lambda: noted(tmp_path, "s", "ended").total() == 1, scheduler)
    assert [firing.instant.day for firing in store.firings("s").all()] == [14]


def test_a_run_that_dies_again_and_again_is_given_up(tmp_path: Path) -> None:
    create(tmp_path, "dies")
    with running(tmp_path, FixedClock(START + timedelta(days=1))) as scheduler:
        until(lambda: is_idle(scheduler) and noted(tmp_path, "dies", "begun").total() == 3, scheduler)
    (firing,) = ScheduleStore(tmp_path).firings("dies").all()
    assert (firing.outcome, firing.deaths, firing.attempts, firing.kind) == ("failed", 2, 3, "catch-up")
    assert "without a verdict 3 times; its last log line: I was here" in firing.error


def test_a_schedule_that_cannot_be_read_stops_no_other(tmp_path: Path) -> None:
    create(tmp_path, "a")
    create(tmp_path, "b")
    (tmp_path / "schedules/a/revisions/0001.json").write_text("{")
    with running(tmp_path, FixedClock(START + timedelta(days=1))) as scheduler:
        until(lambda: noted(tmp_path, "b", "ended").total() == 1, scheduler)


def test_a_folder_that_is_gone_is_a_failure(tmp_path: Path) -> None:
    create(tmp_path, "s", directory=str(tmp_path / "gone"))
    with running(tmp_path, FixedClock(START + timedelta(days=1))) as scheduler:
        until(lambda: is_idle(scheduler) and bool(ScheduleStore(tmp_path).firings("s").all()), scheduler)
    (firing,) = ScheduleStore(tmp_path).firings("s").all()
    assert (firing.outcome, "cannot be started" in firing.error) == ("failed", True)


def test_the_database_of_an_earlier_version_is_ignored(tmp_path: Path) -> None:
    create(tmp_path, "s")
    database = tmp_path / "schedules/scheduler.db"
    database.write_bytes(b"a database" * 1000)
    with running(tmp_path, FixedClock(START + timedelta(days=1))) as scheduler:
        until(lambda: noted(tmp_path, "s", "ended").total() == 1, scheduler)
    assert database.read_bytes() == b"a database" * 1000


def test_a_clock_that_is_set_back_doubles_nothing_and_stops_nothing(tmp_path: Path) -> None:
    create(tmp_path, "s")
    clock = FixedClock(START + timedelta(days=2))
    with running(tmp_path, clock) as scheduler:
        until(lambda: is_idle(scheduler) and noted(tmp_path, "s", "ended").total() == 1, scheduler)
        clock.at -= timedelta(days=1)
        create(tmp_path, "later", now=clock.at)
        for hours in (0, 12, 24):
            clock.at = START + timedelta(days=1, hours=hours)
            scheduler.tick()
            until(lambda: is_idle(scheduler), scheduler)
        assert noted(tmp_path, "later", "ended").total() == 1
        clock.at = START + timedelta(days=3)
        until(lambda: noted(tmp_path, "s", "ended").total() == 2, scheduler)
    assert [firing.instant.day for firing in ScheduleStore(tmp_path).firings("s").all()] == [12, 13]
    assert set(noted(tmp_path, "s", "ended").values()) == {1}


@pytest.mark.integration
def test_a_clock_that_was_a_day_ahead_silences_nothing(tmp_path: Path) -> None:
    create(tmp_path, "s", cron="0 0 * * * *")
    store, clock = ScheduleStore(tmp_path), FixedClock(START + timedelta(hours=1))
    with running(tmp_path, clock) as scheduler:
        until(lambda: is_idle(scheduler), scheduler)
        clock.at += timedelta(days=1)
        scheduler.tick()
        until(lambda: is_idle(scheduler) and noted(tmp_path, "s", "ended").total() == 2, scheduler)
        for hours in range(1, 28):
            clock.at = START + timedelta(hours=hours)
            scheduler.tick()
            until(lambda: is_idle(scheduler), scheduler)
            assert (store.clock_note("s", now=clock.at) == "") is (hours >= 25)
    firings = [firing.instant for firing in store.firings("s").all()]
    first = datetime(2026, 10, 10, 11, tzinfo=UTC)
    assert firings == [first + timedelta(hours=each) for each in range(27)]
    assert set(noted(tmp_path, "s", "ended").values()) == {1}


@pytest.mark.integration
@pytest.mark.parametrize("created_at", [START - timedelta(days=1), START + timedelta(days=3650)])
def test_what_was_done_with_a_clock_years_ahead_silences_nothing(tmp_path: Path, created_at: datetime) -> None:
    create(tmp_path, "s", now=created_at, cron="0 0 * * * *", catch_up="all")
    store, future = ScheduleStore(tmp_path), START + timedelta(days=3650)
    store.update("s", {"cron": "0 30 * * * *"}, now=future)
    if created_at < START:
        store.firings("s").mark_handled(future)
    assert f"up to {future:%Y-%m-%d %H:%M}" in store.clock_note("s", now=START)
    clock = FixedClock()
    with running(tmp_path, clock) as scheduler:
        for hours in range(1, 27):
            clock.at = START + timedelta(hours=hours)
            scheduler.tick()
            until(lambda: is_idle(scheduler), scheduler)
    assert [firing.instant for firing in store.firings("s").all()] == [
        START + timedelta(hours=each) for each in range(1, 27)
    ]
    assert store.clock_note("s", now=clock.at) == "", "for a day nobody corrected it"


def test_a_clock_that_starts_in_the_past_runs_nothing_again_once_it_is_right(tmp_path: Path) -> None:
    create(tmp_path, "s", cron="0 0 * * * *", catch_up="all", catch_up_limit=2)
    right, clock = START + timedelta(days=9), FixedClock(START + timedelta(days=9))
    with running(tmp_path, clock) as scheduler:
        until(lambda: is_idle(scheduler) and noted(tmp_path, "s", "ended").total() == 2, scheduler)
    for wrong in (START - timedelta(days=2000), START + timedelta(days=5)):
        clock.at = wrong
        with running(tmp_path, clock) as scheduler:
            for clock.at in (wrong, right, right + timedelta(minutes=10)):
                scheduler.tick()
                until(lambda: is_idle(scheduler), scheduler)
    assert noted(tmp_path, "s", "ended").total() == 2
    clock.at = right + timedelta(hours=1)
    with running(tmp_path, clock) as scheduler:
        until(lambda: is_idle(scheduler) and noted(tmp_path, "s", "ended").total() == 3, scheduler)


def test_nothing_is_evaluated_again_before_the_next_start(tmp_path: Path) -> None:
    create(tmp_path, "s", jitter_s=3600)
    clock, store = FixedClock(), ScheduleStore(tmp_path)
    start = store.get("s").earliest_start(datetime(2026, 10, 11, 3, tzinfo=UTC))
    with running(tmp_path, clock) as scheduler:
        assert scheduler._next_checks["s"].due_at == start
        store.update("s", {"paused": True}, now=START)
        scheduler.tick()
        assert scheduler._next_checks["s"].due_at is None
        store.update("s", {"paused": False}, now=START)
        clock.at = start - timedelta(seconds=1)
        scheduler.tick()
        assert store.firings("s").all() == []
        clock.at = start
        scheduler.tick()
        assert [firing.kind for firing in store.firings("s").all()] == ["scheduled"]


# -- webhooks ----------------------------------------------------------------------------------------------------


def test_a_webhook_hears_of_a_failed_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_HEADERS", '{"Authorization": "Bearer t0ken"}')
    monkeypatch.setattr(delivery, "BACKOFF_S", 0.01)
    with web_server([503, 200]) as (url, received):
        create(tmp_path, "fails", webhook=url, webhook_headers="HOOK_HEADERS")
        create(tmp_path, "good", webhook=url, webhook_headers="HOOK_HEADERS")
        clock = FixedClock(START + timedelta(days=1))
        with running(tmp_path, clock) as scheduler:
            until(
                lambda: is_idle(scheduler) and noted(tmp_path, "good", "ended").total() == 1 and len(received) == 2,
                scheduler,
            )
        create(tmp_path, "late-fails")
        with running(tmp_path, clock) as scheduler:  # nothing is posted twice
            until(lambda: is_idle(scheduler) and noted(tmp_path, "late-fails", "ended").total() == 1, scheduler)
        # a webhook that is set later does not hear of earlier failures
        ScheduleStore(tmp_path).update("late-fails", {"webhook": url}, now=clock.at)
        with running(tmp_path, clock) as scheduler:
            until(lambda: is_idle(scheduler), scheduler)
    first, again = received
    body = json.loads(first.body)
    assert first.headers["authorization"] == again.headers["authorization"] == "Bearer t0ken"
    assert first.headers["idempotency-key"] == again.headers["idempotency-key"]
    assert (body["schedule"], body["outcome"], body["exit_code"]) == ("fails", "failed", 1)
    assert body["scheduled_at"] == body["window_end"] == "2026-10-11T03:00:00+00:00"
    assert "the loss is no number" in body["error"]
    assert [firing.notified for firing in ScheduleStore(tmp_path).firings("fails").all()] == ["delivered"]
    assert b"t0ken" not in b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())


@pytest.mark.integration
@pytest.mark.parametrize(
    ("answers", "tries", "result"),
    [
        ([500], 5, "it answered 500"),
        ([404], 1, "it answered 404"),
        ([302], 1, "it answered 302"),
        ([429, 503, 200], 3, "delivered"),
    ],
)
def test_a_webhook_is_retried_where_that_may_help(
    answers: list[int], tries: int, result: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    # urllib3 alone does not wait: threads of other tests do
    monkeypatch.setattr("urllib3.util.retry.time", SimpleNamespace(sleep=pauses.append, time=time.time))
    with web_server(answers) as (url, received):
        assert result in delivery.deliver(url, {"a": 1}, key="k")
    assert len(received) == tries
    assert pauses == [2.0, 4.0, 8.0][: max(tries - 2, 0)], "the first retry comes at once"


def test_a_webhook_without_its_secret_or_without_a_server_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "BACKOFF_S", 0)
    assert "refused" in delivery.deliver("http://127.0.0.1:9/", {}, key="k").lower()
    assert "does not hold headers" in delivery.deliver("http://127.0.0.1:9/", {}, key="k", variable="NOT_SET")
    monkeypatch.setenv("HOOK_HEADERS", "Bearer s3cret")
    result = delivery.deliver("http://127.0.0.1:9/", {}, key="k", variable="HOOK_HEADERS")
    assert "s3cret" not in result
    assert "something else" in result
    monkeypatch.setenv("HOOK_HEADERS", '{"Authorization": "s3cret\\nX: y"}')
    assert delivery.deliver("http://127.0.0.1:9/", {}, key="k", variable="HOOK_HEADERS") == (
        "not delivered: a header cannot be sent"
    )


# -- a real run ----------------------------------------------------------------------------------------------------


@pytest.mark.integration
def test_a_real_run_gets_its_trigger_and_its_window(tmp_path: Path) -> None:
    """One that fails early: the smoke data ends long before this window."""
    create(tmp_path, "weekly", cron="0 0 3 * * 1", lag="1d", directory=str(tmp_path))
    with running(tmp_path, FixedClock(START + timedelta(days=2)), real=True) as scheduler:
        store = ScheduleStore(tmp_path)
        until(lambda: is_idle(scheduler) and bool(store.firings("weekly").all()), scheduler, within_s=300)
    (firing,) = store.firings("weekly").all()
    assert (firing.status, firing.outcome, firing.exit_code, firing.attempts) == ("ended", "failed", 1, 1)
    assert "ingest stopped: the data window holds" in firing.error
    folder = tmp_path / "runs" / firing.run
    assert json.loads((folder / "trigger.json").read_text()) == {
        "schedule": "weekly",
        "scheduled_at": "2026-10-12T03:00:00+00:00",
        "window_start": "2026-09-11T03:00:00+00:00",
        "window_end": "2026-10-11T03:00:00+00:00",
        "kind": "catch-up",
    }
    recipe = json.loads((folder / "recipe.json").read_text())["ingest"]
    assert (recipe["window_start"], recipe["window_end"]) == ("2026-09-11T03:00:00+00:00", "2026-10-11T03:00:00+00:00")


def test_a_verdict_that_was_not_recorded_counts_and_nothing_runs_again(tmp_path: Path) -> None:
    create(tmp_path, "s")
    instant, run = datetime(2026, 10, 11, 3, tzinfo=UTC), "20261011-030000-smoke"
    firings = ScheduleStore(tmp_path).firings("s")
    firings.create(
        Firing("s", instant.isoformat(), None, instant.isoformat(), "scheduled", 1, "", status="running", run=run)
    )
    (tmp_path / "runs" / run).mkdir(parents=True)
    (tmp_path / "runs" / run / "summary.json").write_text('{"outcome": "refused", "reasons": ["latency"]}')
    with running(tmp_path, FixedClock(instant), real=True) as scheduler:
        until(lambda: is_idle(scheduler), scheduler)
    (firing,) = firings.all()
    assert (firing.status, firing.outcome, firing.exit_code, firing.error) == ("ended", "refused", 3, "latency")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [run]


@pytest.mark.integration
def test_the_command_runs_alone_and_ends_when_asked(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as output:
        process = subprocess.Popen([RANKLINE, "scheduler", "-w", tmp_path], stdout=output, stderr=output)
    try:
        until(lambda: "running in" in (tmp_path / "log").read_text())
        assert f"process {process.pid} on" in refused("scheduler", "-w", tmp_path, code=2)
        process.terminate()
        assert process.wait(60) == 130
    finally:
        process.kill()
    assert "Traceback" not in (tmp_path / "log").read_text()
