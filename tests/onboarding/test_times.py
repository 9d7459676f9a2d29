"""Times of events: every spelling is read, an outlier is one rejected row, and none is left out in silence."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.onboarding.proposals import csv, log, proposed, tried

START = datetime(2023, 3, 28, 10, 0, tzinfo=UTC)
START_S = int(START.timestamp())
MONTHS_DE = ("Januar", "Februar", "März", "April")


def hour(n: int) -> datetime:
    return START + timedelta(hours=n)


def written(pattern: str) -> Callable[[int], str]:
    return lambda n: hour(n).strftime(pattern)


@pytest.mark.parametrize(
    ("outlier", "unit", "factor"),
    [(0, "s", 1), (99_999_999_999, "s", 1), (-1, "ms", 1000), ("NULL", "s", 1), ("NaN", "ms", 1000), ("-", "s", 1)],
)
def test_an_outlier_is_one_rejected_row(tmp_path: Path, outlier: object, unit: str, factor: int) -> None:
    text = log(60, timestamp=lambda n: outlier if n == 7 else (START_S + n) * factor)
    result = tried(tmp_path, {"events.csv": text})
    assert (result.settings["timestamp"], result.proposal.time_unit) == ("timestamp", unit)
    assert sum(result.rejected.values()) == 1
    assert result.result.event_time_span[0] == START.isoformat()


SPELLINGS: dict[str, tuple[Callable[[int], object], str]] = {
    ".NET JSON": (lambda n: f"/Date({(START_S + 3600 * n) * 1000}+0200)/", "ms"),
    "ISODate": (lambda n: f"ISODate('{hour(n).isoformat()}')", "iso"),
    "pandas": (lambda n: f"Timestamp('{hour(n):%Y-%m-%d %H:%M:%S}')", "iso"),
    "a.m.": (lambda n: f"{hour(n):%d.%m.%Y %I:%M:%S} {'ap'[hour(n).hour // 12]}.m.", "%d.%m.%Y %I:%M:%S %p"),
    "German": (lambda n: f"{hour(n).day}. {MONTHS_DE[hour(n).month - 1]} {hour(n):%Y %H:%M}", "%d. %b %Y %H:%M"),
    "French": (lambda n: f"{hour(n).day} {'mars' if n < 86 else 'avr.'} {hour(n):%Y %H:%M}", "%d %b %Y %H:%M"),
    "RFC 850": (lambda n: f'"{hour(n):%A, %d-%b-%y %H:%M:%S} GMT"', "%d-%b-%y %H:%M:%S %Z"),
    "JavaScript": (
        lambda n: f"{hour(n + 2):%a %b %d %Y %H:%M:%S} GMT+0200 (CEST)", "%b %d %Y %H:%M:%S %z",
    ),
    "Japanese": (written("%Y年%m月%d日 %H時%M分"), "%Y年%m月%d日 %H時%M分"),
    "sheets": (lambda n: 45013 + (10 + n) / 24, "excel"),
    "ticks": (lambda n: 621_355_968_000_000_000 + (START_S + 3600 * n) * 10**7, "ticks"),
    "file times": (lambda n: 116_444_736_000_000_000 + (START_S + 3600 * n) * 10**7, "filetime"),
    "epoch and ISO": (lambda n: hour(n).isoformat() if n % 3 else START_S + 3600 * n, "mixed"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_spelling_is_recognized_and_read(tmp_path: Path, name: str) -> None:
    cell, unit = SPELLINGS[name]
    result = tried(tmp_path, {"events.csv": log(timestamp=cell)})
    assert (result.proposal.time_unit, result.rejected) == (unit, {})
    first, last = (datetime.fromisoformat(each) for each in result.result.event_time_span)
    assert abs(first - START) < timedelta(seconds=1)
    assert abs(last - hour(39)) < timedelta(seconds=1)


def test_days_of_iso_weeks(tmp_path: Path) -> None:
    text = log(timestamp=lambda n: (START + timedelta(days=n)).strftime("%G-W%V-%u"))
    assert tried(tmp_path, {"events.csv": text}).result.event_time_span[0] == "2023-03-28T00:00:00+00:00"


def test_numbers_of_a_sheet_need_the_name_of_a_time(tmp_path: Path) -> None:
    text = log(price=lambda n: 45013 + n)
    assert proposed(tmp_path, {"events.csv": text}).stats("events", "price").times == ()


@pytest.mark.parametrize(
    ("date", "clock", "unit"),
    [
        ("%Y-%m-%d", "%H:%M:%S", "iso"),
        ("%d.%m.%Y", "%H:%M", "%d.%m.%Y %H:%M"),
        ("%m/%d/%Y", "%I:%M:%S %p", "%m/%d/%Y %I:%M:%S %p"),
    ],
)
def test_a_date_and_a_time_of_day_are_one_time(tmp_path: Path, date: str, clock: str, unit: str) -> None:
    text = csv(
        user_id=lambda n: f"u{n % 8}", item_id=lambda n: f"i{n % 5}", order_date=written(date), Uhrzeit=written(clock)
    )
    result = tried(tmp_path, {"events.csv": text})
    assert (result.settings["order_date"], result.settings["Uhrzeit"]) == ("timestamp", "time_of_day")
    assert (result.proposal.time_unit, result.rejected) == (unit, {})
    assert result.result.event_time_span == (START.isoformat(), hour(39).isoformat())


@pytest.mark.parametrize("cell", [lambda n: f"half past {n}", lambda n: n, lambda n: f"week {n} of the year"])
def test_a_time_that_nobody_reads_is_asked_about(tmp_path: Path, cell: Callable[[int], object]) -> None:
    files: dict[str, str | bytes] = {"events.csv": log(timestamp=cell)}
    flags = [gap.flag for gap in proposed(tmp_path, files).gaps if gap.flag]
    assert flags == ["--column timestamp=timestamp --column timestamp_unit=…"]
    without = proposed(tmp_path, files, overrides={"timestamp": ""})
    assert not [gap.flag for gap in without.gaps if gap.flag]
