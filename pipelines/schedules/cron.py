"""When a schedule fires: a cron expression of six fields, seconds first, in a stated time zone.

Six fields is what a Kubeflow cluster wants. It also takes five, as seconds, minutes, hours, day and month: `0 3 * * 1`
is accepted there and fires every hour of January. Here five fields are read as everybody means them, and converted.

Daylight saving, for every zone and every year:

- a time that an expression names (its hour is not `*`) comes once a date. One that the clocks jump over comes at
  the first moment after the jump; one that is there twice comes the first time only. Several that fall on the
  same moment are one.
- an hour of `*` names none: it is every hour that passes, 23 or 25 of them on the two odd days.
"""

from __future__ import annotations

import datetime
import itertools
import re
import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass

from rankline.errors import UsageError

FIELDS = ("second", "minute", "hour", "day of the month", "month", "day of the week")
_BOUNDS = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_NAMES = ((), (), (), (), _MONTHS, _DAYS)
_PART = re.compile(r"(?P<low>\*|\?|\w+)(-(?P<high>\w+))?(/(?P<step>\d+))?", re.ASCII)
_FULL_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip


@dataclass(frozen=True)
class Cron:
    """One expression in one zone."""

    text: str  # six fields, seconds first
    zone: str  # IANA name

    def after(self, after: datetime.datetime) -> Iterator[datetime.datetime]:
        """Fire times later than ``moment``, in their order, in UTC; it ends where there are none any more."""
        from cronsim import CronSim

        zone = zoneinfo.ZoneInfo(self.zone)
        text, local_time = self.text.replace("?", "*"), after.astimezone(zone)
        # the library knows of daylight saving where there are five fields only; a time without a zone it leaves alone
        if text.split()[2] == "*":
            yield from (fires_at.astimezone(datetime.UTC) for fires_at in CronSim(text, local_time))
            return
        previous = after
        for wall in CronSim(text, local_time.replace(tzinfo=None)):
            fires_at = wall_to_utc(wall, zone)
            if fires_at > previous:
                yield fires_at
                previous = fires_at


def wall_to_utc(wall: datetime.datetime, zone: datetime.tzinfo) -> datetime.datetime:
    """The moment (UTC) of a wall clock's time: the first of two, and for none the first moment after the jump."""
    utc = wall.replace(tzinfo=zone, fold=0).astimezone(datetime.UTC)
    if utc.astimezone(zone).replace(tzinfo=None) == wall:
        return utc
    # it was jumped over: read with either offset it lies on either side of the jump, and the seconds between tell where
    before = wall.replace(tzinfo=zone, fold=1).astimezone(datetime.UTC)
    offset, second = before.astimezone(zone).utcoffset(), datetime.timedelta(seconds=1)
    while utc - before > second:
        middle = before + (utc - before) // second // 2 * second
        if middle.astimezone(zone).utcoffset() == offset:
            before = middle
        else:
            utc = middle
    return utc


