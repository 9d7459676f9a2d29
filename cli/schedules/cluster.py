"""The verbs of `rankline schedule` where a cluster keeps the schedules: same words, same columns, same JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from cli.runs.cluster import INTERRUPTED, POLL_S, GoesOn, Where
from cli.schedules.tables import announce, fires, local, moment_of, plan_table, settings_of, short, table, tally

if TYPE_CHECKING:
    from pipelines.kubeflow.schedules import Told


def write(
    name: str, values: dict[str, Any], where: Where, *, new: bool, as_json: bool, seconds_first: bool,
    experiment: str | None, account: str | None,
) -> None:  # fmt: skip
    """Create or change one, checked before the cluster is asked for anything."""
    from pipelines.kubeflow import schedules
    from pipelines.schedules import cron as crons

    changes = {key: value for key, value in values.items() if value is not None}
    schedules.refuse_unheeded(changes)
    if "settings" in changes:
        changes["settings"] = tuple(each for each in changes["settings"] if each)
    _zone(changes.pop("zone", None), where)
    notes: list[str] = []
    if "cron" in changes:
        found, notes = crons.parse(changes["cron"], where.zone, seconds_first=seconds_first)
        changes["cron"] = found.text
    changes["zone"] = where.zone
    notes.append(zone_note(where.zone))
    if changes.get("map"):
        notes.append("the map is read now; a later change of it takes `rankline schedule update`")
    now = datetime.now(UTC)
    with where.connected() as cluster:
        if new:
            from pipelines.kubeflow.runs import EXPERIMENT

            told = schedules.create(
                cluster, changes, experiment=experiment or EXPERIMENT, account=account or "", now=now
            )
        else:
            told = schedules.update(cluster, name, changes, experiment=experiment, account=account, now=now)
    _say(told, notes, as_json=as_json, new=new)


def zone_note(zone: str) -> str:
    """What is to be known of a cluster's time zone."""
    return (
        f"the cluster fires by the clock of its controller, taken for {zone}: the API does not tell it. "
        "Where CRON_SCHEDULE_TIMEZONE says otherwise there, set RANKLINE_KFP_ZONE to that"
    )


def _zone(asked: str | None, where: Where) -> None:
    from rankline.errors import UsageError

    if asked and asked != where.zone:
        raise UsageError(
            "a cluster has one time zone for all its schedules",
            expected=f"{where.zone}, or the cron expression in it",
            found=f"--zone {asked}",
            hint=f"where the cluster's controller keeps that zone (CRON_SCHEDULE_TIMEZONE): --cluster-zone {asked}",
        )


def _say(told: Told, notes: list[str], *, as_json: bool, new: bool) -> None:
    schedule = told.schedule
    if as_json:
        typer.echo(json.dumps({**as_told(told), "notes": notes}, indent=2))
        return
    announce(schedule, notes, window_of=told.window_of, begins=f"the cluster begins it: {told.kept.url}" if new else "")
    for each in told.left:
        typer.echo(f"  {each.id} stays, disabled, until its runs have ended; the next change or `delete` takes it away")


def list_(where: Where, *, as_json: bool) -> None:
    """Every schedule of the cluster that is ours."""
    from pipelines.kubeflow import schedules

    with where.connected() as cluster:
        found = schedules.all_of(cluster)
    if as_json:
        typer.echo(json.dumps([as_told(told) if told else unknown(kept) for kept, told in found], indent=2))
        return
    if not found:
        typer.echo("no schedules yet; `rankline schedule create` makes one")
        return
    rows: list[tuple[str, ...]] = [("schedule", "flow", "cron", "zone", "recipe", "next")]
    for kept, told in found:
        if told is None:
            rows.append((kept.name, kept.flow, kept.cron, "?", kept.recipe, "not made by `rankline schedule`"))
            continue
        first = next(iter(fires(told.schedule, 1)), None)
        coming = "paused" if told.schedule.paused else local(told.schedule, first) if first else "never again"
        schedule = told.schedule
        rows.append((kept.name, schedule.flow, schedule.cron, schedule.zone, schedule.recipe, coming))
    table(rows)


