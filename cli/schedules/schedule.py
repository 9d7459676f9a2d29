"""Schedules of a workspace or a cluster: made, looked at, changed, foretold, and run over the past."""

from __future__ import annotations

import functools
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.options import WORKSPACE, AsJson, Workspace, require_workspace
from cli.runs.cluster import Target, with_cluster_options
from cli.schedules import cluster
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
    from pipelines.schedules.firings import Firing, Firings
    from pipelines.schedules.store import LocalSchedules, Schedule

app = typer.Typer(
    help="Run recipes at set times, each on the window of data of that time; `rankline scheduler` begins them or, with "
    "--host, the cluster.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="The schedule's name: small letters, digits, hyphens.")]
Recipe = Annotated[str | None, typer.Option("--recipe", "-r", help="Name of a recipe, or module:function.")]
Source = Annotated[str | None, typer.Option("--source", help="Where the data is, for a recipe of anybody's.")]
Map = Annotated[str | None, typer.Option("--map", help="File that says how to read the source (`rankline init`).")]
Flow = Annotated[
    Literal["train", "refresh", "features"] | None,
    typer.Option(help="What of the recipe is run: train (if not set), features alone, or a refresh of the catalogue."),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", "-s", help="Change one knob: section.knob=value. All of them, each time.")
]
Runner = Annotated[Literal["local", "docker"] | None, typer.Option(help="Where the steps run, as in `rankline run`.")]
Cron = Annotated[
    str | None,
    typer.Option(
        help="When: second, minute, hour, day of the month, month, day of the week; five fields begin with the minute."
    ),
]
SecondsFirst = Annotated[bool, typer.Option("--seconds-first", help="Refuse a cron expression of five fields.")]
Zone = Annotated[
    str | None, typer.Option(help="Time zone of the cron expression, such as Europe/Berlin; UTC if not set.")
]
Window = Annotated[str | None, typer.Option(help="Length of the data window: 30d, 8w, 12h; empty: all up to its end.")]
Lag = Annotated[str | None, typer.Option(help="How long before the scheduled time the window ends, such as 6h.")]
CatchUp = Annotated[
    Literal["coalesce", "all"] | None,
    typer.Option(help="Missed fire times: only the latest runs (coalesce, if not set), or all, oldest first."),
]
CatchUpLimit = Annotated[int | None, typer.Option(help="With all: how many may wait; older ones are passed over (10).")]
MaxRuns = Annotated[int | None, typer.Option(help="Runs of this schedule at once (1).")]
Jitter = Annotated[float | None, typer.Option("--jitter", help="Largest delay of a start, in seconds (0).")]
ScratchEvery = Annotated[
    int | None,
    typer.Option(help="With finetune.warm_start: every how many finished runs one trains from scratch (0: never)."),
]
KeepOption = Annotated[
    str | None,
    typer.Option(
        "--keep", metavar="runs=N,bundles=N,catalogues=N,days=D",
        help='Remove old things after each run, as `rankline gc` would with these; "defaults" takes its own.',
    ),
]  # fmt: skip
Webhook = Annotated[str | None, typer.Option(help="URL that is told of a run that failed.")]
WebhookHeaders = Annotated[
    str | None, typer.Option(metavar="VARIABLE", help="Environment variable with further headers as JSON (secrets).")
]
OnRefusal = Annotated[
    bool | None,
    typer.Option("--webhook-on-refusal/--no-webhook-on-refusal", help="Tell it of a refused model, too."),
]
with_zoned_cluster_options = functools.partial(with_cluster_options, zoned=True)
Experiment = Annotated[
    str | None, typer.Option("--experiment", "-e", help="On a cluster: experiment its runs belong to (rankline).")
]
Account = Annotated[str | None, typer.Option("--service-account", help="On a cluster: account its pods run as.")]


@app.command("create")
@with_zoned_cluster_options
def create(
    name: Name,
    where: Target,
    recipe: Recipe = None,
    cron: Cron = None,
    seconds_first: SecondsFirst = False,
    zone: Zone = None,
    window: Window = None,
    lag: Lag = None,
    source: Source = None,
    map: Map = None,
    flow: Flow = None,
    settings: Settings = None,
    runner: Runner = None,
    catch_up: CatchUp = None,
    catch_up_limit: CatchUpLimit = None,
    max_runs: MaxRuns = None,
    jitter: Jitter = None,
    scratch_every: ScratchEvery = None,
    keep: KeepOption = None,
    webhook: Webhook = None,
    webhook_headers: WebhookHeaders = None,
    webhook_on_refusal: OnRefusal = None,
    paused: Annotated[bool, typer.Option("--paused", help="Begin with nothing.")] = False,
    experiment: Experiment = None,
    account: Account = None,
    workspace: Workspace = WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """A new schedule, checked in every part; its first run is at its next fire time.

    On a cluster the zone is the controller's (--cluster-zone), and settings that a cluster cannot heed are refused.

    Example: rankline schedule create nightly -r mine:mine --cron "0 0 3 * * *" --zone Europe/Berlin --window 90d
    """
    from rankline.errors import UsageError

    if recipe is None or cron is None:
        raise UsageError(
            "a schedule needs a recipe and a time",
            expected="--recipe and --cron",
            found="--recipe alone" if recipe else "--cron alone" if cron else "neither",
            hint='rankline schedule create nightly -r mine:mine --cron "0 0 3 * * *"',
        )
    _save(
        name,
        {
            "flow": flow,
            "name": name, "recipe": recipe, "cron": cron, "zone": zone, "window": window, "lag": lag, "source": source,
            "map": map, "settings": settings, "runner": runner, "catch_up": catch_up, "catch_up_limit": catch_up_limit,
            "max_runs": max_runs, "jitter_s": jitter, "scratch_every": scratch_every, "keep": keep,
            "webhook": webhook, "webhook_headers": webhook_headers,
            "webhook_on_refusal": webhook_on_refusal, "paused": paused,
        },
        workspace, where, new=True, seconds_first=seconds_first, as_json=as_json, experiment=experiment,
        account=account,
    )  # fmt: skip


@app.command("update")
@with_zoned_cluster_options
def update(
    name: Name,
    where: Target,
    recipe: Recipe = None,
    cron: Cron = None,
    seconds_first: SecondsFirst = False,
    zone: Zone = None,
    window: Window = None,
    lag: Lag = None,
    source: Source = None,
    map: Map = None,
    flow: Flow = None,
    settings: Settings = None,
    runner: Runner = None,
    catch_up: CatchUp = None,
    catch_up_limit: CatchUpLimit = None,
    max_runs: MaxRuns = None,
    jitter: Jitter = None,
    scratch_every: ScratchEvery = None,
    keep: KeepOption = None,
    webhook: Webhook = None,
    webhook_headers: WebhookHeaders = None,
    webhook_on_refusal: OnRefusal = None,
    experiment: Experiment = None,
    account: Account = None,
    workspace: Workspace = WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Change what is named here; runs under way go on, and later fire times follow the new rule.

    The folder it is given in becomes the one that relative paths and recipes of your own are looked for in. An empty
    value ("") takes a setting back.

    Example: rankline schedule update nightly --cron "0 0 4 * * *"
    """
    _save(
        name,
        {
            "flow": flow,
            "recipe": recipe, "cron": cron, "zone": zone, "window": window, "lag": lag, "source": source, "map": map,
            "settings": settings, "runner": runner, "catch_up": catch_up, "catch_up_limit": catch_up_limit,
            "max_runs": max_runs, "jitter_s": jitter, "scratch_every": scratch_every, "keep": keep,
            "webhook": webhook, "webhook_headers": webhook_headers,
            "webhook_on_refusal": webhook_on_refusal,
        },
        workspace, where, new=False, seconds_first=seconds_first, as_json=as_json, experiment=experiment,
        account=account,
    )  # fmt: skip


@app.command("list")
@with_zoned_cluster_options
def list_(where: Target, workspace: Workspace = WORKSPACE, as_json: AsJson = False) -> None:
    """Every schedule: when it fires, what it runs, and when next."""
    if where:
        return cluster.list_(where, as_json=as_json)
    from rankline.errors import RanklineError

    store = _schedules(workspace)
    schedules, unreadable = [], {}
    for name in store.names():
        try:
            schedules.append(store.get(name))
        except RanklineError as error:
            unreadable[name] = str(error)
    if as_json:
        payload = [_schedule_payload(store, each) for each in schedules]
        typer.echo(json.dumps([*payload, *({"name": n, "unreadable": why} for n, why in unreadable.items())], indent=2))
        return
    if not schedules and not unreadable:
        typer.echo("no schedules yet; `rankline schedule create` makes one")
        return
    rows = [("schedule", "flow", "cron", "zone", "recipe", "next")]
    for each in schedules:
        first = next(iter(next_instants(each, 1)), None)
        next_text = "paused" if each.paused else local_text(each, first) if first else "never again"
        rows.append((each.name, each.flow, each.cron, each.zone, each.recipe, next_text))
    rows += [(name, "", "", "", "", "unreadable") for name in unreadable]
    print_table(rows)
    for name, why in unreadable.items():
        typer.echo(f"{name}: {why}")


@app.command("show")
@with_zoned_cluster_options
def show(name: Name, where: Target, workspace: Workspace = WORKSPACE, as_json: AsJson = False) -> None:
    """One schedule: its settings, its latest runs, and what was passed over."""
    if where:
        return cluster.show(name, where, as_json=as_json)
    store = _schedules(workspace)
    schedule = store.get(name)
    firings = store.firings(name)
    latest, skipped = firings.all()[-10:], firings.handled()["skipped"][-10:]
    if as_json:
        runs = [
            _firing_payload(firing) | ({"status": "interrupted"} if _is_interrupted(firings, firing) else {})
            for firing in latest
        ]
        typer.echo(json.dumps({**_schedule_payload(store, schedule), "runs": runs, "passed_over": skipped}, indent=2))
        return
    print_settings(schedule)
    for first in next_instants(schedule, 1):
        typer.echo(f"{'next':<16} {'(paused) ' * schedule.paused}{local_text(schedule, first)}")
    if latest:
        typer.echo("")
        header = ("scheduled (UTC)", "kind", "data to (UTC)", "outcome", "run")
        print_table([header, *(
            (utc_text(c.scheduled_at), c.kind, utc_text(c.window_end), _outcome_text(firings, c), c.run) for c in latest
        )])  # fmt: skip
        if latest[-1].failed:
            typer.echo(f"the last one failed: {latest[-1].error}")
    for each in skipped:
        typer.echo(
            f"passed over: {each['count']} from {utc_text(each['first'])} to {utc_text(each['last'])} ({each['why']})"
        )


@app.command("pause")
@with_zoned_cluster_options
def pause(name: Name, where: Target, workspace: Workspace = WORKSPACE, as_json: AsJson = False) -> None:
    """Begin nothing until it is resumed; runs under way go on, and what would have fired meanwhile is not caught up."""
    if where:
        return cluster.pause(name, where, resume=False, as_json=as_json)
    _save(name, {"paused": True}, workspace, where, new=False, as_json=as_json, set_directory=False)


@app.command("resume")
@with_zoned_cluster_options
def resume(name: Name, where: Target, workspace: Workspace = WORKSPACE, as_json: AsJson = False) -> None:
    """Let it fire again, from its next fire time on; what was due before the pause is caught up, too."""
    if where:
        return cluster.pause(name, where, resume=True, as_json=as_json)
    _save(name, {"paused": False}, workspace, where, new=False, as_json=as_json, set_directory=False)


@app.command("delete")
@with_zoned_cluster_options
def delete(
    name: Name,
    where: Target,
    end_runs: Annotated[
        bool, typer.Option("--end-runs", help="On a cluster: let it end runs under way, which deleting does there.")
    ] = False,
    workspace: Workspace = WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Take it away; runs under way go on, and what it ran stays in the workspace.

    On a cluster a schedule takes its runs under way with it: while there are some it is paused instead, and refused.
    """
    if where:
        return cluster.delete(name, where, end_runs=end_runs, as_json=as_json)
    store = _schedules(workspace)
    schedule = store.delete(name, now=datetime.now(UTC))
    if as_json:
        typer.echo(schedule.model_dump_json(indent=2))
    else:
        typer.echo(f"schedule {name} is deleted; what it ran stays in {store.folder / name}")


@app.command("plan")
@with_zoned_cluster_options
def plan(
    name: Name,
    where: Target,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1000, help="How many fire times.")] = 5,
    workspace: Workspace = WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """The next fire times with the data window of each, in the schedule's zone and in UTC."""
    if where:
        return cluster.plan(name, count, where, as_json=as_json)
    schedule = _schedules(workspace).get(name)
    instants = next_instants(schedule, count)
    windows = [schedule.window_of(instant) for instant in instants]
    print_fire_times(
        schedule, instants, windows, [schedule.earliest_start(instant) for instant in instants], as_json=as_json
    )


@app.command("backfill")
@with_zoned_cluster_options
def backfill(
    name: Name,
    where: Target,
    start: Annotated[
        str, typer.Option("--from", help="First moment, such as 2026-01-01; without a zone, the schedule's.")
    ],
    end: Annotated[str, typer.Option("--to", help="End, not included, and not in the future.")],
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Runs at once.")] = 1,
    allow_older: Annotated[
        bool, typer.Option("--allow-older", help="Let a model replace a champion whose data ends later.")
    ] = False,
    workspace: Workspace = WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Run past fire times on their own windows, oldest first; given again, it goes on where it was.

    What came to its end before is left alone, by whatever it was begun. Exit code: 0 every run came to a verdict, be
    it a refusal; 1 some failed; 130 interrupted: here the runs end with it, on a cluster they go on and are joined.

    Example: rankline schedule backfill nightly --from 2026-01-01 --to 2026-02-01 --concurrency 2
    """
    if where:
        return cluster.backfill(
            name, start, end, where, concurrency=concurrency, allow_older=allow_older, as_json=as_json
        )
    from pipelines.schedules.backfill import backfill as run_past

    store = _schedules(workspace)
    zone = store.get(name).zone
    results = run_past(
        store.workspace,
        name,
        start=parse_instant(start, zone),
        end=parse_instant(end, zone),
        concurrency=concurrency,
        allow_older_window=allow_older,
        now=datetime.now(UTC),
        say=lambda line: typer.echo(line, err=as_json),
    )
    failed = sum(each.firing.failed for each in results)
    if as_json:
        typer.echo(json.dumps([{**_firing_payload(each.firing), "what": each.status} for each in results], indent=2))
    else:
        print_tally((each.status for each in results), failed=failed)
    raise typer.Exit(1 if failed else 0)


# -- shared ------------------------------------------------------------------------------------------------


def _schedules(workspace: Path) -> LocalSchedules:
    from pipelines.schedules.store import LocalSchedules

    return LocalSchedules(require_workspace(workspace).resolve())


def _save(
    name: str, values: dict[str, Any], workspace: Path, where: Target, *, new: bool, as_json: bool,
    seconds_first: bool = False, set_directory: bool = True, experiment: str | None = None, account: str | None = None,
) -> None:  # fmt: skip
    """Check what was given, keep it, and say what it comes to."""
    if where:
        return cluster.write(
            name, values, where, new=new, as_json=as_json, seconds_first=seconds_first, experiment=experiment,
            account=account,
        )  # fmt: skip
    if experiment or account:
        from rankline.errors import UsageError

        raise UsageError(
            "a workspace has neither experiments nor service accounts",
            expected="--host, or a kubeconfig's --context, for a cluster's schedule",
            found="--experiment" if experiment else "--service-account",
        )
    from pipelines.recipes import named
    from pipelines.schedules import cron as crons
    from pipelines.schedules.store import LocalSchedules, validate_schedule
    from pipelines.schedules.worker import flow_runner

    store = LocalSchedules(workspace.resolve()) if new else _schedules(workspace)
    current = None if new else store.get(name)
    changes = {key: value for key, value in values.items() if value is not None}
    for key, unset in {"source": None, "map": None, "zone": "UTC"}.items():
        if changes.get(key) == "":
            changes[key] = unset
    if "settings" in changes:
        changes["settings"] = tuple(each for each in changes["settings"] if each)
    if "keep" in changes:
        changes["keep"] = _parse_keep(changes["keep"])
    if set_directory:
        changes["directory"] = str(Path.cwd())
    notes: list[str] = []
    if "cron" in changes or "zone" in changes:
        text = changes.get("cron", current.cron if current else "")
        zone = changes.get("zone", current.zone if current else "UTC")
        found, notes = crons.parse(text, zone, seconds_first=seconds_first)
        changes |= {"cron": found.text, "zone": found.zone}
    now = datetime.now(UTC)
    proposed = validate_schedule((current.model_dump() if current else {}) | changes)
    flow_runner(proposed.flow)
    # a knob that is misspelt is told now and not at three in the night
    recipe = named(proposed.recipe, proposed.run_settings(now), source=proposed.source, map=proposed.map)
    _refuse_scratch_every(proposed.scratch_every, flow=proposed.flow, warm_start=recipe.finetune.warm_start)
    schedule = store.create(changes, now=now) if new else store.update(name, changes, now=now)
    if as_json:
        typer.echo(json.dumps({**_schedule_payload(store, schedule), "notes": notes}, indent=2))
        return
    begins = f"`rankline scheduler -w {workspace}` begins it" if new else ""
    print_schedule(schedule, notes, window_of=schedule.window_of, begins=begins)


def _parse_keep(text: str) -> dict[str, Any] | None:
    """What --keep says: gc's settings, of which those left out are its own; nothing for an empty value."""
    from pydantic import ValidationError

    from pipelines.retention.policy import Keep
    from rankline.errors import UsageError

    if not text:
        return None
    values = dict(part.strip().partition("=")[::2] for part in text.split(",") if part.strip() != "defaults")
    try:
        return Keep(**values).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        setting = ".".join(str(part) for part in first["loc"])
        expected_keys = f"some of {', '.join(Keep.model_fields)}, such as runs=10,days=3"
        raise UsageError(
            f"--keep {'refuses' if setting in Keep.model_fields else 'knows no'} {setting!r}",
            expected=f"{expected_keys}: {first['msg']}" if setting in Keep.model_fields else expected_keys,
            found=text,
            hint="`rankline gc --help` says what each is",
        ) from error


def _refuse_scratch_every(every: int, *, flow: str, warm_start: bool) -> None:
    from rankline.errors import UsageError

    if every and flow != "train":
        raise UsageError(
            f"a schedule of the flow {flow} trains nothing",
            expected="--flow train, where --scratch-every is given",
            found=f"--flow {flow} and --scratch-every {every}",
            hint="leave one of them out, or add --scratch-every 0",
        )
    if every and not warm_start:
        raise UsageError(
            "every run of this schedule trains from scratch already",
            expected="finetune.warm_start=true, where --scratch-every is given",
            found="finetune.warm_start=false",
            hint="add --set finetune.warm_start=true, or --scratch-every 0",
        )


def _schedule_payload(store: LocalSchedules, schedule: Schedule) -> dict[str, Any]:
    instants = [] if schedule.paused else next_instants(schedule, 1)
    next_at = instants[0].isoformat() if instants else None
    return {**schedule.model_dump(mode="json"), "next": next_at, "revisions": len(store.history(schedule.name))}


def _firing_payload(firing: Firing) -> dict[str, Any]:
    names = ("kind", "status", "outcome", "exit_code", "run", "attempts", "revision", "error", "notified")
    return {**firing.trigger, **{name: getattr(firing, name) for name in names}}


def _is_interrupted(firings: Firings, firing: Firing) -> bool:
    """Whether its run was begun and nobody is at work on it."""
    return firing.status == "running" and not firings.is_running(firing.instant)


def _outcome_text(firings: Firings, firing: Firing) -> str:
    """What became of a claim, in words."""
    if firing.outcome or not _is_interrupted(firings, firing):
        return firing.outcome or firing.status
    return f"interrupted (the next {'backfill' if firing.kind == 'backfill' else 'scheduler'} goes on)"
