"""Promote past the gates, with a reason that stays in sight."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import WORKSPACE, AsJson, ReadWorkspace, RepositoryUrl


def promote(
    model: Annotated[str, typer.Argument(help="Model id, or the start of one.")],
    break_glass: Annotated[bool, typer.Option("--break-glass", help="Confirm that no gate has passed it.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="The reason, in a sentence; recorded in the history.")] = "",
    workspace: ReadWorkspace = WORKSPACE,
    repository: RepositoryUrl = "",
    as_json: AsJson = False,
) -> None:
    """Make a registered model serve although no gate has passed it. Only for emergencies.

    The event has your name and the reason. `rankline champion`, `rankline history` and every verdict show it until
    another model is promoted, or until the evaluations of later nights prove that the model is within the loss budget.
    The anchor stays what it was. Running servers swap to the model within seconds.

    Example: rankline promote 5468169b --break-glass --reason "the champion recommends recalled items"
    """
    from cli.review.decisions import open_desk
    from rankline.errors import UsageError
    from rankline.runtime.current_user import current_user

    if not break_glass:
        raise UsageError(
            "a model is promoted by the gates of its run",
            expected="--break-glass, if it has to serve without them",
            found="no --break-glass",
            hint="`rankline run` trains, evaluates and promotes; `rankline rollback` goes back to a former champion",
        )
    desk = open_desk(workspace, repository)
    event = desk.break_glass(model, who=current_user(), why=reason)
    if as_json:
        typer.echo(event.model_dump_json(indent=2))
    else:
        before = event.champion_before or "none"
        typer.echo(f"{event.model_id} serves (event {event.n}), promoted past the gates; before it was {before}")
    desk.announce(event)