def show(name: str, where: Where, *, as_json: bool) -> None:
    """One schedule of the cluster, and its latest runs."""
    from pipelines.kubeflow import schedules

    with where.connected() as cluster:
        told = schedules.get(cluster, name)
        runs = schedules.fired(cluster, told)
    schedule = told.schedule
    if as_json:
        typer.echo(json.dumps({**as_told(told), "runs": runs, "passed_over": None}, indent=2))
        return
    settings_of(schedule, without=schedules.WHY)
    typer.echo(f"{'experiment':<16} {told.experiment}")
    if told.account:
        typer.echo(f"{'account':<16} {told.account}")
    for first in fires(told.schedule, 1):
        typer.echo(f"{'next':<16} {'(paused) ' * schedule.paused}{local(told.schedule, first)}")
    typer.echo(f"{'page':<16} {told.kept.url}")
    if runs:
        typer.echo("")
        header = ("scheduled (UTC)", "kind", "data to (UTC)", "outcome", "run")
        table([header, *(
            (short(r["scheduled_at"]), r["kind"], short(r["window_end"]), r["outcome"] or r["status"], r["run"])
            for r in runs
        )])  # fmt: skip
        if runs[-1]["error"]:
            typer.echo(f"the last one failed: {runs[-1]['error']}")
    typer.echo(f"note: {zone_note(schedule.zone)}; what was passed over it does not tell either")


def pause(name: str, where: Where, *, resume: bool, as_json: bool) -> None:
    """Begin nothing, or begin again."""
    from pipelines.kubeflow import recurring_runs, schedules

    with where.connected() as cluster:
        before = schedules.get(cluster, name)
        (recurring_runs.resume if resume else recurring_runs.pause)(cluster, name)
        told = schedules.get(cluster, name)
    notes = []
    if resume and before.schedule.paused and told.schedule.catch_up == "all":
        notes.append("with --catch-up all a cluster makes up for what fell into the pause, too")
    _say(told, notes, as_json=as_json, new=False)


def delete(name: str, where: Where, *, end_runs: bool, as_json: bool) -> None:
    """Take it away, with all that changes have left of it."""
    from pipelines.kubeflow import recurring_runs, schedules

    with where.connected() as cluster:
        told = schedules.get(cluster, name)
        recurring_runs.delete(cluster, name, with_runs=end_runs)
    if as_json:
        typer.echo(told.schedule.model_copy(update={"deleted": True}).model_dump_json(indent=2))
    else:
        typer.echo(f"schedule {name} is deleted; its runs stay on the cluster, in experiment {told.experiment}")


def plan(name: str, count: int, where: Where, *, as_json: bool) -> None:
    """The next fire times with the data window of each."""
    from pipelines.kubeflow import schedules

    with where.connected() as cluster:
        told = schedules.get(cluster, name)
    schedule, moments = told.schedule, fires(told.schedule, count)
    windows = [told.window_of(at) for at in moments]
    plan_table(schedule, moments, windows, moments, as_json=as_json)
    if not as_json:
        typer.echo(f"note: {zone_note(schedule.zone)}")


def backfill(
    name: str, start: str, end: str, where: Where, *, concurrency: int, allow_older: bool, as_json: bool
) -> None:
    """Run past fire times on the cluster, so many at once."""
    from pipelines.kubeflow import schedules

    with where.connected() as cluster:
        told = schedules.get(cluster, name)
        filling = schedules.Backfill(
            cluster, told, concurrency=concurrency, allow_older_window=allow_older, poll_s=POLL_S
        )
        zone = told.schedule.zone
        moments = filling.moments(start=moment_of(start, zone), end=moment_of(end, zone), now=datetime.now(UTC))
        try:
            filled = filling.fill(moments, say=lambda line: typer.echo(line, err=as_json))
        except KeyboardInterrupt:
            runs = ", ".join(filling.under_way.values()) or "none"
            typer.secho(f"interrupted; runs under way go on ({runs}); given again, this command joins them", err=True)
            raise GoesOn(INTERRUPTED) from None
    failed = sum(each["exit_code"] not in (None, 0, 3) for each in filled)
    if as_json:
        typer.echo(json.dumps(filled, indent=2))
    else:
        tally((each["what"] for each in filled), failed=failed)
    raise typer.Exit(1 if failed else 0)


def as_told(told: Told) -> dict[str, Any]:
    """A schedule as a workspace tells it, and what the cluster keeps of it beside."""
    moments = [] if told.schedule.paused else fires(told.schedule, 1)
    return {
        **told.schedule.model_dump(mode="json"),
        "next": moments[0].isoformat() if moments else None,
        "revisions": told.schedule.revision,
        "experiment": told.experiment,
        "account": told.account,
        "recurring_run": told.kept.id,
        "url": told.kept.url,
    }


def unknown(kept: Any) -> dict[str, Any]:
    """A recurring run of which nobody knows what it was made of."""
    known = {"name": kept.name, "flow": kept.flow, "cron": kept.cron, "recipe": kept.recipe}
    return {**known, "paused": not kept.enabled, "max_runs": kept.at_once, "recurring_run": kept.id, "url": kept.url}
