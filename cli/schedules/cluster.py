"""The verbs of `rankline schedule` where a cluster keeps the schedules: same words, same columns, same JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from cli.runs.cluster import INTERRUPTED, POLL_S, RunContinues, Target
from cli.schedules.tables import (
    local_text,
    next_instants,
    parse_instant,
    print_fire_times,
    print_schedule,
    print_settings,
    print_table,
    print_tally,
    utc_text,
)

if TYPE_CHECKING:
    from pipelines.kubeflow.schedules import ClusterSchedule


def write(
    name: str, values: dict[str, Any], where: Target, *, new: bool, as_json: bool, seconds_first: bool,
    experiment: str | None, account: str | None,
) -> None:  # fmt: skip
    """Create or change one, checked before the cluster is asked for anything."""
    from pipelines.kubeflow import schedules
    from pipelines.schedules import cron as crons

    changes = {key: value for key, value in values.items() if value is not None}
    schedules.refuse_unsupported(changes)
    if "settings" in changes:
        changes["settings"] = tuple(each for each in changes["settings"] if each)
    _check_zone(changes.pop("zone", None), where)
    notes: list[str] = []
    if "cron" in changes:
        parsed, notes = crons.parse(changes["cron"], where.zone, seconds_first=seconds_first)
        changes["cron"] = parsed.text
    changes["zone"] = where.zone
    notes.append(time_zone_note(where.zone))
    if changes.get("map"):
        notes.append("the map is read now; a later change of it takes `rankline schedule update`")
    now = datetime.now(UTC)
    with where.connected() as cluster:
        if new:
            from pipelines.kubeflow.runs import DEFAULT_EXPERIMENT

            entry = schedules.create(
                cluster, changes, experiment=experiment or DEFAULT_EXPERIMENT, account=account or "", now=now
            )
        else:
            entry = schedules.update(cluster, name, changes, experiment=experiment, account=account, now=now)
    _print_result(entry, notes, as_json=as_json, new=new)


def time_zone_note(zone: str) -> str:
    """What is to be known of a cluster's time zone."""
    return (
        f"the cluster fires by the clock of its controller, taken for {zone}: the API does not tell it. "
        "Where CRON_SCHEDULE_TIMEZONE says otherwise there, set RANKLINE_KFP_ZONE to that"
    )


def _check_zone(requested: str | None, where: Target) -> None:
    from rankline.errors import UsageError

    if requested and requested != where.zone:
        raise UsageError(
            "a cluster has one time zone for all its schedules",
            expected=f"{where.zone}, or the cron expression in it",
            found=f"--zone {requested}",
            hint=f"where the cluster's controller keeps that zone (CRON_SCHEDULE_TIMEZONE): --cluster-zone {requested}",
        )


def _print_result(entry: ClusterSchedule, notes: list[str], *, as_json: bool, new: bool) -> None:
    schedule = entry.schedule
    if as_json:
        typer.echo(json.dumps({**schedule_payload(entry), "notes": notes}, indent=2))
        return
    print_schedule(
        schedule,
        notes,
        window_of=entry.window_of,
        begins=f"the cluster begins it: {entry.recurring_run.url}" if new else "",
    )
    for each in entry.superseded:
        typer.echo(f"  {each.id} stays, disabled, until its runs have ended; the next change or `delete` takes it away")


def list_(where: Target, *, as_json: bool) -> None:
    """Every schedule of the cluster that is ours."""
    from pipelines.kubeflow import schedules

    with where.connected() as cluster:
        entries = schedules.list_schedules(cluster)
    if as_json:
        typer.echo(
            json.dumps(
                [
                    schedule_payload(entry) if entry else unknown_payload(recurring_run)
                    for recurring_run, entry in entries
                ],
                indent=2,
            )
        )
        return
    if not entries:
        typer.echo("no schedules yet; `rankline schedule create` makes one")
        return
    rows: list[tuple[str, ...]] = [("schedule", "flow", "cron", "zone", "recipe", "next")]
    for recurring_run, entry in entries:
        if entry is None:
            rows.append(
                (
                    recurring_run.name,
                    recurring_run.flow,
                    recurring_run.cron,
                    "?",
                    recurring_run.recipe,
                    "not made by `rankline schedule`",
                )
            )
            continue
        first = next(iter(next_instants(entry.schedule, 1)), None)
        next_text = "paused" if entry.schedule.paused else local_text(entry.schedule, first) if first else "never again"
        schedule = entry.schedule
        rows.append((recurring_run.name, schedule.flow, schedule.cron, schedule.zone, schedule.recipe, next_text))
    print_table(rows)


