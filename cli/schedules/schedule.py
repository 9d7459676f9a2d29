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
    print_fire_times,
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

    On a cluster the time zone is that of its controller (--cluster-zone), and settings that a cluster does not support
    are refused.

    Example: rankline schedule create nightly -r mine:mine --cron "0 0 3 * * *" --zone Europe/Berlin --window 90d
    """
    from rankline.errors import UsageError

    if options.recipe is None or options.cron is None:
        raise UsageError(
            "a schedule needs a recipe and a time",
            expected="--recipe and --cron",
            found="--recipe alone" if options.recipe else "--cron alone" if options.cron else "neither",
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
    if as_json:
        runs = [each.as_dict() for each in records]
        typer.echo(json.dumps({**schedule_payload(info), "runs": runs, "passed_over": skipped}, indent=2))
        return
    print_schedule(schedules, info, records)
    for each in skipped or ():
        period = f"from {utc_text(each['first'])} to {utc_text(each['last'])}"
        typer.echo(f"skipped: {each['count']} {period} ({each['why']})")
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
