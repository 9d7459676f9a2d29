"""Make MLflow show what the model registry says, and send what was not delivered."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import WORKSPACE, AsJson, ReadWorkspace, RepositoryUrl, Settings

if TYPE_CHECKING:
    from pipelines.recipe import Recipe
    from rankline.announcer import Announcer
    from rankline.mirror.sync import Change, Synced
    from rankline.notifications.notify import Resent
    from rankline.registry.model_registry import ModelRegistry


def sync(
    recipe: Annotated[
        str, typer.Option("--recipe", "-r", help="Recipe with the settings of MLflow. Default: that of the newest run.")
    ] = "",
    settings: Settings = [],  # noqa: B006 (typer does not change a default)
    workspace: ReadWorkspace = WORKSPACE,
    repository: RepositoryUrl = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what differs, and change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make MLflow show what the model registry says, and send the notifications that were not delivered.

    Every candidate, refused ones too, has a run and a model version in MLflow. The alias `champion` names the version
    that serves, `candidate` the newest one that waits for a reviewer. What is missing or points elsewhere is repaired;
    a second sync changes nothing. Run it after MLflow was down, or from cron.

    The settings are those of the newest run in the workspace, or of --recipe.

    Example: rankline sync --dry-run
    """
    from cli.bucket_copy import bucket_of
    from pipelines.recipe import run_context
    from rankline.notifications.notify import Resent, resend
    from rankline.registry.model_registry import ModelRegistry

    if (copied := bucket_of(workspace)) is not None:
        copied.download("runs")
    workspace = workspace.resolve()
    context = run_context(_recipe(recipe, settings, workspace), workspace)
    models = ModelRegistry(repository or (f"{copied.url}/repository" if copied else context.repository))
    models.history()  # an unreadable registry is not MLflow's fault
    workspace.mkdir(parents=True, exist_ok=True)
    announcer = dataclasses.replace(context.announcer, bucket=copied or context.bucket)
    resent = Resent() if dry_run else resend(announcer.notify, workspace=workspace, bucket=announcer.bucket)
    synced = _sync(models, announcer, dry_run=dry_run, shows_changes=not as_json)
    if as_json:
        payload = {**dataclasses.asdict(synced), "notifications": dataclasses.asdict(resent)}
        typer.echo(json.dumps(payload, indent=2))
    else:
        _print_totals(synced, resent, dry_run=dry_run)
    if synced.problems or resent.problems:
        raise typer.Exit(1)


def mirror(
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="As of `rankline sync`.")] = "",
    settings: Settings = [],  # noqa: B006 (typer does not change a default)
    workspace: ReadWorkspace = WORKSPACE,
    repository: RepositoryUrl = "",
    as_json: AsJson = False,
) -> None:
    """The earlier name of `rankline sync`."""
    typer.secho("`rankline mirror` is now called `rankline sync`", fg=typer.colors.YELLOW, err=True)
    sync(recipe, settings, workspace, repository, as_json=as_json)


def _recipe(name: str, settings: list[str], workspace: Path) -> Recipe:
    """The recipe of this name, or of the newest run, with some settings changed."""
    from pipelines.overrides import change
    from pipelines.recipes import named
    from pipelines.runs.announcing import recorded_recipe
    from rankline.errors import UsageError

    if name:
        return named(name, settings)
    recorded = recorded_recipe(workspace)
    if recorded is None:
        raise UsageError(
            "nothing here says where MLflow is",
            expected="a workspace in which a run has recorded its recipe, or --recipe",
            found="no run",
            where=str(workspace),
            hint="rankline sync --recipe NAME, or -w FOLDER of the runs",
        )
    return change(recorded, settings)


def _sync(models: ModelRegistry, announcer: Announcer, *, dry_run: bool, shows_changes: bool) -> Synced:
    """Sync with MLflow, which has one error for all of its own."""
    from rankline.errors import StorageError
    from rankline.io.files import first_line
    from rankline.mirror.sync import Synced, sync

    config = announcer.tracking
    if announcer.bucket is not None and not config.tracking_uri:  # a database file in a bucket is none
        return Synced(uri="", problems=["a workspace in a bucket has no MLflow; promote.tracking_uri names one"])

    def show(change: Change) -> None:
        if shows_changes:
            typer.echo(str(change))

    try:
        return sync(
            models, config=config, workspace=announcer.workspace, bucket=announcer.bucket, dry_run=dry_run, notice=show
        )  # fmt: skip
    except Exception as error:  # MLflow and its database drivers each have their own errors
        raise StorageError(
            "MLflow cannot be written",
            expected="a server or database that answers",
            found=f"{type(error).__name__}: {first_line(error)}",
            where=config.uri_in(str(announcer.workspace)),
            hint="run this again when MLflow is up; the model registry keeps the events",
        ) from error


def _print_totals(synced: Synced, resent: Resent, *, dry_run: bool) -> None:
    lines: list[tuple[str, Any]] = []
    if synced.uri:
        verb = "differ" if dry_run else "changed"
        lines.append((f"{synced.models} candidates compared with MLflow; {len(synced.changes)} {verb}", None))
    if resent.delivered or resent.waiting:
        waiting = f", {resent.waiting} wait for a receiver that this recipe does not name" if resent.waiting else ""
        lines.append((f"{resent.delivered} notifications delivered{waiting}", None))
    lines += [(f"warning: {problem}", typer.colors.YELLOW) for problem in (*synced.problems, *resent.problems)]
    for line, color in lines:
        typer.secho(line, fg=color, err=color is not None)
