"""The data window of a fire time.

The windows of a schedule meet where its window is as long as its period: a window starts where that of the fire time
one window earlier ends. So the window is counted on the zone's clock, on which the fire times are regular, and the lag
is taken off both ends. A schedule of every hour is regular in time that passes; so are its windows in hours.
"""

from __future__ import annotations

import calendar
import datetime
import re
import zoneinfo
from dataclasses import dataclass
from typing import NamedTuple

from rankline.schedules.fire_times import Cron, wall_to_utc

SPAN = re.compile(r"(?P<count>\d+)(?P<unit>mo|[smhdw])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "mo": 31 * 86_400}
_TIME_UNITS = ("s", "m", "h")


class Window(NamedTuple):
    """The data of a run: from ``start`` (None: from the beginning) up to and excluding ``end``; UTC."""

    start: datetime.datetime | None
    end: datetime.datetime


@dataclass(frozen=True)
class Span:
    """A length such as 30d or 12h."""

    count: int
    unit: str

    @property
    def on_clock(self) -> bool:
        """Whether it is counted in days of a calendar; hours and less are time that passes."""
        return self.count > 0 and self.unit not in _TIME_UNITS

    @property
    def elapsed_s(self) -> int:
        """Its length where days have 24 hours and months 31 days."""
        return self.count * _UNIT_S[self.unit]

    @property
    def elapsed(self) -> datetime.timedelta:
        """The same, as a time that can be added."""
        return datetime.timedelta(seconds=self.elapsed_s)

    def before(self, wall: datetime.datetime) -> datetime.datetime:
        """The time on the clock that is this much earlier; a day that the month does not have is its last one."""
        if self.unit != "mo":
            return wall - self.elapsed
        year, month = divmod(wall.year * 12 + wall.month - 1 - self.count, 12)
        last_day = calendar.monthrange(year, month + 1)[1]
        return wall.replace(year=year, month=month + 1, day=min(wall.day, last_day))


def parse_span(text: str) -> Span:
    """The length that a setting of the form `SPAN` names; an empty one is zero."""
    match = SPAN.fullmatch(text or "0s")
    assert match, text
    return Span(int(match["count"]), match["unit"])


def data_window(cron: Cron, scheduled_at: datetime.datetime, *, window: str, lag: str) -> Window:
    """The data window of a fire time: ``window`` long (empty: from the beginning), up to ``lag`` before it."""
    zone, length, delay = zoneinfo.ZoneInfo(cron.zone), parse_span(window), parse_span(lag)
    scheduled_at = scheduled_at.astimezone(datetime.UTC)

    def end_of(instant: datetime.datetime, wall: datetime.datetime) -> datetime.datetime:
        return wall_to_utc(delay.before(wall), zone) if delay.on_clock else instant - delay.elapsed

    if window and cron.every_hour and not length.on_clock:
        return Window(cron.time_before(scheduled_at, length.elapsed) - delay.elapsed, scheduled_at - delay.elapsed)
    wall = cron.wall_time(scheduled_at)
    end = end_of(scheduled_at, wall)
    if not window:
        return Window(None, end)
    wall = length.before(wall)
    start = end_of(wall_to_utc(wall, zone), wall)
    # the clocks may skip the whole window
    return Window(start if start < end else end - length.elapsed, end)
