"""What serves, what waits and what ran; and where a model comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import WORKSPACE, AsJson, ReadWorkspace, RepositoryUrl, open_registry, require_workspace

if TYPE_CHECKING:
    from pipelines.runs.store import RunInfo
    from review.timeline import Serving

LAST_RUNS = 5


def status(workspace: ReadWorkspace = WORKSPACE, repository: RepositoryUrl = "", as_json: AsJson = False) -> None:
    """Show what serves, since when and why, what warns, which candidates wait, and the last runs.

    Example: rankline status -w .rankline
    """
    from cli.review.decisions import table
    from review.queue import queue
    from review.timeline import serving

    history = open_registry(workspace, repository).history()
    now, waiting, runs = serving(history), queue(history), _last_runs(workspace)
    if as_json:
        payload = {
            "serving": now.model_dump(mode="json") if now else None,
            "waiting": [each.model_dump(mode="json") for each in waiting],
            "runs": [vars(each) for each in runs],
        }
        typer.echo(json.dumps(payload, indent=2))
        return
    typer.echo("\n".join(serving_lines(now) if now else ["no model serves yet; `rankline run` trains one"]))
    if now and now.warning:
        typer.secho(f"  warning: {now.warning}", fg=typer.colors.YELLOW)
    typer.echo(f"\nwaiting for a review: {len(waiting)}")
    if waiting:
        typer.echo("\n".join(table(waiting)))
    if runs:
        typer.echo("\nlast runs\n" + "\n".join(_run_lines(runs)))


def serving_lines(now: Serving) -> list[str]:
    """What serves, over which catalogue, since when and why."""
    lines = [
        f"{now.model_id} serves",
        f"  {now.kind.replace('_', ' ')} {now.at} by {now.who} (event {now.event})",
        f"  {now.why}",
        f"  catalogue: {now.revision}" if now.revision else "  catalogue: the bundle's own",
    ]
    return [*lines, *([f"  hidden: {len(now.hidden)} items (`rankline items list`)"] if now.hidden else [])]


def _last_runs(workspace: Path) -> list[RunInfo]:
    """The latest runs of a workspace; none where only a registry was named."""
    from cli.bucket_copy import bucket_of
    from pipelines.runs.store import LocalRuns

    if bucket_of(workspace) is not None:
        require_workspace(workspace, "runs", suffixes=(".json",))
    return list(reversed(LocalRuns(workspace).list()[-LAST_RUNS:])) if workspace.is_dir() else []


def _run_lines(runs: list[RunInfo]) -> list[str]:
    from cli.formats import aligned_lines, fitted

    rows = [("run", "outcome", "model", "flow", "trigger")]
    rows += [(each.run, each.outcome, each.model_id, each.flow, each.trigger) for each in runs]
    return fitted(aligned_lines(rows))


def lineage(
    model: Annotated[str, typer.Argument(help="Model id, or the start of one. Default: the champion.")] = "",
    workspace: ReadWorkspace = WORKSPACE,
    repository: RepositoryUrl = "",
    as_json: AsJson = False,
) -> None:
    """Show where a model comes from: data, code, recipe, run, the models it was started from, its evidence.

    Example: rankline lineage 5468169b
    """
    from cli.formats import aligned_lines
    from cli.options import require_champion
    from review.comparison import full_id
    from review.timeline import lineage as lineage_of

    registry = open_registry(workspace, repository)
    model_id = full_id(registry.history(), model) if model else require_champion(registry).model_id
    traced = lineage_of(registry, model_id)
    if as_json:
        typer.echo(traced.model_dump_json(indent=2))
        return
    values = traced.model_dump(exclude={"events", "parents"})
    rows = [(name.replace("_", " "), str(value)) for name, value in values.items() if value]
    rows.append(("started from", ", which started from ".join(traced.parents) or "scratch"))
    typer.echo("\n".join(aligned_lines(rows)) + "\nevents")
    typer.echo("\n".join(aligned_lines([(f"  {e.n}", e.at, e.kind, f"{e.who}: {e.why}") for e in traced.events])))
