"""The catalogues that a model served over, and how to go back to one of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import WORKSPACE, AsJson, RepositoryUrl, Workspace, existing
from rankline.runtime.current_user import person

if TYPE_CHECKING:
    from rankline.registry.model_registry import Repository
    from rankline.registry.registry_state import Champion

app = typer.Typer(help="The champion's catalogues: list them, go back to an older one.", no_args_is_help=True)


@app.command("list")
def list_(workspace: Workspace = WORKSPACE, repository: RepositoryUrl = "", as_json: AsJson = False) -> None:
    """Every catalogue the champion served over, oldest first; > is the one that serves."""
    models, pointer = _serving(workspace, repository)
    lines = _published(models, pointer)
    if as_json:
        typer.echo(json.dumps(lines, indent=2))
        return
    typer.echo(f"model {pointer.model_id}")
    for n, line in enumerate(lines, 1):
        sign = ">" if n == len(lines) else " "
        event = f"event {line['event']}" if line["event"] else "the bundle's own"
        gone = "" if line["kept"] else ", gone"
        typer.echo(f"{sign} {line['revision']}  {line['at']:<24}  {line['who']:<10}  {line['why']} ({event}{gone})")


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
    from rankline.errors import RepositoryError, UsageError

    models, pointer = _serving(workspace, repository)
    lines = _published(models, pointer)
    present = lines[-1]["revision"]
    if revision is None:
        # what was gone back from is no place to go back to
        came: list[str] = []
        for line in lines:
            again = line["revision"] in came
            came = came[: came.index(line["revision"]) + 1] if again else [*came, line["revision"]]
        kept = {line["revision"] for line in lines if line["kept"]}
        revision = next((name for name in reversed(came[:-1]) if name in kept), None)
    elif fitting := {line["revision"] for line in lines if revision and line["revision"].startswith(revision)}:
        if len(fitting) > 1:
            raise UsageError(
                "several catalogues begin like that",
                expected=f"one of {', '.join(sorted(fitting))}",
                found=revision,
                where=models.root,
            )
        (revision,) = fitting
    if revision is None or revision == present:
        raise RepositoryError(
            "there is no catalogue to go back to" if revision is None else "this catalogue serves already",
            expected="another of the champion's catalogues",
            found=present if revision else f"{present}, the oldest that is kept",
            where=models.root,
            hint="name one of those that `rankline catalogue list` tells, to go forward again, too",
        )
    event = models.publish(
        pointer.model_id,
        revision,
        who=person(),
        why=why,
        details={"rolled_back_from": present},
        expected_champion=pointer.model_id,
        expected_revision=present,
    )
    if as_json:
        typer.echo(event.model_dump_json(indent=2))
        return
    typer.echo(
        f"model {pointer.model_id} serves over catalogue {revision} again, no longer {present} (event {event.n})"
    )


def _serving(workspace: Path, repository: str) -> tuple[Repository, Champion]:
    from rankline.errors import UsageError
    from rankline.registry.model_registry import Repository

    models = Repository(repository or existing(workspace) / "repository")
    pointer = models.pointer()
    if pointer is None:
        raise UsageError(
            "no model has been promoted yet",
            expected="a promoted model, which has a catalogue",
            where=models.root,
            hint="`rankline run --recipe …` trains one, and promotes it where it is good enough",
        )
    return models, pointer


def _published(models: Repository, pointer: Champion) -> list[dict[str, Any]]:
    """The catalogue of the bundle, each that was published for its model, in their order, and which are still kept.

    As for `rankline.registry.registry_state.publication`, a model that was removed and registered anew begins with its own again.
    """
    from rankline.registry.registry_state import PUBLISHING, REMOVED

    history = models.history()
    crowned = history[pointer.event - 1]
    events = [event for event in history if event.model_id == pointer.model_id]
    gone = [n for n, e in enumerate(events, 1) if e.kind == REMOVED and "catalogue" not in e.digests]
    events = events[gone[-1] if gone else 0 :]
    own = next((event for event in events if event.kind == "registered"), crowned)
    revision = own.digests.get("catalogue") or crowned.digests.get("catalogue", "")
    lines: list[dict[str, Any]] = [
        {"revision": revision, "event": 0, "at": own.at, "who": own.who, "why": "as exported"}
    ]
    for e in events:
        if e.kind == PUBLISHING:
            lines.append({"revision": e.digests["catalogue"], "event": e.n, "at": e.at, "who": e.who, "why": e.why})
    kept = {name: models.has_catalogue(pointer.model_id, name) for name in {line["revision"] for line in lines}}
    return [{**line, "kept": kept[line["revision"]]} for line in lines]
