"""Let a model serve again that served before."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import WORKSPACE, AsJson, RepositoryUrl, Workspace, require_workspace

HELP = (
    "Go back to the model that served before, or to an earlier one.\n\n"
    "Given again it goes one further back, never to a model that was gone back from; a name takes any that served.\n\n"
    "The bundle is verified, an event is written (who, when, why), and running servers swap to it within seconds "
    "without a failed request. The next run is evaluated beside it; to stop a schedule from promoting over it, "
    "`rankline schedule pause` it."
)


def rollback(
    model: Annotated[
        str, typer.Argument(help="Model id, or its beginning; the one that served before the champion if left out.")
    ] = "",
    why: Annotated[str, typer.Option("--why", help="The reason, for whoever reads the history.")] = "",
    workspace: Workspace = WORKSPACE,
    repository: RepositoryUrl = "",
    as_json: AsJson = False,
) -> None:
    """See HELP."""
    from rankline.registry.model_registry import ModelRegistry
    from rankline.registry.rollback import roll_back
    from rankline.runtime.current_user import current_user

    workspace_path = workspace if repository else require_workspace(workspace)
    registry = ModelRegistry(repository or workspace_path / "repository")
    event = roll_back(
        registry,
        to=model,
        who=current_user(),
        why=why or "rolled back by hand",
        workspace=workspace_path,
    )
    if warning := registry.relisted_warning(event.champion_before, event.model_id):
        typer.secho(f"warning: {warning}", fg=typer.colors.YELLOW, err=True)
    if as_json:
        typer.echo(event.model_dump_json(indent=2))
        return
    typer.echo(f"{event.model_id} serves again (event {event.n}); before it was {event.champion_before}")
