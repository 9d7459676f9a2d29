"""Measure a stored bundle again beside the present champion, without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import WORKSPACE, AsJson, RepositoryUrl, Settings, Workspace, open_registry

if TYPE_CHECKING:
    from pipelines.recipe import Recipe


def evaluate(
    candidate: Annotated[str, typer.Option("--candidate", help="Model id, or the start of one.")],
    recipe: Annotated[
        str, typer.Option("--recipe", "-r", help="Recipe by name or module:function. Default: that of its run.")
    ] = "",
    settings: Settings = [],  # noqa: B006 (typer does not change a default)
    workspace: Workspace = WORKSPACE,
    repository: RepositoryUrl = "",
    as_json: AsJson = False,
) -> None:
    """Measure a registered model again beside the present champion, without training, and decide on it again.

    A candidate is stale when the champion, its catalogue or the bundle changed since it was judged. This runs the steps
    evaluate and decide on the outputs of the run that made it, as they are in that run's folder or the cache, and
    promote where decide.mode=auto and every gate is met. What is gone of them is named.

    Exit code: as of `rankline run`: 0 promoted or waiting for review, 3 refused by a gate.

    Example: rankline evaluate --candidate 5468169b
    """
    from cli.runs.progress import reason_lines, summary_lines
    from pipelines.runs.evaluation import evaluate_candidate
    from pipelines.runs.single_step import StepStopped
    from rankline.runtime.outcomes import exit_code

    workspace = workspace.resolve()
    model_id, chosen, started_by = _candidate(candidate, recipe, settings, workspace, repository)
    try:
        summary = evaluate_candidate(
            chosen, model_id, workspace=workspace, started_by=started_by,
            on_step=lambda step: None if as_json else typer.echo(f"▶ {step}"),
        )  # fmt: skip
    except StepStopped as stopped:
        typer.secho(str(stopped), fg=typer.colors.RED, err=True)
        raise typer.Exit(stopped.exit_code) from stopped
    lines = [*summary_lines(summary), *(f"  {line}" for line in reason_lines(summary))]
    typer.echo(json.dumps(summary, indent=2) if as_json else "\n".join(lines))
    raise typer.Exit(exit_code(summary["outcome"]))


def _candidate(
    model: str, recipe: str, settings: list[str], workspace: Path, repository: str
) -> tuple[str, Recipe, str]:
    """The model, the recipe to evaluate it with, and who started the run that made it."""
    from pipelines.overrides import change
    from pipelines.recipes import named
    from pipelines.runs.evaluation import recipe_of
    from review.comparison import full_id
    from review.queue import candidates

    history = open_registry(workspace, repository).history()
    model_id = full_id(history, model)
    own = [each for each in candidates(history) if each.model_id == model_id]
    chosen = named(recipe) if recipe else recipe_of(history, model_id, workspace)
    changes = [f"storage.repository={repository}"] if repository else []
    return model_id, change(chosen, [*changes, *settings]), own[0].started_by if own else ""
