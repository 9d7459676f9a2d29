"""How schedules and times are printed and parsed, wherever the schedules are stored."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import typer

if TYPE_CHECKING:
    from pipelines.schedules.model import Schedule
    from pipelines.schedules.protocol import FiringRecord, ScheduleInfo, Schedules, UnreadableSchedule
    from pipelines.schedules.triggers.held import Held
    from pipelines.schedules.triggers.observation import Check

MIN_YEAR, MAX_YEAR = 1900, 2999  # of a time on the command line
OF_TRIGGERS = ("check_every", "cooldown", "budget", "false_alarms")  # settings that mean nothing without triggers
STATUSES = ("ran", "done before", "under way elsewhere")


def schedule_payload(info: ScheduleInfo) -> dict[str, Any]:
    """A schedule as JSON."""
    upcoming = [] if info.schedule.paused else next_instants(info.schedule, 1)
    return {
        **info.schedule.model_dump(mode="json"),
        "next": upcoming[0].isoformat() if upcoming else None,
        "revisions": info.revisions,
        "notes": list(info.notes),
        **info.details,
    }


def print_change(info: ScheduleInfo, *, created: bool, as_json: bool) -> None:
    """Print a schedule after a command has changed it."""
    if as_json:
        typer.echo(json.dumps(schedule_payload(info), indent=2))
        return
    schedule = info.schedule
    for note in info.notes:
        typer.echo(f"note: {note}")
    state = "paused" if schedule.paused else "on"
    times = [f"{schedule.cron} in {schedule.zone}"] if schedule.cron else []
    times += [f"by need ({', '.join(schedule.when)})"] if schedule.when else []
    typer.echo(f"schedule {schedule.name} is {state}, revision {schedule.revision}: {', and '.join(times)}")
    if schedule.when and not schedule.paused:
        typer.echo(f"  checked every {schedule.check_every}; `rankline schedule check {schedule.name}` checks it now")
    for instant in () if schedule.paused else next_instants(schedule, 1):
        window = schedule.window_of(instant)
        data = f"{_window_start(schedule, window.start)} to {local_text(schedule, window.end)}"
        typer.echo(f"  next: {local_text(schedule, instant)}, on data from {data}")
        typer.echo(f"  {info.started_by if created else 'active runs go on'}")
    if schedule.when and not schedule.cron and not schedule.paused and created:
        typer.echo(f"  {info.started_by}")
    for each in info.remaining:
        typer.echo(f"  {each}")


def print_schedules(entries: Sequence[ScheduleInfo | UnreadableSchedule], *, as_json: bool) -> None:
    """Print all schedules of a place."""
    from pipelines.schedules.protocol import ScheduleInfo

    if as_json:
        payload = [
            schedule_payload(each) if isinstance(each, ScheduleInfo) else {"name": each.name, **each.details}
            for each in entries
        ]
        typer.echo(json.dumps(payload, indent=2))
        return
    if not entries:
        typer.echo("no schedules yet; `rankline schedule create` creates one")
        return
    rows: list[tuple[str, ...]] = [("schedule", "flow", "cron", "zone", "recipe", "next")]
    for each in entries:
        if isinstance(each, ScheduleInfo):
            schedule = each.schedule
            upcoming = [local_text(schedule, instant) for instant in next_instants(schedule, 1)]
            by_need = f"by need, checked every {schedule.check_every}" if schedule.when else ""
            by_clock = upcoming[0] if upcoming else "never again" if schedule.cron else ""
            next_text = "paused" if schedule.paused else ", or ".join(filter(None, (by_clock, by_need)))
            rows.append((schedule.name, schedule.flow, schedule.cron, schedule.zone, schedule.recipe, next_text))
        else:
            flow, cron, recipe = (each.details.get(key, "") for key in ("flow", "cron", "recipe"))
            rows.append((each.name, flow, cron, "?" if cron else "", recipe, each.state))
    print_table(rows)
    for each in entries:
        if isinstance(each, ScheduleInfo):
            for note in each.notes:
                typer.echo(f"{each.schedule.name}: {note}")
        elif each.error:
            typer.echo(f"{each.name}: {each.error}")


def print_schedule(schedules: Schedules, info: ScheduleInfo, records: Sequence[FiringRecord]) -> None:
    """Print the settings of a schedule and its latest firings."""
    schedule = info.schedule
    for key, value in schedule.model_dump().items():
        hidden = ("name", "deleted", *schedules.unsupported, *(() if schedule.when else OF_TRIGGERS))
        if value not in ("", None, (), False) and key not in hidden:
            shown = ", ".join(value) if key == "when" else schedule.budget if key == "budget" else value
            typer.echo(f"{key:<16} {' '.join(map(str, shown)) if isinstance(shown, tuple) else shown}")
    for key in ("experiment", "account"):
        if info.details.get(key):
            typer.echo(f"{key:<16} {info.details[key]}")
    for instant in next_instants(schedule, 1):
        typer.echo(f"{'next':<16} {'(paused) ' * schedule.paused}{local_text(schedule, instant)}")
    for note in info.notes:
        typer.echo(f"{'note':<16} {note}")
    if info.details.get("url"):
        typer.echo(f"{'page':<16} {info.details['url']}")
    if not records:
        return
    rows: list[tuple[str, ...]] = [("scheduled (UTC)", "kind", "data to (UTC)", "outcome", "run")]
    rows += [(utc_text(r.scheduled_at), r.kind, utc_text(r.window_end), r.state, r.run) for r in records]
    typer.echo("")
    print_table(rows)
    for record in records:
        if record.why:
            typer.echo(f"{utc_text(record.scheduled_at)}: {record.why}")
    if records[-1].failed and records[-1].error:
        typer.echo(f"the last one failed: {records[-1].error}")


def print_check(check: Check) -> None:
    """Print what each trigger observed."""
    if not check.observations:
        return
    rows: list[tuple[str, ...]] = [("trigger", "observed", "threshold", "fires", "why")]
    for each in check.observations:
        fires = "yes" if each.fires else "unknown" if each.problem else "no"
        rows.append((each.trigger, each.observed or "-", each.threshold or "-", fires, each.why))
    typer.echo(f"\nchecked {utc_text(check.at)} UTC")
    print_table(rows)


def print_held(held: Sequence[Held]) -> None:
    """Print what was held back."""
    for each in held:
        times = f"{each.count} times from {utc_text(each.first)} to {utc_text(each.last)}"
        period = utc_text(each.first) if each.count == 1 else times
        typer.echo(f"held back: {period} ({each.why}): {each.need}")


def print_fire_times(schedules: Schedules, schedule: Schedule, instants: list[datetime], *, as_json: bool) -> None:
    """Print fire times with the data window of each."""
    windows = [schedule.window_of(instant) for instant in instants]
    if as_json:
        rows = [
            {
                "scheduled_at": instant.isoformat(),
                "scheduled_at_local": local_text(schedule, instant),
                "begins_at": schedules.earliest_start(schedule, instant).isoformat(),
                "window_start": window.start.isoformat() if window.start else None,
                "window_end": window.end.isoformat(),
                "window_start_local": local_text(schedule, window.start) if window.start else None,
                "window_end_local": local_text(schedule, window.end),
            }
            for instant, window in zip(instants, windows)
        ]
        payload = {"schedule": schedule.name, "cron": schedule.cron, "zone": schedule.zone, "paused": schedule.paused}
        typer.echo(json.dumps({**payload, "fires": rows}, indent=2))
        return
    if schedule.paused:
        resume = f"`rankline schedule resume {schedule.name}`"
        typer.echo(f"schedule {schedule.name} is paused: none of these starts before {resume}")
    zones = list(dict.fromkeys((schedule.zone, "UTC")))
    cells = [tuple(title for zone in zones for title in (f"fires ({zone})", f"data from ({zone})", "to"))]
    for instant, window in zip(instants, windows):
        zoned = (local_text(schedule, instant), _window_start(schedule, window.start), local_text(schedule, window.end))
        utc = tuple(
            utc_text(each.isoformat()) if each else "the beginning" for each in (instant, window.start, window.end)
        )
        cells.append((*zoned, *(utc if len(zones) > 1 else ())))
    print_table(cells)
    if schedule.jitter_s:
        typer.echo(f"each starts up to {schedule.jitter_s:g} s later; its data window stays the same")
    if schedules.zone_note:
        typer.echo(f"note: {schedules.zone_note}")


def _window_start(schedule: Schedule, start: datetime | None) -> str:
    return local_text(schedule, start) if start else "the beginning"


def next_instants(schedule: Schedule, count: int) -> list[datetime]:
    """The next fire times."""
    if not schedule.cron:
        return []
    return list(itertools.islice(schedule.rule.after(datetime.now(UTC)), count))


def local_text(schedule: Schedule, instant: datetime) -> str:
    """A time in the schedule's zone."""
    return instant.astimezone(ZoneInfo(schedule.zone)).strftime("%Y-%m-%d %H:%M:%S%z")


def utc_text(instant: str | None) -> str:
    """A time in UTC, without the zone; empty for None."""
    return datetime.fromisoformat(instant).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") if instant else ""


def parse_instant(text: str, zone: str) -> datetime:
    """A time on the command line; without a zone it is in the schedule's.

    Raises:
        UsageError: it is not a time, or too far from now.
    """
    from rankline.errors import UsageError
    from rankline.schedules.fire_times import wall_to_utc

    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is not a time", expected="2026-01-31, or 2026-01-31T03:00, with or without a zone", found=text
        ) from error
    if not MIN_YEAR <= instant.year <= MAX_YEAR:
        raise UsageError(f"{text!r} is too far away", expected=f"a year from {MIN_YEAR} to {MAX_YEAR}", found=text)
    return instant.astimezone(UTC) if instant.tzinfo else wall_to_utc(instant, ZoneInfo(zone))


def print_table(rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows in columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        typer.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip())


def print_tally(statuses: Iterable[str], *, failed: int) -> None:
    """Print how many fire times a backfill ran, left alone, and saw fail."""
    counts = Counter(statuses)
    text = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
    typer.echo(f"{text}; {failed} failed")
