"""Cron expressions of six fields, seconds first: read and checked; when they fire is in rankline/schedules.

A Kubeflow cluster expects six fields. It also accepts five, as second, minute, hour, day and month: there `0 3 * * 1`
fires every hour of January. Here five fields have the usual meaning and are converted to six.
"""

from __future__ import annotations

import datetime
import itertools
import re
import zoneinfo
from functools import cache

from rankline.errors import UsageError
from rankline.schedules.fire_times import Cron

FIELDS = ("second", "minute", "hour", "day of the month", "month", "day of the week")
_BOUNDS = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_NAMES: tuple[tuple[str, ...], ...] = ((), (), (), (), _MONTHS, _DAYS)
_PART = re.compile(r"(?P<low>\*|\?|\w+)(-(?P<high>\w+))?(/(?P<step>\d+))?", re.ASCII)
_FULL_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip


def parse(text: str, zone: str = "UTC", *, seconds_first: bool = False) -> tuple[Cron, list[str]]:
    """A checked expression, and notes for people on how it was read.

    Five fields start with the minute and get the second 0 in front; ``seconds_first`` refuses them.

    Raises:
        UsageError: the zone or the expression is not valid, or the expression never fires.
    """
    if zone not in _zones():
        raise UsageError(
            f"there is no time zone {zone!r}",
            expected="an IANA name, such as UTC, Europe/Berlin or Asia/Shanghai",
            found=repr(zone),
            hint="an offset such as +01:00 has no daylight saving; name a place",
        )
    fields, notes = _six_fields(text, seconds_first=seconds_first)
    for position, field in enumerate(fields):
        _check_field(position, field, text)
    _check_days(text, days=fields[3], weekdays=fields[5])
    if fields[0] in ("*", "?"):
        notes.append("the first field is the second: with * it fires sixty times in every matching minute")
    # cronsim counts weekdays to 7, the cluster to 6
    fields[5] = re.sub(r"(^|,)(\w+)/", r"\1\2-6/", fields[5], flags=re.ASCII)
    cron = Cron(" ".join(fields), zone)
    if not _ever_fires(cron):
        raise UsageError(
            f"cron {text!r} never fires", expected="a day that exists", found=f"day {fields[3]} of month {fields[4]}"
        )
    return cron, notes


@cache
def _zones() -> set[str]:
    """The names of all zones; zoneinfo looks through a thousand files for them, each time."""
    return zoneinfo.available_timezones()


def _six_fields(text: str, *, seconds_first: bool) -> tuple[list[str], list[str]]:
    """The six fields of an expression, and notes."""
    fields, notes = text.upper().split(), list[str]()
    if len(fields) == 5:
        mistaken = _describe_cluster_reading(fields)
        if seconds_first:
            raise UsageError(
                f"cron {text!r} has five fields instead of six: the first one, the second, is missing",
                expected=", ".join(FIELDS),
                found=f"five fields; a cluster would accept them, as {mistaken}",
                hint=f"write '0 {text}'",
            )
        fields = ["0", *fields]
        notes.append(
            f"five fields start with the minute; stored as {' '.join(fields)!r}. "
            f"A cluster would have read {text!r} as {mistaken}"
        )
    if len(fields) != 6:
        raise UsageError(
            f"cron {text!r} has {len(fields)} fields",
            expected=f"six: {', '.join(FIELDS)}; or five, without the second",
            found=text,
            hint="'0 0 3 * * *' is every day at 3:00",
        )
    return fields, notes


def _check_days(text: str, *, days: str, weekdays: str) -> None:
    """Refuse a step of * for one kind of day beside the other kind: crons disagree on what that means."""
    any_star = any(field[:1] in "*?" for field in (days, weekdays))
    if any_star and days not in "*?" and weekdays not in "*?":
        raise UsageError(
            f"cron {text!r} names days of the month and of the week, one of them by a step of *",
            expected="* for one of the two, or numbers in both (a day that matches either one fires)",
            found=f"{days} and {weekdays}",
            hint="crons disagree whether both must match or one of them; list the numbers, as in 1,3,5",
        )


def _ever_fires(cron: Cron) -> bool:
    from cronsim import CronSimError

    try:
        return next(cron.after(datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)), None) is not None
    except CronSimError:  # every field is valid, so the day does not exist
        return False


def shortest_gap_s(cron: Cron, after: datetime.datetime, *, sample_size: int = 50) -> float:
    """Seconds between the nearest two of the next fire times; infinite where there is only one."""
    times = list(itertools.islice(cron.after(after), sample_size))
    return min(((b - a).total_seconds() for a, b in itertools.pairwise(times)), default=float("inf"))


def _check_field(position: int, field: str, text: str) -> None:
    """Refuse a field that the cluster's cron and ours read differently."""
    low, high = _BOUNDS[position]
    names = f", or {_NAMES[position][0]} to {_NAMES[position][-1]}" if _NAMES[position] else ""

    def refuse(matches: str, hint: str = "") -> UsageError:
        return UsageError(
            f"cron {text!r}: the {FIELDS[position]} cannot be {field}",
            expected=f"{low} to {high}{names}; lists 1,2, ranges 1-5, steps */5 or 1-5/2, or *",
            found=matches,
            hint=hint,
        )

    parts = field.split(",")
    for part in parts:
        match = _PART.fullmatch(part)
        if not match:
            raise refuse(part or "nothing between two commas")
        if match["low"] in ("*", "?"):
            if len(parts) > 1 or match["high"]:
                raise refuse(part, "write * alone, or with a step")
        else:
            ends = [_parse_number(position, end) for end in (match["low"], match["high"]) if end is not None]
            if position == 5 and 7 in ends:
                raise refuse(part, "Sunday is 0, or SUN: the cluster has no 7")
            if any(end is None or not low <= end <= high for end in ends):
                raise refuse(part)
            if len(ends) == 2 and ends[0] > ends[1]:  # type: ignore[operator]
                raise refuse(part, "a range ascends; write two ranges, with a comma")
        if match["step"] is not None and not 1 <= int(match["step"]) <= high:
            raise refuse(part, f"a step is 1 to {high}")


def _parse_number(position: int, word: str) -> int | None:
    if word in _NAMES[position]:
        return _NAMES[position].index(word) + _BOUNDS[position][0]
    return int(word) if word.isdigit() else None


def _describe_cluster_reading(fields: list[str]) -> str:
    """Five fields as Kubeflow's cron reads them: second, minute, hour, day, month, any day of the week."""
    second, minute, hour, day, month = fields
    number = _parse_number(4, month)
    named = _FULL_MONTHS[number - 1] if number and 1 <= number <= 12 else f"month {month}"
    parts = [
        f"second {second}, minute {minute} of {'every hour' if hour == '*' else f'hour {hour}'}",
        "every day" if day == "*" else f"day {day}",
        "every month" if month == "*" else named,
    ]
    return f"{parts[0]} on {parts[1]} of {parts[2]}"
