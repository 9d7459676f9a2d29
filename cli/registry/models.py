"""Look into the model repository: who serves, and how it came to that."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from cli.options import WORKSPACE, AsJson, RecipeName, RepositoryUrl, Settings, Workspace, existing

if TYPE_CHECKING:
    from rankline.registry.registry_state import Event

CHAMPION_HELP = "Which model serves, over which catalogue, since when, and why; how many items are hidden."
MIRROR_HELP = "Show in MLflow what promotions it lacks, such as those made while it was down."
HISTORY_HELP = "Every event of the model repository, oldest first."


def champion(workspace: Workspace = WORKSPACE, repository: RepositoryUrl = "", as_json: AsJson = False) -> None:
    """See CHAMPION_HELP."""
    from rankline.errors import UsageError
    from rankline.registry.model_registry import Repository

    place = repository or str(existing(workspace) / "repository")
    models = Repository(place)
    pointer = models.pointer()
    if pointer is None:
        raise UsageError(
            "no model has been promoted yet",
            expected="a promoted model",
            where=place,
            hint="`rankline run --recipe …` trains one, and promotes it where it is good enough",
        )
    serving, history = pointer.model_id, models.history()
    event = history[pointer.event - 1]
    published = history[pointer.published - 1] if pointer.published else None
    revision = models.revision(serving)
    if as_json:
        catalogue = {"revision": revision, "published": published.model_dump(mode="json") if published else None}
        told = {**event.model_dump(mode="json"), "catalogue": catalogue, "hidden": list(pointer.hidden)}
        typer.echo(json.dumps(told, indent=2))
        return
    typer.echo(f"{serving}\n  {event.kind} {event.at} by {event.who} (event {event.n}, run {event.run_id})")
    typer.echo(f"  {event.why}")
    if published:
        typer.echo(f"  catalogue: {revision}, published {published.at} by {published.who}: {published.why}")
    else:
        typer.echo(f"  catalogue: {revision}, the bundle's own")
    if pointer.hidden:
        typer.echo(f"  hidden: {len(pointer.hidden)} items (`rankline items list`)")
    typer.echo(f"  bundle: {place}/bundles/{serving}")


def history(workspace: Workspace = WORKSPACE, repository: RepositoryUrl = "", as_json: AsJson = False) -> None:
    """See HISTORY_HELP."""
    from rankline.registry.model_registry import Repository

    events = Repository(repository or existing(workspace) / "repository").history()
    if as_json:
        typer.echo(json.dumps([json.loads(event.model_dump_json()) for event in events], indent=2))
        return
    if not events:
        typer.echo("no events yet; `rankline demo` makes some")
    for event in events:
        typer.echo(f"{event.n:>4}  {event.at:<27}  {event.kind:<12} {_about(event)}  {event.why}")


def _about(event: Event) -> str:
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
    from components.promote.mirror import catch_up
    from pipelines.recipes import kept, named
    from rankline.errors import StorageError
    from rankline.registry.model_registry import Repository

    workspace = workspace.resolve()
    chosen = named(recipe, settings)
    told = kept(chosen, str(workspace)).get("storage", {}).get("repository", "")
    models = Repository(repository or told or workspace / "repository")
    models.history()  # a repository that cannot be read is no fault of MLflow's
    workspace.mkdir(parents=True, exist_ok=True)
    try:
        shown = catch_up(models, config=chosen.promote, workspace=workspace)
    except Exception as error:  # MLflow and its databases each have their own
        raise StorageError(
            "MLflow cannot be written",
            expected="a server or database that answers",
            found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            where=chosen.promote.tracking_uri or str(workspace / "mlflow.db"),
            hint="run it again when MLflow is up; the events are kept in the model repository",
        ) from error
    if as_json:
        typer.echo(json.dumps(shown, indent=2))
        return
    for each in shown:
        typer.echo(f"event {each['event']}: model {each['model_id']} is version {each['version']}")
    typer.echo(f"{len(shown)} promotions are in MLflow" if shown else "no promotions yet; nothing to show")
