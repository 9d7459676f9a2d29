"""`rankline schedule`: the schedules of a workspace or a cluster."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import WORKSPACE, AsJson, Workspace, require_workspace
from cli.runs.cluster import POLL_S, RunContinues, Target, with_cluster_options
from cli.schedules.options import ScheduleOptions, with_schedule_options
from cli.schedules.tables import (
    next_instants,
    parse_instant,
    print_change,
    print_check,
    print_fire_times,
    print_held,
    print_schedule,
    print_schedules,
    print_tally,
    schedule_payload,
    utc_text,
)
from rankline.runtime.outcomes import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from pipelines.schedules.protocol import Schedules

app = typer.Typer(
    help="Run recipes at set times, each on the data window of that time. `rankline scheduler` starts the runs, "
    "or the cluster with --host.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="The schedule's name: lower-case letters, digits, hyphens.")]
with_zoned_cluster_options = functools.partial(with_cluster_options, zoned=True)


@app.command("create")
@with_zoned_cluster_options
@with_schedule_options
def create(
    name: Name,
    where: Target,
    options: ScheduleOptions,
    paused: Annotated[bool, typer.Option("--paused", help="Create it paused.")] = False,
    workspace: Workspace = WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Create a schedule; its first run starts at its next fire time. Every setting is checked, the recipe included.

    With --when a run also starts by need: `rankline schedule check` says what each trigger observes. On a cluster the
    time zone is that of its controller (--cluster-zone), and settings that a cluster does not support are refused.

    Example: rankline schedule create nightly -r mine:mine --cron "0 0 3 * * *" --zone Europe/Berlin --window 90d

    Example: rankline schedule create fresh -r mine:mine --when "events>=20%" --when drift:price --window 90d
    """
    from rankline.errors import UsageError

    has_time = options.cron is not None or any(options.when or ())
    if options.recipe is None or not has_time:
        raise UsageError(
            "a schedule needs a recipe and a time, or triggers",
            expected="--recipe, and --cron or --when",
            found="--recipe alone" if options.recipe else "no --recipe" if has_time else "neither",
            hint='rankline schedule create nightly -r mine:mine --cron "0 0 3 * * *"',
        )
    with _schedules(workspace, where, new=True) as schedules:
        info = schedules.create(name, options.changes(paused=paused), now=datetime.now(UTC))
        print_change(info, created=True, as_json=as_json)


@app.command("update")
@with_zoned_cluster_options
@with_schedule_options
def update(
    name: Name, where: Target, options: ScheduleOptions, workspace: Workspace = WORKSPACE, as_json: AsJson = False
) -> None:
    """Change the given settings; active runs go on, and later fire times follow the new revision.

    The current folder becomes the one in which the runs find relative paths and your recipes. An empty value ("")
    resets a setting.

    Example: rankline schedule update nightly --cron "0 0 4 * * *"
    """
    with _schedules(workspace, where) as schedules:
        info = schedules.update(name, options.changes(), now=datetime.now(UTC))
        print_change(info, created=False, as_json=as_json)


@app.command("list")
@with_zoned_cluster_options
def list_(where: Target, workspace: Workspace = WORKSPACE, as_json: AsJson = False) -> None:
    """List the schedules: when each fires, what it runs, and its next fire time."""
    with _schedules(workspace, where) as schedules:
        print_schedules(schedules.list(), as_json=as_json)


@app.command("show")
@with_zoned_cluster_options
def show(name: Name, where: Target, workspace: Workspace = WORKSPACE, as_json: AsJson = False) -> None:
    """Show a schedule: its settings, its latest runs, and the fire times that were skipped."""
    with _schedules(workspace, where) as schedules:
        info, records, skipped = schedules.get(name), schedules.firings(name), schedules.skipped(name)
        held, checked = schedules.held_back(name), schedules.last_check(name)
    if as_json:
        payload = {**schedule_payload(info), "runs": [each.as_dict() for each in records], "passed_over": skipped}
        by_need = {"held_back": [each.model_dump() for each in held], "checked": checked and checked.model_dump()}
        typer.echo(json.dumps({**payload, **by_need}, indent=2))
        return
    print_schedule(schedules, info, records)
    for each in skipped or ():
        period = f"from {utc_text(each['first'])} to {utc_text(each['last'])}"
        typer.echo(f"skipped: {each['count']} {period} ({each['why']})")
    print_held(held)
    if checked:
        print_check(checked)
    if schedules.zone_note:
        typer.echo(f"note: {schedules.zone_note}; a cluster does not report skipped fire times either")


@app.command("pause")
@with_zoned_cluster_options
def pause(name: Name, where: Target, workspace: Workspace = WORKSPACE, as_json: AsJson = False) -> None:
    """Start no runs until you resume it; active runs go on, and fire times during the pause do not run later."""
    _set_paused(name, True, workspace, where, as_json=as_json)


@app.command("resume")
@with_zoned_cluster_options
def resume(name: Name, where: Target, workspace: Workspace = WORKSPACE, as_json: AsJson = False) -> None:
    """Start runs again from the next fire time on; what was due before the pause is caught up, too."""
    _set_paused(name, False, workspace, where, as_json=as_json)


