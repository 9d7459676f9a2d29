"""Look into the model repository: who serves, and how it came to that."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from cli.options import (
    WORKSPACE,
    AsJson,
    RecipeName,
    RepositoryUrl,
    Settings,
    Workspace,
    require_workspace,
)

if TYPE_CHECKING:
    from rankline.registry.registry_state import Event

CHAMPION_HELP = "Which model serves, over which catalogue, since when, and why; how many items are hidden."
MIRROR_HELP = "Show in MLflow what promotions it lacks, such as those made while it was down."
HISTORY_HELP = "Every event of the model repository, oldest first."


def champion(workspace: Workspace = WORKSPACE, repository: RepositoryUrl = "", as_json: AsJson = False) -> None:
    """See CHAMPION_HELP."""
    from rankline.errors import UsageError
    from rankline.registry.model_registry import ModelRegistry

    root = repository or str(require_workspace(workspace) / "repository")
    registry = ModelRegistry(root)
    champion_record = registry.champion_record()
    if champion_record is None:
        raise UsageError(
            "no model has been promoted yet",
            expected="a promoted model",
            where=root,
            hint="`rankline run --recipe …` trains one, and promotes it where it is good enough",
        )
    model_id, history = champion_record.model_id, registry.history()
    event = history[champion_record.event - 1]
    published = history[champion_record.published - 1] if champion_record.published else None
    revision = registry.revision(model_id)
    if as_json:
        catalogue = {"revision": revision, "published": published.model_dump(mode="json") if published else None}
        payload = {**event.model_dump(mode="json"), "catalogue": catalogue, "hidden": list(champion_record.hidden)}
        typer.echo(json.dumps(payload, indent=2))
        return
    typer.echo(f"{model_id}\n  {event.kind} {event.at} by {event.who} (event {event.n}, run {event.run_id})")
    typer.echo(f"  {event.why}")
    if published:
        typer.echo(f"  catalogue: {revision}, published {published.at} by {published.who}: {published.why}")
    else:
        typer.echo(f"  catalogue: {revision}, the bundle's own")
    if champion_record.hidden:
        typer.echo(f"  hidden: {len(champion_record.hidden)} items (`rankline items list`)")
    typer.echo(f"  bundle: {root}/bundles/{model_id}")


def history(workspace: Workspace = WORKSPACE, repository: RepositoryUrl = "", as_json: AsJson = False) -> None:
    """See HISTORY_HELP."""
    from rankline.registry.model_registry import ModelRegistry

    events = ModelRegistry(repository or require_workspace(workspace) / "repository").history()
    if as_json:
        typer.echo(json.dumps([json.loads(event.model_dump_json()) for event in events], indent=2))
        return
    if not events:
        typer.echo("no events yet; `rankline demo` makes some")
    for event in events:
        typer.echo(f"{event.n:>4}  {event.at:<27}  {event.kind:<12} {_event_subject(event)}  {event.why}")


def _event_subject(event: Event) -> str:
    """What an event happened to: a model, its catalogue, or items."""
    from rankline.registry.registry_state import PUBLISHING, TAKEDOWNS

    if event.kind in TAKEDOWNS:
        items = event.details["items"]
        return ", ".join(items[:5]) + (f" and {len(items) - 5} more" if len(items) > 5 else "")
    return f"{event.model_id} {event.digests['catalogue']}" if event.kind == PUBLISHING else event.model_id


def mirror(
    recipe: RecipeName = "movielens",
    settings: Settings = [],  # noqa: B006 (typer reads the default, nobody changes it)
    workspace: Workspace = WORKSPACE,
    repository: RepositoryUrl = "",
    as_json: AsJson = False,
) -> None:
    """See MIRROR_HELP."""
    from components.promote.mirror import mirror_all
    from pipelines.recipe import storage_settings
    from pipelines.recipes import named
    from rankline.errors import StorageError
    from rankline.registry.model_registry import ModelRegistry

    workspace = workspace.resolve()
    chosen = named(recipe, settings)
    configured = storage_settings(chosen, str(workspace)).get("storage", {}).get("repository", "")
    registry = ModelRegistry(repository or configured or workspace / "repository")
    registry.history()  # a repository that cannot be read is no fault of MLflow's
    workspace.mkdir(parents=True, exist_ok=True)
    try:
        versions = mirror_all(registry, config=chosen.promote, workspace=workspace)
    except Exception as error:  # MLflow and its databases each have their own
        raise StorageError(
            "MLflow cannot be written",
            expected="a server or database that answers",
            found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            where=chosen.promote.tracking_uri or str(workspace / "mlflow.db"),
            hint="run it again when MLflow is up; the events are kept in the model repository",
        ) from error
    if as_json:
        typer.echo(json.dumps(versions, indent=2))
        return
    for each in versions:
        typer.echo(f"event {each['event']}: model {each['model_id']} is version {each['version']}")
    typer.echo(f"{len(versions)} promotions are in MLflow" if versions else "no promotions yet; nothing to show")
