"""How schedules are shown and moments are read, wherever the schedules are kept."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from pipelines.schedules.store import Schedule
    from pipelines.schedules.store import Window as DataWindow

EARLIEST, LATEST = 1900, 2999  # years that a moment may name
WHATS = ("ran", "done before", "under way elsewhere")


def announce(
    schedule: Schedule, notes: Sequence[str], *, window_of: Callable[[datetime], DataWindow], begins: str
) -> None:
    """Print how a schedule stands, wherever it is kept; ``begins`` says of a new one what begins its runs."""
    for note in notes:
        typer.echo(f"note: {note}")
    state = "paused" if schedule.paused else "on"
    typer.echo(f"schedule {schedule.name} is {state}, revision {schedule.revision}: {schedule.cron} in {schedule.zone}")
    for first in () if schedule.paused else fires(schedule, 1):
        window = window_of(first)
        start = local(schedule, window.start) if window.start else "the beginning"
        typer.echo(f"  next: {local(schedule, first)}, on data from {start} to {local(schedule, window.end)}")
        typer.echo(f"  {begins or 'runs under way go on'}")


def settings_of(schedule: Schedule, *, without: Collection[str] = ()) -> None:
    """Print what a schedule was set to."""
    for key, value in schedule.model_dump().items():
        if value not in ("", None, (), False) and key not in ("name", "deleted", *without):
            typer.echo(f"{key:<16} {' '.join(map(str, value)) if isinstance(value, tuple) else value}")


def plan_table(
    schedule: Schedule, moments: list[datetime], windows: list[DataWindow], begins: list[datetime], *, as_json: bool
) -> None:
    """Print fire times, with the data window of each."""
    if as_json:
        rows = [
            {
                "scheduled_at": at.isoformat(),
                "scheduled_at_local": local(schedule, at),
                "begins_at": begin.isoformat(),
                "window_start": window.start.isoformat() if window.start else None,
                "window_end": window.end.isoformat(),
                "window_start_local": local(schedule, window.start) if window.start else None,
                "window_end_local": local(schedule, window.end),
            }
            for at, window, begin in zip(moments, windows, begins)
        ]
        told = {"schedule": schedule.name, "cron": schedule.cron, "zone": schedule.zone, "paused": schedule.paused}
        typer.echo(json.dumps({**told, "fires": rows}, indent=2))
        return
    if schedule.paused:
        resume = f"`rankline schedule resume {schedule.name}`"
        typer.echo(f"schedule {schedule.name} is paused: none of these begins before {resume}")
    zones = list(dict.fromkeys((schedule.zone, "UTC")))  # what the schedule's own clock shows is not told twice
    cells = [tuple(title for zone in zones for title in (f"fires ({zone})", f"data from ({zone})", "to"))]
    for at, window in zip(moments, windows):
        own = [local(schedule, each) if each else "the beginning" for each in (at, window.start, window.end)]
        utc = [short(each.isoformat()) if each else "the beginning" for each in (at, window.start, window.end)]
        cells.append((*own, *(utc if len(zones) > 1 else ())))
    table(cells)
    if schedule.jitter_s:
        typer.echo(f"each begins up to {schedule.jitter_s:g} s later; its data window stays")


def fires(schedule: Schedule, count: int) -> list[datetime]:
    """The next fire times."""
    return list(itertools.islice(schedule.rule.after(datetime.now(UTC)), count))


def local(schedule: Schedule, moment: datetime) -> str:
    """A moment as the clocks of the schedule's zone show it."""
    from zoneinfo import ZoneInfo

    return moment.astimezone(ZoneInfo(schedule.zone)).strftime("%Y-%m-%d %H:%M:%S%z")


def short(moment: str | None) -> str:
    """A moment in UTC, without the zone; empty for none."""
    return datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") if moment else ""


def moment_of(text: str, zone: str) -> datetime:
    """A moment that was written without a zone is of the schedule's."""
    from zoneinfo import ZoneInfo

    from pipelines.schedules import cron as crons
    from rankline.errors import UsageError

    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is no moment", expected="2026-01-31, or 2026-01-31T03:00, with a zone or without", found=text
        ) from error
    if not EARLIEST <= moment.year <= LATEST:
        raise UsageError(f"{text!r} is too far away", expected=f"a year from {EARLIEST} to {LATEST}", found=text)
    return moment.astimezone(UTC) if moment.tzinfo else crons.instant(moment, ZoneInfo(zone))


def table(rows: list[tuple[str, ...]]) -> None:
    """Print rows in columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        typer.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip())


def tally(whats: Iterable[str], *, failed: int) -> None:
    """Print what a backfill came to: how often each thing happened to a fire time."""
    counts = Counter(whats)
    told = ", ".join(f"{counts[what]} {what}" for what in WHATS if counts[what])
    typer.echo(f"{told}; {failed} failed")