@app.command("delete")
@with_zoned_cluster_options
def delete(
    name: Name,
    where: Target,
    end_runs: Annotated[
        bool, typer.Option("--end-runs", help="On a cluster: end active runs, which deleting does there.")
    ] = False,
    workspace: Workspace = WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Delete a schedule; active runs go on, and the record of its runs stays in the workspace.

    On a cluster deleting a schedule ends its active runs. If there are some, the schedule is paused instead and the
    command fails.
    """
    with _schedules(workspace, where) as schedules:
        info = schedules.delete(name, now=datetime.now(UTC), end_runs=end_runs)
    if as_json:
        typer.echo(info.schedule.model_dump_json(indent=2))
    else:
        typer.echo(f"schedule {name} is deleted; {'; '.join(info.remaining)}")


@app.command("plan")
@with_zoned_cluster_options
def plan(
    name: Name,
    where: Target,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1000, help="How many fire times.")] = 5,
    workspace: Workspace = WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Print the next fire times with the data window of each, in the schedule's zone and in UTC."""
    with _schedules(workspace, where) as schedules:
        schedule = schedules.get(name).schedule
        print_fire_times(schedules, schedule, next_instants(schedule, count), as_json=as_json)


@app.command("check")
@with_zoned_cluster_options
def check(name: Name, where: Target, workspace: Workspace = WORKSPACE, as_json: AsJson = False) -> None:
    """Check the triggers of a schedule now: what each observes, its threshold, and why it fires or does not.

    This reads the source and trains nothing. A trigger that fires starts a run with the scheduler's next round.
    """
    with _schedules(workspace, where) as schedules:
        result = schedules.check(name, now=datetime.now(UTC))
        schedule = schedules.get(name).schedule
    if as_json:
        typer.echo(result.model_dump_json(indent=2))
        return
    print_check(result)
    if not result.observations:
        typer.echo(f"schedule {name} has no triggers; `rankline schedule update {name} --when …` sets some")
    elif schedule.paused:
        typer.echo(f"schedule {name} is paused: nothing starts before `rankline schedule resume {name}`")


@app.command("simulate")
def simulate(
    years: Annotated[int, typer.Option("--years", min=20, max=20_000, help="Years to simulate for each row.")] = 500,
    events: Annotated[int, typer.Option("--events", min=50, help="Events of a day.")] = 2000,
    false_alarms: Annotated[
        float, typer.Option("--false-alarms", min=0.001, max=0.49, help="The schedule's false_alarms.")
    ] = 0.05,
    spread: Annotated[
        float, typer.Option("--spread", min=0.001, max=0.5, help="Spread of the live metric from day to day.")
    ] = 0.03,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the simulation.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Simulate years of daily checks with weekly seasons: stable ones, and ones with a planted change.

    A stable year counts as a false alarm if drift or decay fires at all. A planted change counts as noticed if it fires
    within 60 days; then its delay is printed, and how often it fires in all with a training after each firing. On two
    cores it takes about a minute.

    Example: rankline schedule simulate --years 500
    """
    from cli.formats import aligned_lines
    from pipelines.schedules.triggers.simulation import Plan, simulate, table

    rows = simulate(Plan(years, events, false_alarms, spread, seed))
    if as_json:
        typer.echo(json.dumps([each._asdict() for each in rows], indent=2))
        return
    typer.echo("\n".join(aligned_lines(table(rows), right=range(1, 6))))


@app.command("backfill")
@with_zoned_cluster_options
def backfill(
    name: Name,
    where: Target,
    start: Annotated[str, typer.Option("--from", help="Start, such as 2026-01-01; without a zone, in the schedule's.")],
    end: Annotated[str, typer.Option("--to", help="End, which is excluded and not in the future.")],
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Concurrent runs.")] = 1,
    allow_older: Annotated[
        bool, typer.Option("--allow-older", help="Let a model replace a champion whose data window ends later.")
    ] = False,
    workspace: Workspace = WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Run past fire times on their own data windows, oldest first. Repeat the command to continue.

    A fire time whose run has ended is left alone. Exit code: 0 every run came to a verdict, refusals included; 1 some
    failed; 130 interrupted: in a workspace the runs end, on a cluster they go on and are joined.

    Example: rankline schedule backfill nightly --from 2026-01-01 --to 2026-02-01 --concurrency 2
    """
    from pipelines.schedules.backfill import BackfillOptions
    from pipelines.schedules.protocol import BackfillInterrupted

    with _schedules(workspace, where) as schedules:
        zone = schedules.get(name).schedule.zone
        options = BackfillOptions(parse_instant(start, zone), parse_instant(end, zone), concurrency, allow_older)
        try:
            results = schedules.backfill(
                name, options, now=datetime.now(UTC), say=lambda line: typer.echo(line, err=as_json)
            )
        except BackfillInterrupted as interruption:
            typer.secho(str(interruption), err=True)
            raise RunContinues(EXIT_INTERRUPTED) from None
    failed = sum(record.failed for record, _ in results)
    if as_json:
        typer.echo(json.dumps([{**record.as_dict(), "what": status} for record, status in results], indent=2))
    else:
        print_tally((status for _, status in results), failed=failed)
    raise typer.Exit(1 if failed else 0)


@contextlib.contextmanager
def _schedules(workspace: Path, where: Target, *, new: bool = False) -> Iterator[Schedules]:
    """The schedules of the place that a command names; a workspace has to exist unless the command creates one."""
    if where:
        from pipelines.kubeflow.schedules import ClusterSchedules

        with contextlib.ExitStack() as stack:
            yield ClusterSchedules(lambda: stack.enter_context(where.connected()), zone=where.zone, poll_s=POLL_S)
    else:
        from pipelines.schedules.local import LocalSchedules

        yield LocalSchedules(workspace if new else require_workspace(workspace))


def _set_paused(name: str, paused: bool, workspace: Path, where: Target, *, as_json: bool) -> None:
    with _schedules(workspace, where) as schedules:
        info = schedules.set_paused(name, paused, now=datetime.now(UTC))
        print_change(info, created=False, as_json=as_json)
