"""Cron expressions: read, refused, and held against another library; daylight saving."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from pipelines.schedules.cron import parse, shortest_gap_s
from rankline.errors import UsageError
from rankline.schedules.fire_times import Cron, wall_to_utc


def fires(text: str, zone: str, after: str, count: int) -> list[str]:
    """The next fire times as the zone's clocks show them, with the offset."""
    cron, _ = parse(text, zone)
    begin = datetime.fromisoformat(after).replace(tzinfo=ZoneInfo(zone))
    fire_times = itertools.islice(cron.after(begin), count)
    return [each.astimezone(ZoneInfo(zone)).strftime("%d %H:%M:%S%z") for each in fire_times]


def test_six_fields_are_kept_and_five_get_their_second() -> None:
    assert parse("0 30 3 * * MON-FRI") == (Cron("0 30 3 * * MON-FRI", "UTC"), [])
    cron, (note,) = parse("0 3 * * 1", "Asia/Shanghai")
    assert cron == Cron("0 0 3 * * 1", "Asia/Shanghai")
    assert "second 0, minute 3 of every hour on every day of January" in note
    assert fires("0 3 * * 1", "UTC", "2026-11-22", 2) == ["23 03:00:00+0000", "30 03:00:00+0000"]


def test_five_fields_are_refused_where_six_are_meant() -> None:
    with pytest.raises(UsageError, match="the first one, the second, is missing") as refused:
        parse("0 3 * * 1", seconds_first=True)
    assert "minute 3 of every hour on every day of January" in str(refused.value)
    assert "write '0 0 3 * * 1'" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("0 3 * *", "UTC", "has 4 fields"),
        ("0 0 0 3 * * *", "UTC", "has 7 fields"),
        ("", "UTC", "has 0 fields"),
        ("60 0 3 * * *", "UTC", "the second cannot be 60"),
        ("0 24 * * *", "UTC", "the hour cannot be 24"),
        ("0 3 0 * *", "UTC", "the day of the month cannot be 0"),
        ("0 3 * 13 *", "UTC", "the month cannot be 13"),
        ("0 3 * * 7", "UTC", "Sunday is 0"),
        ("0 3 * * FUN", "UTC", "the day of the week cannot be FUN"),
        ("0 3 L * *", "UTC", "the day of the month cannot be L"),
        ("0 3 * * 1#2", "UTC", "1#2"),
        ("0 5-3 * * *", "UTC", "a range ascends"),
        ("*/0 * * * *", "UTC", "a step is 1 to 59"),
        ("*,5 * * * *", "UTC", "write * alone"),
        ("1,,2 * * * *", "UTC", "nothing between two commas"),
        ("0 3 */2 * 1", "UTC", "disagree"),
        ("0 3 31 2,4 *", "UTC", "never fires"),
        ("0 3 * * *", "Europe/Nowhere", "no time zone"),
        ("0 3 * * *", "+01:00", "no time zone"),
    ],
)
def test_what_is_not_an_expression_is_refused(text: str, zone: str, expected: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(text, zone)
    assert expected in str(refused.value)


def test_a_star_for_the_second_is_pointed_out() -> None:
    assert "sixty times" in parse("* 0 3 * * *")[1][0]


# -- daylight saving: in Berlin 02:00 to 03:00 is missing on 2026-03-29 and there twice on 2026-10-25 ---------


def test_a_time_that_does_not_exist_comes_at_the_first_moment_after_it() -> None:
    assert fires("30 2 * * *", "Europe/Berlin", "2026-03-28", 3) == [
        "28 02:30:00+0100", "29 03:00:00+0200", "30 02:30:00+0200",
    ]  # fmt: skip
    # several of them, and the one that is due then anyhow, are one
    assert fires("0 0,20,40 2,3 * * *", "Europe/Berlin", "2026-03-29", 4) == [
        "29 03:00:00+0200", "29 03:20:00+0200", "29 03:40:00+0200", "30 02:00:00+0200",
    ]  # fmt: skip


def test_a_time_that_is_there_twice_comes_once_the_first_time() -> None:
    assert fires("30 2 * * *", "Europe/Berlin", "2026-10-24", 3) == [
        "24 02:30:00+0200", "25 02:30:00+0200", "26 02:30:00+0100",
    ]  # fmt: skip
    # also where one begins to look between the two
    cron, between = Cron("0 30 2 * * *", "Europe/Berlin"), datetime(2026, 10, 25, 1, 10, tzinfo=UTC)
    assert next(cron.after(between)) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)
    assert fires("15 */2 * * *", "Europe/Berlin", "2026-10-25", 3) == [
        "25 00:15:00+0200", "25 02:15:00+0200", "25 04:15:00+0100",
    ]  # fmt: skip


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-10-26", 24)])
def test_every_hour_is_every_hour_that_passes(day: str, hours: int) -> None:
    begin = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo("Europe/Berlin"))
    end = (begin + timedelta(days=1)).astimezone(UTC)
    cron = Cron("0 0 * * * *", "Europe/Berlin")
    fire_times = list(itertools.takewhile(lambda at: at < end, cron.after(begin - timedelta(seconds=1))))
    assert len(fire_times) == hours
    assert {b - a for a, b in itertools.pairwise(fire_times)} == {timedelta(hours=1)}