def parse(text: str, zone: str = "UTC", *, seconds_first: bool = False) -> tuple[Cron, list[str]]:
    """The expression, checked, and notes for people on how it was read.

    Five fields are read minute first and get second 0 in front; with ``seconds_first`` they are refused.

    Raises:
        UsageError: the zone or the expression is none, or it never fires.
    """
    if zone not in zoneinfo.available_timezones():
        raise UsageError(
            f"there is no time zone {zone!r}",
            expected="an IANA name, such as UTC, Europe/Berlin or Asia/Shanghai",
            found=repr(zone),
            hint="a shift such as +01:00 knows no daylight saving; name a place",
        )
    fields, notes = text.upper().split(), []
    if len(fields) == 5:
        mistaken = _describe_cluster_reading(fields)
        if seconds_first:
            raise UsageError(
                f"cron {text!r} has five fields where six are asked for: the first of them, the second, is missing",
                expected=", ".join(FIELDS),
                found=f"five fields; a cluster would take them, as {mistaken}",
                hint=f"write '0 {text}'",
            )
        fields = ["0", *fields]
        notes.append(
            f"five fields are read minute first, and kept as {' '.join(fields)!r}; "
            f"a cluster would have read {text!r} as {mistaken}"
        )
    if len(fields) != 6:
        raise UsageError(
            f"cron {text!r} has {len(fields)} fields",
            expected=f"six: {', '.join(FIELDS)}; or five, without the second",
            found=text,
            hint="'0 0 3 * * *' is every day at 3:00",
        )
    for place, field in enumerate(fields):
        _check_field(place, field, text)
    stars = [field[:1] in "*?" for field in (fields[3], fields[5])]
    if any(stars) and not any(field in "*?" for field in (fields[3], fields[5])):
        raise UsageError(
            f"cron {text!r} names days of the month and of the week, one of them by a step of *",
            expected="* for one of the two, or numbers in both (then either of them is enough)",
            found=f"{fields[3]} and {fields[5]}",
            hint="crons disagree whether both must fit or one of them; write the numbers out, as in 1,3,5",
        )
    if fields[0] in ("*", "?"):
        notes.append("the first field is the second: with * there it fires sixty times in every minute that fits")
    # the library counts a week to 7, the cluster to 6
    fields[5] = re.sub(r"(^|,)(\w+)/", r"\1\2-6/", fields[5], flags=re.ASCII)
    cron = Cron(" ".join(fields), zone)
    if not _ever_fires(cron):
        raise UsageError(
            f"cron {text!r} never fires", expected="a day that comes", found=f"day {fields[3]} of month {fields[4]}"
        )
    return cron, notes


def _ever_fires(cron: Cron) -> bool:
    from cronsim import CronSimError

    try:
        return next(cron.after(datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)), None) is not None
    except CronSimError:  # each field was found good: it is the day that no month has
        return False


def shortest_gap_s(cron: Cron, after: datetime.datetime, *, sample_size: int = 50) -> float:
    """Seconds between the nearest two of the coming fire times; without end where there is but one."""
    times = list(itertools.islice(cron.after(after), sample_size))
    return min(((b - a).total_seconds() for a, b in itertools.pairwise(times)), default=float("inf"))


def _check_field(place: int, field: str, text: str) -> None:
    """Refuse a field that the cluster's cron and ours do not read alike."""
    low, high = _BOUNDS[place]
    names = f", or {_NAMES[place][0]} to {_NAMES[place][-1]}" if _NAMES[place] else ""

    def refuse(found: str, hint: str = "") -> UsageError:
        return UsageError(
            f"cron {text!r}: the {FIELDS[place]} cannot be {field}",
            expected=f"{low} to {high}{names}; lists 1,2, ranges 1-5, steps */5 or 1-5/2, or *",
            found=found,
            hint=hint,
        )

    parts = field.split(",")
    for part in parts:
        match = _PART.fullmatch(part)
        if not match:
            raise refuse(part or "nothing between two commas")
        if match["low"] in ("*", "?"):
            if len(parts) > 1 or match["high"]:
                raise refuse(part, "a * stands alone, or with a step")
        else:
            ends = [_parse_number(place, end) for end in (match["low"], match["high"]) if end is not None]
            if place == 5 and 7 in ends:
                raise refuse(part, "Sunday is 0, or SUN: the cluster knows no 7")
            if any(end is None or not low <= end <= high for end in ends):
                raise refuse(part)
            if len(ends) == 2 and ends[0] > ends[1]:  # type: ignore[operator]
                raise refuse(part, "a range goes upwards; write two, with a comma")
        if match["step"] is not None and not 1 <= int(match["step"]) <= high:
            raise refuse(part, f"a step is 1 to {high}")


def _parse_number(place: int, word: str) -> int | None:
    if word in _NAMES[place]:
        return _NAMES[place].index(word) + _BOUNDS[place][0]
    return int(word) if word.isdigit() else None


def _describe_cluster_reading(fields: list[str]) -> str:
    """Five fields as Kubeflow's cron takes them: second, minute, hour, day, month, any day of the week."""
    second, minute, hour, day, month = fields
    number = _parse_number(4, month)
    named = _FULL_MONTHS[number - 1] if number and 1 <= number <= 12 else f"month {month}"
    parts = [
        f"second {second}, minute {minute} of {'every hour' if hour == '*' else f'hour {hour}'}",
        "every day" if day == "*" else f"day {day}",
        "every month" if month == "*" else named,
    ]
    return f"{parts[0]} on {parts[1]} of {parts[2]}"
