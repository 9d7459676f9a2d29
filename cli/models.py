"""Look into the model repository: who serves, and how it came to that."""

from __future__ import annotations

import json

import typer

from cli.options import WORKSPACE, AsJson, RecipeName, RepositoryUrl, Settings, Workspace, existing

CHAMPION_HELP = "Which model serves, since when, and why."
MIRROR_HELP = "Show in MLflow what promotions it lacks, such as those made while it was down."
HISTORY_HELP = "Every event of the model repository, oldest first."


def champion(workspace: Workspace = WORKSPACE, repository: RepositoryUrl = "", as_json: AsJson = False) -> None:
    """See CHAMPION_HELP."""
    from rankline.errors import RepositoryError
    from rankline.repository import Repository

    place = repository or str(existing(workspace) / "repository")
    models = Repository(place)
    serving = models.champion()
    if not serving:
        raise RepositoryError(
            "no model has been promoted yet",
            expected="a promoted model",
            where=place,
            hint="`rankline demo` makes one",
        )
    event = [e for e in models.history() if e.model_id == serving and e.kind in ("promoted", "rolled_back")][-1]
    if as_json:
        typer.echo(event.model_dump_json(indent=2))
        return
    typer.echo(f"{serving}\n  {event.kind} {event.at} by {event.who} (event {event.n}, run {event.run_id})")
    typer.echo(f"  {event.why}\n  bundle: {place}/bundles/{serving}")


def history(workspace: Workspace = WORKSPACE, repository: RepositoryUrl = "", as_json: AsJson = False) -> None:
    """See HISTORY_HELP."""
    from rankline.repository import Repository

    events = Repository(repository or existing(workspace) / "repository").history()
    if as_json:
        typer.echo(json.dumps([json.loads(event.model_dump_json()) for event in events], indent=2))
        return
    if not events:
        typer.echo("no events yet; `rankline demo` makes some")
    for event in events:
        typer.echo(f"{event.n:>4}  {event.at:<27}  {event.kind:<12} {event.model_id}  {event.why}")


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
    from rankline.repository import Repository

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
