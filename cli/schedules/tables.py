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

MIN_YEAR, MAX_YEAR = 1900, 2999  # years that a moment may name
OUTCOMES = ("ran", "done before", "under way elsewhere")


def print_schedule(
    schedule: Schedule, notes: Sequence[str], *, window_of: Callable[[datetime], DataWindow], begins: str
) -> None:
    """Print how a schedule stands, wherever it is kept; ``begins`` says of a new one what begins its runs."""
    for note in notes:
        typer.echo(f"note: {note}")
    state = "paused" if schedule.paused else "on"
    typer.echo(f"schedule {schedule.name} is {state}, revision {schedule.revision}: {schedule.cron} in {schedule.zone}")
    for first in () if schedule.paused else next_instants(schedule, 1):
        window = window_of(first)
        start = local_text(schedule, window.start) if window.start else "the beginning"
        typer.echo(f"  next: {local_text(schedule, first)}, on data from {start} to {local_text(schedule, window.end)}")
        typer.echo(f"  {begins or 'runs under way go on'}")


def print_settings(schedule: Schedule, *, without: Collection[str] = ()) -> None:
    """Print what a schedule was set to."""
    for key, value in schedule.model_dump().items():
        if value not in ("", None, (), False) and key not in ("name", "deleted", *without):
            typer.echo(f"{key:<16} {' '.join(map(str, value)) if isinstance(value, tuple) else value}")


def print_fire_times(
    schedule: Schedule, instants: list[datetime], windows: list[DataWindow], begins: list[datetime], *, as_json: bool
) -> None:
    """Print fire times, with the data window of each."""
    if as_json:
        rows = [
            {
                "scheduled_at": instant.isoformat(),
                "scheduled_at_local": local_text(schedule, instant),
                "begins_at": begin.isoformat(),
                "window_start": window.start.isoformat() if window.start else None,
                "window_end": window.end.isoformat(),
                "window_start_local": local_text(schedule, window.start) if window.start else None,
                "window_end_local": local_text(schedule, window.end),
            }
            for instant, window, begin in zip(instants, windows, begins)
        ]
        payload = {"schedule": schedule.name, "cron": schedule.cron, "zone": schedule.zone, "paused": schedule.paused}
        typer.echo(json.dumps({**payload, "fires": rows}, indent=2))
        return
    if schedule.paused:
        resume = f"`rankline schedule resume {schedule.name}`"
        typer.echo(f"schedule {schedule.name} is paused: none of these begins before {resume}")
    zones = list(dict.fromkeys((schedule.zone, "UTC")))  # what the schedule's own clock shows is not told twice
    cells = [tuple(title for zone in zones for title in (f"fires ({zone})", f"data from ({zone})", "to"))]
    for instant, window in zip(instants, windows):
        zoned_cells = [
            local_text(schedule, each) if each else "the beginning" for each in (instant, window.start, window.end)
        ]
        utc_cells = [
            utc_text(each.isoformat()) if each else "the beginning" for each in (instant, window.start, window.end)
        ]
        cells.append((*zoned_cells, *(utc_cells if len(zones) > 1 else ())))
    print_table(cells)
    if schedule.jitter_s:
        typer.echo(f"each begins up to {schedule.jitter_s:g} s later; its data window stays")


def next_instants(schedule: Schedule, count: int) -> list[datetime]:
    """The next fire times."""
    return list(itertools.islice(schedule.rule.after(datetime.now(UTC)), count))


def local_text(schedule: Schedule, instant: datetime) -> str:
    """A moment as the clocks of the schedule's zone show it."""
    from zoneinfo import ZoneInfo

    return instant.astimezone(ZoneInfo(schedule.zone)).strftime("%Y-%m-%d %H:%M:%S%z")


def utc_text(instant: str | None) -> str:
    """A moment in UTC, without the zone; empty for none."""
    return datetime.fromisoformat(instant).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") if instant else ""


def parse_instant(text: str, zone: str) -> datetime:
    """A moment that was written without a zone is of the schedule's."""
    from zoneinfo import ZoneInfo

    from pipelines.schedules import cron as crons
    from rankline.errors import UsageError

    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is no moment", expected="2026-01-31, or 2026-01-31T03:00, with a zone or without", found=text
        ) from error
    if not MIN_YEAR <= instant.year <= MAX_YEAR:
        raise UsageError(f"{text!r} is too far away", expected=f"a year from {MIN_YEAR} to {MAX_YEAR}", found=text)
    return instant.astimezone(UTC) if instant.tzinfo else crons.wall_to_utc(instant, ZoneInfo(zone))


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Print rows in columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        typer.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip())


def print_tally(outcomes: Iterable[str], *, failed: int) -> None:
    """Print what a backfill came to: how often each thing happened to a fire time."""
    counts = Counter(outcomes)
    text = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome])
    typer.echo(f"{text}; {failed} failed")