@pytest.mark.parametrize(
    ("zone", "wall", "utc"),
    [
        ("Europe/Berlin", "2026-03-29T02:00:00", "2026-03-29T01:00:00"),
        ("Europe/Berlin", "2026-03-29T02:59:59", "2026-03-29T01:00:00"),
        ("Europe/Berlin", "2026-03-29T03:00:00", "2026-03-29T01:00:00"),
        ("Europe/Berlin", "2026-10-25T02:00:00", "2026-10-25T00:00:00"),
        ("America/New_York", "2026-03-08T02:15:00", "2026-03-08T07:00:00"),
        ("Australia/Lord_Howe", "2026-10-04T02:10:00", "2026-10-03T15:30:00"),  # its clocks move by half an hour
        ("Pacific/Apia", "2011-12-30T12:00:00", "2011-12-30T10:00:00"),  # a day that was left out
        ("UTC", "2026-03-29T02:30:00", "2026-03-29T02:30:00"),
    ],
)
def test_the_moment_of_a_wall_clocks_time(zone: str, wall: str, utc: str) -> None:
    assert wall_to_utc(datetime.fromisoformat(wall), ZoneInfo(zone)) == datetime.fromisoformat(utc).replace(tzinfo=UTC)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"])
def test_a_named_time_comes_once_on_every_date_of_years(zone: str) -> None:
    cron, begin = Cron("0 30 2 * * *", zone), datetime(2026, 1, 1, tzinfo=UTC)
    fire_times = list(itertools.islice(cron.after(begin), 3 * 365))
    dates = [at.astimezone(ZoneInfo(zone)).date() for at in fire_times]
    assert dates == [dates[0] + timedelta(days=each) for each in range(len(dates))]
    # from any fire time on, the next one is the same
    assert all(next(cron.after(a)) == b for a, b in itertools.pairwise(fire_times))


# -- another library -----------------------------------------------------------------------------------------


def _any_field(chance: random.Random, low: int, high: int) -> str:
    a, b = sorted(chance.sample(range(low, high + 1), 2))  # that library takes 6-6 for the whole week
    step = chance.randint(1, max((high - low) // 2, 1))
    return chance.choice(["*", "*", "*", f"*/{step}", str(a), f"{a}-{b}", f"{a},{b}", f"{a}-{b}/{step}", f"{a}/{step}"])


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_random_expressions_fire_when_another_library_says(count: int) -> None:
    from croniter import croniter

    chance, compared = random.Random(count), 0
    while compared < count:
        fields = [_any_field(chance, *ends) for ends in ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))]
        try:
            cron, _ = parse(" ".join(fields))
        except UsageError:
            continue  # one of the two that crons disagree on, or a day that never comes
        # that library has the second last, and reads a number with a step as this one does from version to version
        second, minute, hour, day, month, weekday = (
            field.replace("/", f"-{high}/") if field[0] != "*" and "-" not in field else field
            for field, high in zip(cron.text.split(), (59, 59, 23, 31, 12, 6))
        )
        begin = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=chance.randrange(4 * 365 * 86400))
        theirs = croniter(f"{minute} {hour} {day} {month} {weekday} {second}", begin)
        ours = list(itertools.islice(cron.after(begin), 2))
        assert ours == [theirs.get_next(datetime) for _ in ours], cron.text
        compared += 1


