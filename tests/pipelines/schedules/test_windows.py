"""Data windows and hourly fire times over every change of clocks: in all zones, over ten years."""

from __future__ import annotations

import itertools
import json
import random
import zoneinfo
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from components.ingest.config import IngestConfig
from components.ingest.window import BACKFILL, TRIGGER_FILE, with_scheduled_window
from pipelines.kubeflow.cluster_schedule import recurring_run_spec
from pipelines.schedules.model import Schedule, validate_schedule
from rankline.errors import UsageError

START, END = datetime(2009, 6, 1, tzinfo=UTC), datetime(2019, 6, 1, tzinfo=UTC)
ZONES = sorted(zoneinfo.available_timezones())
# their clocks move by half an hour, by two hours, at midnight, across midnight, for a month, by a whole day, for good
UNUSUAL_ZONES = (
    "Australia/Lord_Howe", "Antarctica/Troll", "Asia/Beirut", "America/Nuuk", "Africa/Casablanca", "Pacific/Apia",
    "Asia/Pyongyang", "America/Caracas", "Europe/Berlin",
)  # fmt: skip
SOME_ZONES = (*UNUSUAL_ZONES, *random.Random(13).sample(ZONES, 3))
some_or_all_zones = pytest.mark.parametrize(
    "zones", [pytest.param(SOME_ZONES, id="some"), pytest.param(ZONES, id="all", marks=pytest.mark.slow)]
)
# the expression without its time of day -> a window of its period
PERIODS = {"* * *": "1d", "* * SUN": "1w", "1 * *": "1mo", "15 */3 *": "3mo"}
LAGS = ("", "1h", "3h", "6h", "90m", "26h", "1d", "1w")


def schedule(cron: str, zone: str, window: str, lag: str = "") -> Schedule:
    return validate_schedule({"name": "s", "recipe": "smoke", "cron": cron, "zone": zone, "window": window, "lag": lag})


def fire_times(one: Schedule, start: datetime = START, end: datetime = END) -> list[datetime]:
    return list(itertools.takewhile(lambda each: each < end, one.rule.after(start)))


def gaps(one: Schedule, start: datetime = START, end: datetime = END) -> list[str]:
    """Where two windows do not meet, and empty windows."""
    windows = [one.window_of(each) for each in fire_times(one, start, end)]
    assert len(windows) > 1
    apart = [f"{a.end} {b.start}" for a, b in itertools.pairwise(windows) if a.end != b.start]
    return apart + [f"empty at {each.end}" for each in windows if each.start is None or each.start >= each.end]


@pytest.mark.integration
@some_or_all_zones
def test_the_windows_of_a_period_meet_over_every_change_of_clocks(zones: tuple[str, ...]) -> None:
    chance = random.Random(len(zones))
    for zone in zones:
        for days, window in PERIODS.items():
            hour = chance.choice((0, 1, 2, 3, chance.randrange(24)))  # clocks change at night
            one = schedule(f"0 {chance.choice((0, 30))} {hour} {days}", zone, window, chance.choice(LAGS))
            assert gaps(one) == [], one


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
@pytest.mark.parametrize("lag", ["0h", "2h", "3h", "6h", "1d"])
def test_no_hour_is_left_out_or_read_twice_when_the_lag_is_in_hours(zone: str, lag: str) -> None:
    for hour, (days, window) in itertools.product((2, 3), PERIODS.items()):
        assert gaps(schedule(f"0 30 {hour} {days}", zone, window, lag), END - timedelta(days=400)) == []


@pytest.mark.integration
@some_or_all_zones
def test_the_windows_of_several_hours_meet_too(zones: tuple[str, ...]) -> None:
    chance = random.Random(len(zones))
    for zone in zones:
        hours = chance.choice((2, 3, 4, 6, 8, 12))
        lag = chance.choice(LAGS)
        one = schedule(f"0 {chance.choice((0, 30))} */{hours} * * *", zone, f"{hours}h", lag)
        # two of them may fire at once where a jump skips the times of both
        assert gaps(one, END - timedelta(days=400)) == [], one
        assert gaps(schedule("0 0 * * * *", zone, "1h", lag), END - timedelta(days=250)) == [], zone


