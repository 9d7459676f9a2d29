"""The embedded scheduler, as processes that are killed and started again."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipelines.schedules import webhook, worker
from pipelines.schedules.daemon import Scheduler
from pipelines.schedules.firings import TIMESTAMP_FORMAT, Firing, Firings
from pipelines.schedules.store import LocalSchedules, due
from rankline.errors import UsageError
from tests.cli.command import RANKLINE, refused
from tests.pipelines.schedules.fast_scheduler import FastClock, command

HOUSE = Path(__file__).resolve().parents[3]
KILLS = 6
START = datetime(2026, 10, 10, 10, 30, tzinfo=UTC)  # the month holds the end of summer time in Europe


def noted(workspace: Path, name: str, word: str) -> Counter[str]:
    path = workspace / f"{name}.{word}"
    return Counter(path.read_text().split() if path.is_file() else ())


@contextmanager
def scheduler(workspace: Path, clock: FastClock) -> Iterator[subprocess.Popen[bytes]]:
    """A scheduler as a process; whatever happens, none is left behind."""
    argv = [sys.executable, "-m", "tests.pipelines.schedules.fast_scheduler", str(workspace), str(clock)]
    with (workspace / "scheduler.log").open("ab") as output:
        process = subprocess.Popen(argv, cwd=HOUSE, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def log(workspace: Path) -> str:
    path = workspace / "scheduler.log"
    return path.read_text() if path.is_file() else ""


def create(workspace: Path, name: str, now: datetime = START, **knobs: Any) -> None:
    values = {"name": name, "recipe": "smoke", "cron": "0 0 3 * * *", "window": "30d"} | knobs
    LocalSchedules(workspace).create(values, now=now)


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
        with scheduler(tmp_path, clock) as process:
            if not left:
                process.wait(deadline - time.monotonic())
                assert process.returncode == 0, log(tmp_path)[-3000:]
                break
            if chance.random() < 0.8:  # most while it works, some while it comes up
                while "at work" not in log(tmp_path)[before:] and process.poll() is None:
                    assert time.monotonic() < deadline, log(tmp_path)[-3000:]
                    time.sleep(0.02)
            time.sleep(chance.uniform(0, 1.5))
            kills += process.poll() is None
    assert kills >= KILLS / 2
    store = LocalSchedules(tmp_path)
    for name in ("daily", "twice", "often"):
        ended = noted(tmp_path, name, "ended")
        firings = store.firings(name)
        assert set(ended.values()) == {1}, (seed, name, ended.most_common(3))
        assert {firing.status for firing in firings.all()} == {"ended"}
        assert noted(tmp_path, name, "begun").keys() == ended.keys()
        asked = {
            each.scheduled_at.strftime(TIMESTAMP_FORMAT) for each in due(store.history(name), after=START, until=end)
        }
        done = set(ended)
        if name != "often":
            assert done == asked, (seed, name)
            continue
        passed = _passed_over(firings, asked)
        assert not done & passed
        assert done | passed == asked, (seed, name)
        assert passed, "nothing was coalesced"
    assert len(noted(tmp_path, "daily", "ended")) in (30, 31)


def _passed_over(firings: Firings, asked: set[str]) -> set[str]:
    stamps = set()
    for each in firings.handled()["skipped"]:
        first, last = (datetime.fromisoformat(each[edge]).strftime(TIMESTAMP_FORMAT) for edge in ("first", "last"))
        inside = {stamp for stamp in asked if first <= stamp <= last}
        # what lies between two that were passed over may have been claimed before
        stamps |= {stamp for stamp in inside if firings.read(_moment(stamp)) is None}
    return stamps


def _moment(stamp: str) -> datetime:
    return datetime.strptime(stamp, TIMESTAMP_FORMAT).replace(tzinfo=UTC)


# -- one scheduler in this process, whose clock stands where it is put --------------------------------------------


class Standing:
    """A clock that somebody else moves; APScheduler's own wake-ups never come."""

    def __init__(self, at: datetime = START) -> None:
        self.at = at

    def __reduce__(self) -> tuple[Any, ...]:
        return Standing, (self.at,)

    def now(self) -> datetime:
        return self.at

    def real(self, moment: datetime) -> datetime:
        return datetime(2999, 1, 1, tzinfo=UTC)