def show(name: str, where: Target, *, as_json: bool) -> None:
    """One schedule of the cluster, and its latest runs."""
    from pipelines.kubeflow import schedules

    with where.connected() as cluster:
        entry = schedules.get(cluster, name)
        runs = schedules.list_firings(cluster, entry)
    schedule = entry.schedule
    if as_json:
        typer.echo(json.dumps({**schedule_payload(entry), "runs": runs, "passed_over": None}, indent=2))
        return
    print_settings(schedule, without=schedules.UNSUPPORTED_REASONS)
    typer.echo(f"{'experiment':<16} {entry.experiment}")
    if entry.account:
        typer.echo(f"{'account':<16} {entry.account}")
    for first in next_instants(entry.schedule, 1):
        typer.echo(f"{'next':<16} {'(paused) ' * schedule.paused}{local_text(entry.schedule, first)}")
    typer.echo(f"{'page':<16} {entry.recurring_run.url}")
    if runs:
        typer.echo("")
        header = ("scheduled (UTC)", "kind", "data to (UTC)", "outcome", "run")
        print_table([header, *(
            (utc_text(r["scheduled_at"]), r["kind"], utc_text(r["window_end"]), r["outcome"] or r["status"], r["run"])
            for r in runs
        )])  # fmt: skip
        if runs[-1]["error"]:
            typer.echo(f"the last one failed: {runs[-1]['error']}")
    typer.echo(f"note: {time_zone_note(schedule.zone)}; what was passed over it does not tell either")


def pause(name: str, where: Target, *, resume: bool, as_json: bool) -> None:
    """Begin nothing, or begin again."""
    from pipelines.kubeflow import recurring_runs, schedules

    with where.connected() as cluster:
        before = schedules.get(cluster, name)
        (recurring_runs.resume if resume else recurring_runs.pause)(cluster, name)
        entry = schedules.get(cluster, name)
    notes = []
    if resume and before.schedule.paused and entry.schedule.catch_up == "all":
        notes.append("with --catch-up all a cluster makes up for what fell into the pause, too")
    _print_result(entry, notes, as_json=as_json, new=False)


def delete(name: str, where: Target, *, end_runs: bool, as_json: bool) -> None:
    """Take it away, with all that changes have left of it."""
    from pipelines.kubeflow import recurring_runs, schedules

    with where.connected() as cluster:
        entry = schedules.get(cluster, name)
        recurring_runs.delete(cluster, name, with_runs=end_runs)
    if as_json:
        typer.echo(entry.schedule.model_copy(update={"deleted": True}).model_dump_json(indent=2))
    else:
        typer.echo(f"schedule {name} is deleted; its runs stay on the cluster, in experiment {entry.experiment}")


def plan(name: str, count: int, where: Target, *, as_json: bool) -> None:
    """The next fire times with the data window of each."""
    from pipelines.kubeflow import schedules

    with where.connected() as cluster:
        entry = schedules.get(cluster, name)
    schedule, instants = entry.schedule, next_instants(entry.schedule, count)
    windows = [entry.window_of(instant) for instant in instants]
    print_fire_times(schedule, instants, windows, instants, as_json=as_json)
    if not as_json:
        typer.echo(f"note: {time_zone_note(schedule.zone)}")


def backfill(
    name: str, start: str, end: str, where: Target, *, concurrency: int, allow_older: bool, as_json: bool
) -> None:
    """Run past fire times on the cluster, so many at once."""
    from pipelines.kubeflow import schedules

    with where.connected() as cluster:
        entry = schedules.get(cluster, name)
        job = schedules.ClusterBackfill(
            cluster, entry, concurrency=concurrency, allow_older_window=allow_older, poll_s=POLL_S
        )
        zone = entry.schedule.zone
        moments = job.firing_times(
            start=parse_instant(start, zone), end=parse_instant(end, zone), now=datetime.now(UTC)
        )
        try:
            results = job.run(moments, say=lambda line: typer.echo(line, err=as_json))
        except KeyboardInterrupt:
            runs = ", ".join(job.running.values()) or "none"
            typer.secho(f"interrupted; runs under way go on ({runs}); given again, this command joins them", err=True)
            raise RunContinues(INTERRUPTED) from None
    failed = sum(each["exit_code"] not in (None, 0, 3) for each in results)
    if as_json:
        typer.echo(json.dumps(results, indent=2))
    else:
        print_tally((each["what"] for each in results), failed=failed)
    raise typer.Exit(1 if failed else 0)


def schedule_payload(entry: ClusterSchedule) -> dict[str, Any]:
    """A schedule as a workspace tells it, and what the cluster keeps of it beside."""
    instants = [] if entry.schedule.paused else next_instants(entry.schedule, 1)
    return {
        **entry.schedule.model_dump(mode="json"),
        "next": instants[0].isoformat() if instants else None,
        "revisions": entry.schedule.revision,
        "experiment": entry.experiment,
        "account": entry.account,
        "recurring_run": entry.recurring_run.id,
        "url": entry.recurring_run.url,
    }


def unknown_payload(recurring_run: Any) -> dict[str, Any]:
    """A recurring run of which nobody knows what it was made of."""
    known = {
        "name": recurring_run.name,
        "flow": recurring_run.flow,
        "cron": recurring_run.cron,
        "recipe": recurring_run.recipe,
    }
    return {
        **known,
        "paused": not recurring_run.enabled,
        "max_runs": recurring_run.max_concurrency,
        "recurring_run": recurring_run.id,
        "url": recurring_run.url,
    }
