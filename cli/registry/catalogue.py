"""The catalogues that a model served over, and how to go back to one of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import WORKSPACE, AsJson, RepositoryUrl, Workspace, require_workspace
from rankline.runtime.current_user import current_user

if TYPE_CHECKING:
    from rankline.registry.model_registry import ModelRegistry
    from rankline.registry.registry_state import Champion

app = typer.Typer(help="The champion's catalogues: list them, go back to an older one.", no_args_is_help=True)


@app.command("list")
def list_(workspace: Workspace = WORKSPACE, repository: RepositoryUrl = "", as_json: AsJson = False) -> None:
    """Every catalogue the champion served over, oldest first; > is the one that serves."""
    registry, champion_record = _registry_and_champion(workspace, repository)
    revisions = _published_revisions(registry, champion_record)
    if as_json:
        typer.echo(json.dumps(revisions, indent=2))
        return
    typer.echo(f"model {champion_record.model_id}")
    for n, entry in enumerate(revisions, 1):
        marker = ">" if n == len(revisions) else " "
        event = f"event {entry['event']}" if entry["event"] else "the bundle's own"
        gone = "" if entry["kept"] else ", gone"
        typer.echo(
            f"{marker} {entry['revision']}  {entry['at']:<24}  {entry['who']:<10}  {entry['why']} ({event}{gone})"
        )


@app.command("rollback")
def rollback(
    revision: Annotated[
        str | None,
        typer.Argument(help="The catalogue, or its beginning; the one before the present if left out."),
    ] = None,
    why: Annotated[str, typer.Option("--why", help="The reason, kept in the history.")] = "rolled back by hand",
    workspace: Workspace = WORKSPACE,
    repository: RepositoryUrl = "",
    as_json: AsJson = False,
) -> None:
    """Serve the champion over an older catalogue: its bytes are checked, and servers swap as to a new one.

    The next scheduled refresh may publish the bad data again: `rankline schedule pause` it until the source is right.

    Example: rankline catalogue rollback --why "prices of the wrong shop"
    """
    from rankline.errors import RegistryError, UsageError

    registry, champion_record = _registry_and_champion(workspace, repository)
    revisions = _published_revisions(registry, champion_record)
    current = revisions[-1]["revision"]
    if revision is None:
        # what was gone back from is no place to go back to
        lineage: list[str] = []
        for entry in revisions:
            is_rollback = entry["revision"] in lineage
            lineage = lineage[: lineage.index(entry["revision"]) + 1] if is_rollback else [*lineage, entry["revision"]]
        available = {entry["revision"] for entry in revisions if entry["kept"]}
        revision = next((name for name in reversed(lineage[:-1]) if name in available), None)
    elif matches := {entry["revision"] for entry in revisions if revision and entry["revision"].startswith(revision)}:
        if len(matches) > 1:
            raise UsageError(
                "several catalogues begin like that",
                expected=f"one of {', '.join(sorted(matches))}",
                found=revision,
                where=registry.root,
            )
        (revision,) = matches
    if revision is None or revision == current:
        raise RegistryError(
            "there is no catalogue to go back to" if revision is None else "this catalogue serves already",
            expected="another of the champion's catalogues",
            found=current if revision else f"{current}, the oldest that is kept",
            where=registry.root,
            hint="name one of those that `rankline catalogue list` tells, to go forward again, too",
        )
    event = registry.publish(
        champion_record.model_id,
        revision,
        who=current_user(),
        why=why,
        details={"rolled_back_from": current},
        expected_champion=champion_record.model_id,
        expected_revision=current,
    )
    if as_json:
        typer.echo(event.model_dump_json(indent=2))
        return
    typer.echo(
        f"model {champion_record.model_id} serves over catalogue {revision} again, no longer {current} (event {event.n})"
    )


def _registry_and_champion(workspace: Path, repository: str) -> tuple[ModelRegistry, Champion]:
    from rankline.errors import UsageError
    from rankline.registry.model_registry import ModelRegistry

    registry = ModelRegistry(repository or require_workspace(workspace) / "repository")
    champion_record = registry.champion_record()
    if champion_record is None:
        raise UsageError(
            "no model has been promoted yet",
            expected="a promoted model, which has a catalogue",
            where=registry.root,
            hint="`rankline run --recipe …` trains one, and promotes it where it is good enough",
        )
    return registry, champion_record


def _published_revisions(registry: ModelRegistry, pointer: Champion) -> list[dict[str, Any]]:
    """The catalogue of the bundle, each that was published for its model, in their order, and which are still kept.

    As for `rankline.registry.registry_state.last_publication`, a model that was removed and registered anew begins with its own again.
    """
    from rankline.registry.registry_state import PUBLISHING, REMOVED

    history = registry.history()
    promotion = history[pointer.event - 1]
    events = [event for event in history if event.model_id == pointer.model_id]
    removals = [n for n, e in enumerate(events, 1) if e.kind == REMOVED and "catalogue" not in e.digests]
    events = events[removals[-1] if removals else 0 :]
    registration = next((event for event in events if event.kind == "registered"), promotion)
    revision = registration.digests.get("catalogue") or promotion.digests.get("catalogue", "")
    revisions: list[dict[str, Any]] = [
        {"revision": revision, "event": 0, "at": registration.at, "who": registration.who, "why": "as exported"}
    ]
    for e in events:
        if e.kind == PUBLISHING:
            revisions.append({"revision": e.digests["catalogue"], "event": e.n, "at": e.at, "who": e.who, "why": e.why})
    available = {
        name: registry.has_catalogue(pointer.model_id, name) for name in {entry["revision"] for entry in revisions}
    }
    return [{**entry, "kept": available[entry["revision"]]} for entry in revisions]
