"""The catalogues that the champion served over, and how to roll back to one of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import WORKSPACE, AsJson, ReadWorkspace, RepositoryUrl, open_registry, require_champion

if TYPE_CHECKING:
    from rankline.registry.catalogue_history import ServedRevision

app = typer.Typer(help="List the champion's catalogues, or roll back to an older one.", no_args_is_help=True)


@app.command("list")
def list_(workspace: ReadWorkspace = WORKSPACE, repository: RepositoryUrl = "", as_json: AsJson = False) -> None:
    """List every catalogue the champion served over, oldest first; > marks the one that serves."""
    from rankline.registry.catalogue_history import served_revisions

    registry = open_registry(workspace, repository)
    champion = require_champion(registry)
    served = served_revisions(registry, champion)
    if as_json:
        typer.echo(json.dumps([each.model_dump() for each in served], indent=2))
        return
    typer.echo(f"model {champion.model_id}")
    for n, each in enumerate(served, 1):
        marker = ">" if n == len(served) else " "
        event = f"event {each.event}" if each.event else "the bundle's own"
        gone = "" if each.kept else ", gone"
        typer.echo(f"{marker} {each.revision}  {each.at:<24}  {each.who:<10}  {each.why} ({event}{gone})")


@app.command("rollback")
def rollback(
    revision: Annotated[
        str | None,
        typer.Argument(help="The revision, or the start of one. Default: the one before the current revision."),
    ] = None,
    why: Annotated[str, typer.Option("--why", help="The reason, recorded in the history.")] = "rolled back by hand",
    workspace: ReadWorkspace = WORKSPACE,
    repository: RepositoryUrl = "",
    as_json: AsJson = False,
) -> None:
    """Serve the champion over an older catalogue. Its bytes are verified, and servers swap to it as to a new one.

    The next scheduled refresh may publish the bad data again: `rankline schedule pause` it until the source is fixed.

    Example: rankline catalogue rollback --why "prices of the wrong shop"
    """
    from rankline.errors import RegistryError
    from rankline.registry.catalogue_history import previous_revision, served_revisions
    from rankline.runtime.current_user import current_user

    registry = open_registry(workspace, repository)
    champion = require_champion(registry)
    served = served_revisions(registry, champion)
    current = served[-1].revision
    target = previous_revision(served) if revision is None else _complete(revision, served, registry.root)
    if target is None or target == current:
        raise RegistryError(
            "there is no catalogue to go back to" if target is None else "this catalogue serves already",
            expected="another of the champion's catalogues",
            found=current if target else f"{current}, the oldest that is kept",
            where=registry.root,
            hint="`rankline catalogue list` shows them; naming one also lets you go forward again",
        )
    event = registry.publish(
        champion.model_id,
        target,
        who=current_user(),
        why=why,
        details={"rolled_back_from": current},
        expected_champion=champion.model_id,
        expected_revision=current,
    )
    if as_json:
        typer.echo(event.model_dump_json(indent=2))
        return
    typer.echo(f"model {champion.model_id} serves over catalogue {target} again, not {current} (event {event.n})")


def _complete(prefix: str, served: Sequence[ServedRevision], where: str) -> str:
    """The revision that begins like this; one that the champion never served over stays as it is."""
    from rankline.errors import UsageError

    matches = {each.revision for each in served if prefix and each.revision.startswith(prefix)}
    if len(matches) > 1:
        raise UsageError(
            "several catalogues begin like that",
            expected=f"one of {', '.join(sorted(matches))}",
            found=prefix,
            where=where,
        )
    return matches.pop() if matches else prefix