def test_a_window_that_the_clocks_skip_is_as_long_as_it_says() -> None:
    one = schedule("0 0 3 * * *", "Europe/Berlin", "1h")
    jump = datetime(2026, 3, 29, 1, tzinfo=UTC)
    assert one.window_of(jump) == (jump - timedelta(hours=1), jump)


def test_a_window_of_months_ends_in_shorter_months_at_their_last_day() -> None:
    one = schedule("0 0 3 * * *", "UTC", "1mo", "6h")
    assert one.window_of(datetime(2028, 3, 31, 3, tzinfo=UTC)).start == datetime(2028, 2, 28, 21, tzinfo=UTC)
    assert one.window_of(datetime(2028, 1, 5, 3, tzinfo=UTC)).start == datetime(2027, 12, 4, 21, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "window", "lag", "expected"),
    [
        ("0 0 3 31 * *", "1mo", "", "a day from 1 to 28"),
        ("0 0 3 1 * *", "1mo", "1mo", "in days or weeks"),
        ("0 0 3 1 * *", "1300mo", "", "a hundred years"),
        ("0 0 3 1 * *", "0mo", "", "zero length"),
    ],
)
def test_a_window_of_months_that_cannot_be_is_refused(cron: str, window: str, lag: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        schedule(cron, "UTC", window, lag)


@some_or_all_zones
def test_an_hourly_schedule_fires_at_every_hour_that_the_clock_shows(zones: tuple[str, ...]) -> None:
    for name in zones:
        zone = zoneinfo.ZoneInfo(name)
        for text, minute, second in (("0 0 * * * *", 0, 0), ("0 30 0-23 * * *", 30, 0), ("59 59 * * * *", 59, 59)):
            for change in _changes(zone):
                start, end = change - timedelta(hours=3), change + timedelta(hours=3)
                minutes = [start + timedelta(minutes=each, seconds=second) for each in range(360)]
                shown = [each for each in minutes if each > start and each.astimezone(zone).minute == minute]
                assert fire_times(schedule(text, name, "1h"), start, end) == shown, (name, change)


def _changes(zone: zoneinfo.ZoneInfo) -> list[datetime]:
    """The days of ten years on which the zone's clocks change."""
    days = [START + timedelta(days=each) for each in range((END - START).days)]
    offsets = [each.astimezone(zone).utcoffset() for each in days]
    return [
        next(hour for hour in (day + timedelta(hours=each) for each in range(1, 25))
             if hour.astimezone(zone).utcoffset() != before)
        for day, (before, after) in zip(days, itertools.pairwise(offsets)) if before != after
    ]  # fmt: skip


@pytest.mark.parametrize("cron", ["0 30 2 * * *", "0 0 2,3 * * *", "0 15 */6 * * *", "0 0 * * * *", "0 0 0 1 * *"])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "Australia/Lord_Howe", "America/Nuuk"])
def test_a_cluster_gives_a_fire_time_the_same_window(tmp_path: Path, cron: str, zone: str) -> None:
    for window, lag in (("1d", "6h"), ("6h", "1d"), ("1mo", ""), ("", "90m")):
        one = schedule(cron, zone, window, lag)
        argument = recurring_run_spec(one, experiment="", account="").scheduled_window()
        for change in _changes(zoneinfo.ZoneInfo(zone))[:2]:
            for scheduled_at in itertools.islice(one.rule.after(change - timedelta(hours=8)), 8):
                scheduled_times = (BACKFILL + scheduled_at.isoformat(), "")
                with_scheduled_window(IngestConfig(source="/data"), argument, scheduled_times, tmp_path)
                trigger = json.loads((tmp_path / TRIGGER_FILE).read_text())
                start, end = one.window_of(scheduled_at)
                assert trigger["window_start"] == (start and start.isoformat())
                assert trigger["window_end"] == end.isoformat()
