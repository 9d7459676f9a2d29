"""The scheduler and needs: each fires once and says why; cool-down, budget and wrong clocks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.schedules.daemon import Scheduler
from pipelines.schedules.firing import Firing
from pipelines.schedules.store import ScheduleStore
from pipelines.schedules.triggers.held import read_held
from pipelines.schedules.triggers.needs import CheckCommand
from pipelines.schedules.triggers.observation import Check, Observation, read_check, write_check
from pipelines.schedules.triggers.requests import Request, leave_request
from rankline.io.files import write_json
from tests.pipelines.schedules.fast_scheduler import command
from tests.pipelines.schedules.test_daemon import FixedClock, until

NOW = datetime(2026, 10, 10, 10, 30, tzinfo=UTC)
NAME = "fresh"


def no_check(workspace: Path, name: str, now: datetime) -> list[str]:
    """A check that observes nothing."""
    return [sys.executable, "-S", "-c", ""]


@contextmanager
def running(workspace: Path, clock: FixedClock, *, check: CheckCommand = no_check) -> Iterator[Scheduler]:
    lines: list[str] = []
    scheduler = Scheduler(workspace, clock=clock, command=command, check_command=check, say=lines.append)
    scheduler.lines = lines  # type: ignore[attr-defined]
    with scheduler.running():
        yield scheduler


def create(workspace: Path, *when: str, **settings: Any) -> None:
    values = {"name": NAME, "recipe": "smoke", "when": when or ("code",)} | settings
    ScheduleStore(workspace).create(values, now=NOW - timedelta(days=30))


def folder(workspace: Path) -> Path:
    return workspace / "schedules" / NAME / "need"


def observed(workspace: Path, at: datetime, *, fires: bool = True, why: str = "export: code changed") -> None:
    """A check as the process of a check writes it."""
    observation = Observation(trigger="code", observed="1 step changed", fires=fires, why=why)
    revision = ScheduleStore(workspace).get(NAME).revision
    write_check(folder(workspace), Check(at=at.isoformat(), revision=revision, observations=(observation,)))


def step(scheduler: Scheduler, clock: FixedClock, at: datetime) -> list[Firing]:
    """Check at a time, let the scheduler do its rounds, and return all firings once their runs have ended."""
    clock.at = at
    observed(scheduler.workspace, at)
    scheduler.tick()
    until(lambda: not scheduler._workers, scheduler)
    return firings(scheduler.workspace)


def firings(workspace: Path) -> list[Firing]:
    return ScheduleStore(workspace).firings(NAME).all()


def test_a_firing_says_why_and_the_same_check_fires_once(tmp_path: Path) -> None:
    create(tmp_path)
    clock = FixedClock(NOW)
    with running(tmp_path, clock) as scheduler:
        (firing,) = step(scheduler, clock, NOW)
        scheduler.tick()
    assert (firing.kind, firing.outcome, firing.scheduled_at) == ("need", "promoted", NOW.isoformat())
    assert firing.why == firing.trigger["why"] == "code: export: code changed"
    with running(tmp_path, clock) as scheduler:  # another scheduler reads the same check
        clock.at += timedelta(days=2)
        observed(tmp_path, clock.at, fires=False)
        scheduler.tick()
    assert firings(tmp_path) == [firing]


def test_no_two_fire_within_the_cool_down_and_what_was_held_back_is_recorded(tmp_path: Path) -> None:
    create(tmp_path, cooldown="6h", budget={"runs": 100})
    clock = FixedClock(NOW)
    with running(tmp_path, clock) as scheduler:
        for hour in range(13):
            step(scheduler, clock, NOW + timedelta(hours=hour))
    assert [each.instant.hour for each in firings(tmp_path)] == [10, 16, 22]
    held = read_held(folder(tmp_path))
    assert [(each.count, each.triggers) for each in held] == [(5, ("code",)), (5, ("code",))]
    assert held[0].why == "cool-down until 2026-10-10 16:30:00 UTC (6h after the last firing by need)"


@pytest.mark.parametrize(
    ("budget", "used"),
    [({"runs": 2}, "2 of 2 runs"), ({"runs": 9, "core_hours": 1.0}, "1 of 1 core hours"),
     ({"runs": 9, "cost": 0.25}, "0.25 of 0.25 cost")],
)  # fmt: skip
def test_a_budget_holds_for_24_hours(tmp_path: Path, budget: dict[str, Any], used: str) -> None:
    create(tmp_path, cooldown="1h", budget=budget)
    clock, runs = FixedClock(NOW), 0
    with running(tmp_path, clock) as scheduler:
        for hour in range(1, 26):
            step(scheduler, clock, NOW + timedelta(hours=hour))
            for firing in firings(tmp_path)[runs:]:  # a run of half an hour of one core
                run = f"{firing.instant:%Y%m%d-%H%M%S}-smoke"
                summary = {"run": run, "outcome": "refused", "steps": [{"core_s": 1800.0}], "cost": 0.125}
                write_json(tmp_path / "runs" / run / "summary.json", summary)
                ScheduleStore(tmp_path).firings(NAME).write(firing.replace(run=run))
            runs = len(firings(tmp_path))
    assert [(each.instant - NOW) // timedelta(hours=1) for each in firings(tmp_path)] == [1, 2, 25]
    assert [each.why for each in read_held(folder(tmp_path))] == [f"budget of 24 hours: {used} by need"]


def test_a_run_under_way_holds_back_another(tmp_path: Path) -> None:
    create(tmp_path, cron="0 0 3 * * *")
    store = ScheduleStore(tmp_path)
    store.firings(NAME).create(store.get(NAME).firing(NOW - timedelta(hours=1), "backfill", now=NOW))
    clock = FixedClock(NOW)
    with running(tmp_path, clock) as scheduler:
        observed(tmp_path, NOW)
        scheduler.tick()
    assert "is under way" in read_held(folder(tmp_path))[0].why
    assert [each.kind for each in firings(tmp_path) if each.kind == "need"] == []


def test_a_firing_of_a_clock_that_was_ahead_holds_nothing_back(tmp_path: Path) -> None:
    create(tmp_path, cooldown="1d")
    clock = FixedClock(NOW + timedelta(days=3650))
    with running(tmp_path, clock) as scheduler:
        step(scheduler, clock, clock.at)
        step(scheduler, clock, NOW)
    assert [each.instant for each in firings(tmp_path)] == [NOW, NOW + timedelta(days=3650)]


def test_a_paused_schedule_starts_nothing(tmp_path: Path) -> None:
    create(tmp_path, paused=True)
    clock = FixedClock(NOW)
    with running(tmp_path, clock) as scheduler:
        step(scheduler, clock, NOW)
    assert firings(tmp_path) == []


def test_a_check_is_a_process_and_one_that_fails_is_reported_once(tmp_path: Path) -> None:
    create(tmp_path, check_every="1h")
    starts: list[datetime] = []

    def failing(workspace: Path, name: str, now: datetime) -> list[str]:
        starts.append(now)
        return [sys.executable, "-S", "-c", "import sys; sys.exit('there is no recipe')"]

    clock = FixedClock(NOW)
    with running(tmp_path, clock, check=failing) as scheduler:
        for hour in (0, 1):
            clock.at = NOW + timedelta(hours=hour)
            scheduler.tick()
            until(lambda: not len(scheduler._needs), scheduler)
            scheduler.tick()  # not before the next hour
        lines = scheduler.lines  # type: ignore[attr-defined]
    assert starts == [NOW, NOW + timedelta(hours=1)]
    assert [line for line in lines if "cannot be checked" in line] == [
        f"{NAME}: cannot be checked: check: there is no recipe"
    ]
    check = read_check(folder(tmp_path))
    assert check is not None
    assert [(each.problem, each.fires) for each in check.observations] == [(True, False)]


def test_a_request_fires_at_once_and_waits_for_the_cool_down(tmp_path: Path) -> None:
    create(tmp_path, "webhook:DEPLOY_KEY", cooldown="1h")
    clock = FixedClock(NOW)

    def request(message: str, at: datetime, trigger: str = "webhook:DEPLOY_KEY") -> bool:
        return leave_request(
            folder(tmp_path), message, Request(at=at.isoformat(), trigger=trigger, why=f"new {message}")
        )

    with running(tmp_path, clock) as scheduler:
        observed(tmp_path, NOW, fires=False)
        assert request("prices", NOW)
        assert request("unknown", NOW, trigger="webhook:REMOVED")
        scheduler.tick()
        until(lambda: not scheduler._workers, scheduler)
        assert not request("prices", NOW), "a recording starts nothing"
        for minute in range(1, 62):
            clock.at = NOW + timedelta(minutes=minute)
            if minute in (1, 2):
                assert request(f"stock {minute}", clock.at)
            scheduler.tick()
        until(lambda: not scheduler._workers, scheduler)
    first, second = firings(tmp_path)
    assert (first.instant, first.why) == (NOW, "webhook:DEPLOY_KEY: new prices")
    assert second.instant == NOW + timedelta(hours=1)
    assert second.why == "webhook:DEPLOY_KEY: new stock 1, and 1 more requests"
    assert [(each.need, each.count) for each in read_held(folder(tmp_path))] == [
        ("webhook:DEPLOY_KEY: new stock 1", 2)
    ]  # the second one came while the first one waited