@contextmanager
def at_work(workspace: Path, clock: Standing, *, real: bool = False, max_runs: int = 2) -> Iterator[Scheduler]:
    """A scheduler of tiny runs, or of real ones."""
    one = Scheduler(
        workspace,
        max_runs=max_runs,
        clock=clock,
        command=worker.worker_command if real else command,
        poll_s=0.05,
        say=lambda line: None,
    )
    with one.running():
        yield one


def until(condition: Callable[[], bool], *, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def test_a_second_scheduler_in_a_workspace_is_refused(tmp_path: Path) -> None:
    with (
        at_work(tmp_path, Standing()),
        pytest.raises(UsageError, match="another scheduler is at work") as told,
        at_work(tmp_path, Standing()),
    ):
        pass
    assert f"process {os.getpid()} on" in str(told.value)
    with at_work(tmp_path, Standing()):
        pass  # the first one ended


def test_a_scheduler_that_is_ended_ends_its_runs_and_the_next_goes_on_with_them(tmp_path: Path) -> None:
    create(tmp_path, "sleeps")
    firings, moment = LocalSchedules(tmp_path).firings("sleeps"), datetime(2026, 10, 11, 3, tzinfo=UTC)
    clock = Standing(moment)
    with at_work(tmp_path, clock) as one:
        one.check("sleeps")
        until(lambda: bool(noted(tmp_path, "sleeps", "begun")))
        assert firings.is_running(moment)
        # an update while it runs changes nothing of it
        LocalSchedules(tmp_path).update("sleeps", {"window": "7d", "max_runs": 3}, now=moment + timedelta(hours=1))
        clock.at = moment + timedelta(hours=2)
        one.check("sleeps")
        assert firings.is_running(moment)
        assert len(firings.all()) == 1
    assert not firings.is_running(moment)
    assert [(firing.status, firing.attempts, firing.revision) for firing in firings.all()] == [("running", 1, 1)]
    with at_work(tmp_path, clock):
        until(lambda: noted(tmp_path, "sleeps", "begun").total() == 2)
        assert firings.is_running(moment)
    assert [(firing.kind, firing.window_start) for firing in firings.all()] == [
        ("scheduled", "2026-09-11T03:00:00+00:00")
    ]


def test_no_more_runs_are_under_way_than_allowed(tmp_path: Path) -> None:
    for name in ("a-sleeps", "b-sleeps", "c-sleeps"):
        create(tmp_path, name, catch_up="all", max_runs=2)
    with at_work(tmp_path, Standing(START + timedelta(days=4)), max_runs=3) as one:
        until(lambda: len(one._active_runs) == 3)
        for name in ("a-sleeps", "b-sleeps", "c-sleeps"):
            one.check(name)
        assert sorted(name for name, _ in one._active_runs) == ["a-sleeps", "a-sleeps", "b-sleeps"]
        assert len(LocalSchedules(tmp_path).firings("a-sleeps").all()) == 2, "what waits is not claimed yet"


def test_a_paused_schedule_begins_nothing_and_does_not_make_up_for_it(tmp_path: Path) -> None:
    create(tmp_path, "s", catch_up="all")
    store, clock = LocalSchedules(tmp_path), Standing(START + timedelta(days=3))
    store.update("s", {"paused": True}, now=START + timedelta(hours=1))
    with at_work(tmp_path, clock) as one:
        one.check("s")
        assert one.idle
        assert store.firings("s").all() == []
        store.update("s", {"paused": False}, now=clock.at)
        clock.at += timedelta(days=1)
        until(lambda: noted(tmp_path, "s", "ended").total() == 1)
    assert [firing.instant.day for firing in store.firings("s").all()] == [14]


def test_a_run_that_dies_again_and_again_is_given_up(tmp_path: Path) -> None:
    create(tmp_path, "dies")
    with at_work(tmp_path, Standing(START + timedelta(days=1))) as one:
        until(lambda: one.idle and noted(tmp_path, "dies", "begun").total() == 3)
    (firing,) = LocalSchedules(tmp_path).firings("dies").all()
    assert (firing.outcome, firing.deaths, firing.attempts, firing.kind) == ("failed", 2, 3, "catch-up")
    assert "without a verdict 3 times; its last words: I was here" in firing.error


def test_a_schedule_that_cannot_be_read_stops_no_other(tmp_path: Path) -> None:
    create(tmp_path, "a")
    create(tmp_path, "b")
    (tmp_path / "schedules/a/revisions/0001.json").write_text("{")
    with at_work(tmp_path, Standing(START + timedelta(days=1))):
        until(lambda: noted(tmp_path, "b", "ended").total() == 1)


def test_a_folder_that_is_gone_is_a_failure_and_is_told(tmp_path: Path) -> None:
    create(tmp_path, "s", directory=str(tmp_path / "gone"))
    with at_work(tmp_path, Standing(START + timedelta(days=1))) as one:
        until(lambda: one.idle and bool(LocalSchedules(tmp_path).firings("s").all()))
    (firing,) = LocalSchedules(tmp_path).firings("s").all()
    assert (firing.outcome, "cannot be started" in firing.error) == ("failed", True)


def test_a_damaged_store_is_put_aside(tmp_path: Path) -> None:
    create(tmp_path, "s")
    (tmp_path / "schedules/scheduler.db").write_bytes(b"no database" * 1000)
    with at_work(tmp_path, Standing(START + timedelta(days=1))):
        until(lambda: noted(tmp_path, "s", "ended").total() == 1)
    assert (tmp_path / "schedules/scheduler.db.damaged").is_file()


def test_apscheduler_keeps_when_to_look_next(tmp_path: Path) -> None:
    create(tmp_path, "s")
    with at_work(tmp_path, Standing()) as one:
        assert one._job_scheduler.get_job("s").next_run_time.year == 2999
        LocalSchedules(tmp_path).update("s", {"paused": True}, now=START)
        until(lambda: one._job_scheduler.get_job("s") is None)


# -- webhooks ----------------------------------------------------------------------------------------------------


@contextmanager
def listener(answers: list[int]) -> Iterator[tuple[str, list[tuple[dict[str, str], dict[str, Any]]]]]:
    """A server that answers with these codes, the last one for ever, and keeps what it is told."""
    heard: list[tuple[dict[str, str], dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            code = answers[min(len(heard), len(answers) - 1)]
            heard.append((dict(self.headers), body))
            self.send_response(code)
            if code == 302:
                self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/told", heard
    finally:
        server.shutdown()
        server.server_close()


def test_a_webhook_hears_of_a_failed_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_HEADERS", '{"Authorization": "Bearer s3cret"}')
    monkeypatch.setattr(webhook, "FIRST_PAUSE_S", 0.01)
    with listener([503, 200]) as (url, heard):
        create(tmp_path, "fails", webhook=url, webhook_headers="HOOK_HEADERS")
        create(tmp_path, "good", webhook=url, webhook_headers="HOOK_HEADERS")
        clock = Standing(START + timedelta(days=1))
        with at_work(tmp_path, clock) as one:
            until(lambda: one.idle and noted(tmp_path, "good", "ended").total() == 1 and len(heard) == 2)
        create(tmp_path, "late-fails")
        with at_work(tmp_path, clock) as one:  # nothing is told twice
            until(lambda: one.idle and noted(tmp_path, "late-fails", "ended").total() == 1)
        # who asks to be told is not told of what was before
        LocalSchedules(tmp_path).update("late-fails", {"webhook": url}, now=clock.at)
        with at_work(tmp_path, clock) as one:
            until(lambda: one.idle)
    (first, said), (again, _) = heard
    assert first["Authorization"] == again["Authorization"] == "Bearer s3cret"
    assert first["Idempotency-Key"] == again["Idempotency-Key"]
    assert (said["schedule"], said["outcome"], said["exit_code"]) == ("fails", "failed", 1)
    assert said["scheduled_at"] == said["window_end"] == "2026-10-11T03:00:00+00:00"
    assert "the loss is no number" in said["error"]
    assert [firing.notified for firing in LocalSchedules(tmp_path).firings("fails").all()] == ["delivered"]
    assert b"s3cret" not in b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    ("answers", "tries", "told"),
    [
        ([500], 5, "it answered 500"),
        ([404], 1, "it answered 404"),
        ([302], 1, "it answered 302"),
        ([429, 503, 200], 3, "delivered"),
    ],
)
def test_a_webhook_is_tried_again_where_that_may_help(answers: list[int], tries: int, told: str) -> None:
    pauses: list[float] = []
    with listener(answers) as (url, heard):
        assert told in webhook.deliver(url, {"a": 1}, key="k", wait=pauses.append)
    assert len(heard) == tries
    assert pauses == [1.0, 2.0, 4.0, 8.0][: tries - 1]


def test_a_webhook_without_its_secret_or_without_a_server_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "refused" in webhook.deliver("http://127.0.0.1:9/", {}, key="k", wait=lambda s: None).lower()
    assert "holds no headers" in webhook.deliver("http://127.0.0.1:9/", {}, key="k", variable="NOT_SET")
    monkeypatch.setenv("HOOK_HEADERS", "Bearer s3cret")
    told = webhook.deliver("http://127.0.0.1:9/", {}, key="k", variable="HOOK_HEADERS")
    assert "s3cret" not in told
    assert "something else" in told


# -- a real run ----------------------------------------------------------------------------------------------------


def test_a_real_run_is_told_its_trigger_and_its_window(tmp_path: Path) -> None:
    """One that fails early: the smoke data ends long before this window."""
    create(tmp_path, "weekly", cron="0 0 3 * * 1", lag="1d", directory=str(tmp_path))
    with at_work(tmp_path, Standing(START + timedelta(days=2)), real=True) as one:
        store = LocalSchedules(tmp_path)
        until(lambda: one.idle and bool(store.firings("weekly").all()), within_s=300)
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


def test_a_verdict_that_nobody_noted_down_is_taken_and_nothing_runs_again(tmp_path: Path) -> None:
    create(tmp_path, "s")
    moment, run = datetime(2026, 10, 11, 3, tzinfo=UTC), "20261011-030000-smoke"
    firings = LocalSchedules(tmp_path).firings("s")
    firings.create(
        Firing("s", moment.isoformat(), None, moment.isoformat(), "scheduled", 1, "", status="running", run=run)
    )
    (tmp_path / "runs" / run).mkdir(parents=True)
    (tmp_path / "runs" / run / "summary.json").write_text('{"outcome": "refused", "reasons": ["latency"]}')
    with at_work(tmp_path, Standing(moment), real=True) as one:
        until(lambda: one.idle)
    (firing,) = firings.all()
    assert (firing.status, firing.outcome, firing.exit_code, firing.error) == ("ended", "refused", 3, "latency")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [run]


def test_the_command_works_alone_and_ends_when_asked(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as output:
        process = subprocess.Popen([RANKLINE, "scheduler", "-w", tmp_path], stdout=output, stderr=output)
    try:
        until(lambda: "at work" in (tmp_path / "log").read_text())
        assert f"process {process.pid} on" in refused("scheduler", "-w", tmp_path, code=2)
        process.terminate()
        assert process.wait(60) == 130
    finally:
        process.kill()
    assert "Traceback" not in (tmp_path / "log").read_text()
