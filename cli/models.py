"""Look into the model repository: who serves, and how it came to that."""

from __future__ import annotations

import json

import typer

from cli.options import WORKSPACE, AsJson, Workspace

CHAMPION_HELP = "Which model serves, since when, and why."
HISTORY_HELP = "Every event of the model repository, oldest first."


def champion(workspace: Workspace = WORKSPACE, as_json: AsJson = False) -> None:
    """See CHAMPION_HELP."""
    from rankline.errors import RepositoryError
    from rankline.repository import Repository

    models = Repository(workspace / "repository")
    serving = models.champion()
    if not serving:
        raise RepositoryError(
            "no model has been promoted yet",
            expected="a promoted model",
            where=str(workspace / "repository"),
            hint="`rankline demo` makes one",
        )
    event = [e for e in models.history() if e.model_id == serving and e.kind in ("promoted", "rolled_back")][-1]
    if as_json:
        typer.echo(event.model_dump_json(indent=2))
        return
    typer.echo(f"{serving}\n  {event.kind} {event.at} by {event.who} (event {event.n}, run {event.run_id})")
    typer.echo(f"  {event.why}\n  bundle: {workspace / 'repository' / 'bundles' / serving}")


def history(workspace: Workspace = WORKSPACE, as_json: AsJson = False) -> None:
    """See HISTORY_HELP."""
    from rankline.repository import Repository

    events = Repository(workspace / "repository").history()
    if as_json:
        typer.echo(json.dumps([json.loads(event.model_dump_json()) for event in events], indent=2))
        return
    if not events:
        typer.echo("no events yet; `rankline demo` makes some")
    for event in events:
        typer.echo(f"{event.n:>4}  {event.at:<27}  {event.kind:<12} {event.model_id}  {event.why}")