def _by_the_minute(cron: Cron, begin: datetime, end: datetime) -> list[datetime]:
    """When it fires, by trying every minute and every wall time; slow and simple."""
    zone = ZoneInfo(cron.zone)
    second, *fields = cron.text.split()
    sets = []
    for field, (low, high) in zip(fields, ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))):
        values: set[int] = set()
        for part in field.split(","):
            span, _, step = part.partition("/")
            first, _, last = span.partition("-")
            a, b = (low, high) if span == "*" else (int(first), int(last) if last else high if step else int(first))
            values |= set(range(a, b + 1, int(step or 1)))
        sets.append(values)

    def fits(wall: datetime) -> bool:
        day, weekday = wall.day in sets[2], wall.isoweekday() % 7 in sets[4]
        named = fields[2][0] != "*" and fields[4][0] != "*"
        either = (day or weekday) if named else (day and weekday)
        return wall.minute in sets[0] and wall.hour in sets[1] and wall.month in sets[3] and either

    minutes = [
        begin + timedelta(minutes=each, seconds=int(second)) for each in range(int((end - begin).total_seconds() // 60))
    ]
    shown = [minute.astimezone(zone).replace(tzinfo=None) for minute in minutes]
    if fields[1] == "*":
        return [minute for minute, wall in zip(minutes, shown) if fits(wall)]
    first_time = {wall: minute for minute, wall in zip(reversed(minutes), reversed(shown))}
    fire_times = set()
    wall, latest = shown[0], None
    for at, minute in zip(shown, minutes):
        while wall < at:  # skipped: the first instant after the jump
            if fits(wall) and wall not in first_time:
                fire_times.add(minute.replace(second=0))
            wall += timedelta(minutes=1)
        if latest is None or at > latest:
            latest = at
            wall = max(wall, at)
            if fits(at):
                fire_times.add(first_time[at])
    return sorted(fire_times)


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("Europe/Berlin", "2026-03-28"), ("Europe/Berlin", "2026-10-24"), ("America/New_York", "2026-03-07"),
        ("America/New_York", "2026-10-31"), ("Australia/Lord_Howe", "2026-10-03"),
        ("Australia/Lord_Howe", "2026-04-04"), ("Africa/Casablanca", "2026-02-14"), ("UTC", "2026-03-28"),
    ],
)  # fmt: skip
def test_random_expressions_fire_when_every_minute_says_where_the_clocks_change(zone: str, day: str) -> None:
    chance = random.Random(f"{zone}{day}")
    begin = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    end = begin + timedelta(days=3)
    compared = fired = 0
    while compared < 25:
        fields = [_any_field(chance, *ends) for ends in ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))]
        fields[2:4] = chance.choice([["*", "*"], fields[2:4]])  # most dates would not be among these
        try:
            cron, _ = parse(" ".join([str(chance.randrange(60)), *fields]), zone)
        except UsageError:
            continue
        ours = list(itertools.takewhile(lambda at: at < end, cron.after(begin - timedelta(seconds=1))))
        assert ours == _by_the_minute(cron, begin, end), cron.text
        compared, fired = compared + 1, fired + len(ours)
    assert fired > 100


def test_the_shortest_gap() -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    assert shortest_gap_s(Cron("0 0 3,4 * * *", "UTC"), begin) == 3600
    assert shortest_gap_s(Cron("0 0 3 1 1 *", "UTC"), begin) > 300 * 86400
