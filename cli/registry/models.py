"""Which model serves, how it came to that, and how to go back to an earlier one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import (
    WORKSPACE,
    AsJson,
    ReadWorkspace,
    RepositoryUrl,
    open_registry,
    repository_of,
    require_champion,
)

if TYPE_CHECKING:
    from rankline.registry.registry_state import Event


def champion(workspace: ReadWorkspace = WORKSPACE, repository: RepositoryUrl = "", as_json: AsJson = False) -> None:
    """Show which model serves, over which catalogue, since when and why, and how many items are hidden."""
    from rankline.registry import anchor as anchors

    registry = open_registry(workspace, repository)
    record = require_champion(registry)
    history = registry.history()
    event = history[record.event - 1]
    published = history[record.published - 1] if record.published else None
    revision = registry.revision(record.model_id)
    if as_json:
        catalogue = {"revision": revision, "published": published.model_dump(mode="json") if published else None}
        payload = {**event.model_dump(mode="json"), "catalogue": catalogue, "hidden": list(record.hidden)}
        payload["warning"] = anchors.warning(history)
        typer.echo(json.dumps(payload, indent=2))
        return
    typer.echo(f"{record.model_id}\n  {event.kind} {event.at} by {event.who} (event {event.n}, run {event.run_id})")
    typer.echo(f"  {event.why}")
    if warning := anchors.warning(history):
        typer.secho(f"  warning: {warning}", fg=typer.colors.YELLOW)
    origin = f"published {published.at} by {published.who}: {published.why}" if published else "the bundle's own"
    typer.echo(f"  catalogue: {revision}, {origin}")
    if record.hidden:
        typer.echo(f"  hidden: {len(record.hidden)} items (`rankline items list`)")
    typer.echo(f"  bundle: {repository or repository_of(workspace)}/bundles/{record.model_id}")


def history(
    at: Annotated[
        str, typer.Option("--at", help="What served at this ISO time, which is UTC where it names no zone.")
    ] = "",
    workspace: ReadWorkspace = WORKSPACE,
    repository: RepositoryUrl = "",
    as_json: AsJson = False,
) -> None:
    """List every event of the model registry, oldest first; with --at show what served at a time.

    Example: rankline history --at 2026-11-30T12:00
    """
    events = open_registry(workspace, repository).history()
    if at:
        _print_serving_at(events, at, as_json)
        return
    if as_json:
        typer.echo(json.dumps([event.model_dump(mode="json") for event in events], indent=2))
        return
    if not events:
        typer.echo("no events yet; `rankline demo` creates some")
    for event in events:
        typer.echo(f"{event.n:>4}  {event.at:<27}  {event.kind:<12} {_event_subject(event)}  {_reason(event)}")


def _print_serving_at(events: list[Event], at: str, as_json: bool) -> None:
    from cli.review.status import serving_lines
    from rankline.errors import UsageError
    from rankline.utc import parse_utc
    from review.timeline import serving_at

    try:
        instant = parse_utc(at)
    except ValueError as error:
        raise UsageError(
            "this is no time", expected="an ISO time, such as 2026-11-30T12:00 or 2026-11-30T13:00+01:00", found=at
        ) from error
    then = serving_at(events, instant)
    if as_json:
        typer.echo(json.dumps(then.model_dump(mode="json") if then else None, indent=2))
    else:
        typer.echo("\n".join(serving_lines(then)) if then else f"no model served at {at}")


def _event_subject(event: Event) -> str:
    """What an event is about: a model, its catalogue, or items."""
    from rankline.registry.registry_state import PUBLISHING, TAKEDOWNS

    if event.kind in TAKEDOWNS:
        items = event.details["items"]
        return ", ".join(items[:5]) + (f" and {len(items) - 5} more" if len(items) > 5 else "")
    return f"{event.model_id} {event.digests['catalogue']}" if event.kind == PUBLISHING else event.model_id


def _reason(event: Event) -> str:
    """Why an event was written, and by whom if it promoted a model that no gate had passed."""
    from rankline.registry.anchor import BREAK_GLASS

    return f"PAST THE GATES by {event.who}: {event.why}" if event.details.get(BREAK_GLASS) else event.why


def rollback(
    model: Annotated[
        str, typer.Argument(help="Model id or the start of one. Default: the model that served before the champion.")
    ] = "",
    why: Annotated[str, typer.Option("--why", help="The reason, recorded in the history.")] = "",
    workspace: ReadWorkspace = WORKSPACE,
    repository: RepositoryUrl = "",
    as_json: AsJson = False,
) -> None:
    """Roll back to the model that served before, or to an earlier one.

    Without MODEL, each rollback goes one model further back and skips the ones that were rolled back from. With MODEL
    it takes any model that has served.

    The bundle is verified, an event is recorded (who, when, why), and running servers swap to it within seconds without
    a failed request. The next run may promote over it: to prevent that, pause its schedule (`rankline schedule pause`).
    """
    from cli.review.decisions import open_desk
    from rankline.runtime.current_user import current_user

    desk = open_desk(workspace, repository)
    event = desk.roll_back(model, who=current_user(), why=why or "rolled back by hand")
    if as_json:
        typer.echo(event.model_dump_json(indent=2))
    else:
        typer.echo(f"{event.model_id} serves again (event {event.n}); before it was {event.champion_before}")
    desk.announce(event)
