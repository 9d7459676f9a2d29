"""The fire times of a cron expression of six fields, seconds first, in a time zone.

Daylight saving, for every zone and every year:

- an expression that names hours fires once per date and time. A time that the clocks skip fires at the first instant
  after the jump, one that occurs twice fires the first time. Several times that fall on the same instant fire once.
- one of every hour fires whenever the clock shows a time that matches, on the days of the change 23 or 25 times.
"""

from __future__ import annotations

import datetime
import itertools
import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

_SECOND = datetime.timedelta(seconds=1)
_HOUR = datetime.timedelta(hours=1)
_DAY = datetime.timedelta(days=1)  # no zone changes its clocks twice in a day
_ANY_TIME = datetime.datetime(2026, 1, 1)


@dataclass(frozen=True)
class Cron:
    """One expression in one zone."""

    text: str  # six fields, seconds first
    zone: str  # IANA name

    @property
    def every_hour(self) -> bool:
        """Whether it fires in every hour of a day on which it fires."""
        return _names_every_hour(self._text)

    def after(self, after: datetime.datetime) -> Iterator[datetime.datetime]:
        """The fire times after ``after`` in order, in UTC; it ends if there are no more."""
        # cronsim applies daylight saving to five fields only and leaves a naive time alone: we apply it ourselves
        return self._shown_after(after) if self.every_hour else self._named_after(after)

    def wall_time(self, fires_at: datetime.datetime) -> datetime.datetime:
        """The time on the clock that a fire time stands for: the skipped one where it fires after a jump."""
        from cronsim import CronSim

        zone = zoneinfo.ZoneInfo(self.zone)
        shown = fires_at.astimezone(zone).replace(tzinfo=None, fold=0)
        skipped_from = (fires_at - _SECOND).astimezone(zone).replace(tzinfo=None, fold=0) + _SECOND
        if self.every_hour or skipped_from >= shown:
            return shown
        return min(shown, next(CronSim(self._text, skipped_from - _SECOND), shown))

    def time_before(self, fires_at: datetime.datetime, length: datetime.timedelta) -> datetime.datetime:
        """The instant that much before a fire time of every hour.

        Where the clocks moved by a part of an hour meanwhile, it is the nearest fire time.
        """
        instant, zone = fires_at - length, zoneinfo.ZoneInfo(self.zone)
        if not (_offset(fires_at, zone) - _offset(instant, zone)) % _HOUR:
            return instant
        end = min(fires_at, instant + _HOUR)
        near = list(itertools.takewhile(lambda each: each < end, self.after(instant - _HOUR)))
        return min(reversed(near), key=lambda each: abs(each - instant), default=instant)

    @property
    def _text(self) -> str:
        return self.text.replace("?", "*")  # cronsim knows no other

    def _named_after(self, after: datetime.datetime) -> Iterator[datetime.datetime]:
        from cronsim import CronSim

        zone, previous = zoneinfo.ZoneInfo(self.zone), after
        for wall in CronSim(self._text, after.astimezone(zone).replace(tzinfo=None)):
            fires_at = wall_to_utc(wall, zone)
            if fires_at > previous:
                yield fires_at
                previous = fires_at

    def _shown_after(self, after: datetime.datetime) -> Iterator[datetime.datetime]:
        from cronsim import CronSim

        zone = zoneinfo.ZoneInfo(self.zone)
        previous, more = after.astimezone(datetime.UTC).replace(microsecond=0), True
        while more:  # once for each offset
            offset, more = _offset(previous + _SECOND, zone), False
            for wall in CronSim(self._text, previous.replace(tzinfo=None) + offset):
                fires_at = wall.replace(tzinfo=datetime.UTC) - offset
                if change := _next_change(offset, previous + _SECOND, fires_at, zone):
                    previous, more = change - _SECOND, True
                    break
                yield fires_at
                previous = fires_at


@cache
def _names_every_hour(text: str) -> bool:
    from cronsim import CronSim

    return len(CronSim(text, _ANY_TIME).hours) == 24


def wall_to_utc(wall: datetime.datetime, zone: datetime.tzinfo) -> datetime.datetime:
    """The instant (UTC) of a wall time: the first of two, or the first instant after a jump that skips it."""
    utc = wall.replace(tzinfo=zone, fold=0).astimezone(datetime.UTC)
    if utc.astimezone(zone).replace(tzinfo=None) == wall:
        return utc
    # skipped: the two offsets put it on either side of the jump
    return _change_between(wall.replace(tzinfo=zone, fold=1).astimezone(datetime.UTC), utc, zone)


def _next_change(
    offset: datetime.timedelta, start: datetime.datetime, end: datetime.datetime, zone: datetime.tzinfo
) -> datetime.datetime | None:
    """The first instant from ``start`` up to and including ``end`` that has another offset."""
    if _offset(start, zone) != offset:
        return start
    while start < end:
        step = min(end, start + _DAY)
        if _offset(step, zone) != offset:
            return _change_between(start, step, zone)
        start = step
    return None


def _change_between(before: datetime.datetime, after: datetime.datetime, zone: datetime.tzinfo) -> datetime.datetime:
    """The first second of another offset than that of ``before``; ``after`` has another one."""
    offset = _offset(before, zone)
    while after - before > _SECOND:
        middle = before + (after - before) // _SECOND // 2 * _SECOND
        if _offset(middle, zone) == offset:
            before = middle
        else:
            after = middle
    return after


def _offset(instant: datetime.datetime, zone: datetime.tzinfo) -> datetime.timedelta:
    offset = instant.astimezone(zone).utcoffset()
    assert offset is not None
    return offset
