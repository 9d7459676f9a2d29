"""Search for better settings of a recipe."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import WORKSPACE, AsJson, MapFile, Settings, SourcePath, Workspace

if TYPE_CHECKING:
    from pipelines.tuning.report import History
    from pipelines.tuning.study import Tuning


def tune(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe (`rankline recipes`), or module:function.")],
    minutes: Annotated[float, typer.Option(min=0.01, help="How long to search.")] = 30.0,
    trials: Annotated[int | None, typer.Option(min=1, help="Most trials of this call.")] = None,
    only: Annotated[
        list[str], typer.Option("--only", help="Tune only this setting, or this section; may be repeated.")
    ] = [],  # noqa: B006 (typer does not change a default)
    source: SourcePath = None,
    map: MapFile = None,
    settings: Settings = [],  # noqa: B006
    workspace: Workspace = WORKSPACE,
    plan: Annotated[bool, typer.Option("--plan", help="Try nothing; show the ranges and what was tried.")] = False,
    as_json: AsJson = False,
) -> None:
    """Search for better settings of a recipe, for some minutes.

    Each trial runs the pipeline's steps up to distill with other settings and reuses all that is the same; one that
    falls behind is pruned. The validation requests decide, and the test requests are not read. The first trial has the
    recipe's own settings. A search that was ended continues where it was.

    The best settings are in a file that `--set @FILE` reads; the history is a page with plots.

    Example: rankline tune movielens --minutes 60 --only distill
    """
    from cli.runs.run import fetch_assets
    from pipelines.recipes import named
    from pipelines.tuning.study import Limits, Tuning
    from pipelines.tuning.study import tune as search

    chosen = named(recipe, settings, source=source, map=map)
    tuning = Tuning.of(chosen, workspace, only)
    if plan:
        history = tuning.history()
        typer.echo(history.model_dump_json(indent=2) if as_json else "\n".join(_plan_lines(tuning, history)))
        return
    fetch_assets(chosen, tuning.workspace, as_json=as_json)
    history = search(tuning, Limits(minutes, trials), say=lambda line: typer.echo(line, err=as_json))
    if as_json:
        typer.echo(history.model_dump_json(indent=2))
        return
    typer.echo("\n".join(_end_lines(tuning, history, _run_command(recipe, source, map, settings, workspace))))


def _plan_lines(tuning: Tuning, history: History) -> list[str]:
    width = max(len(each.setting) for each in tuning.ranges)
    own = tuning.own_values
    seconds = [each.seconds for each in history.complete if each.seconds]
    known = f", {sum(seconds) / len(seconds):.0f} s each" if seconds else ""
    return [
        f"{tuning.recipe.name}: each trial runs ingest to distill; {history.metric} decides",
        *(f"  {each.setting:<{width}}  {each} (now {own[each.setting]:g})" for each in tuning.ranges),
        f"tried so far: {len(history.trials)} trials, {len(history.complete)} to their end{known}",
        f"study: {tuning.folder}",
    ]


def _run_command(recipe: str, source: str | None, map: str | None, settings: list[str], workspace: Path) -> list[str]:
    """The command that runs the recipe as it was tuned."""
    command = ["rankline", "run", "--recipe", recipe, "-w", str(workspace)]
    for option, value in (("--source", source), ("--map", map)):
        command += [option, value] if value else []
    return [*command, *(part for each in settings for part in ("--set", each))]


def _end_lines(tuning: Tuning, history: History, command: list[str]) -> list[str]:
    from pipelines.tuning.report import PAGE
    from pipelines.tuning.study import best_file

    lines = ["", f"history: {tuning.folder / PAGE}"]
    best, own = history.best, history.own_trial
    if best is None:
        return [*lines, "no trial came to its end: give it more --minutes; the next call continues"]
    if not history.is_better:
        return [
            *lines,
            f"no trial is better than the recipe's own settings ({best.value:.4f}); the next call continues",
        ]
    than = f"; the recipe's own settings reach {own.value:.4f}" if own and own.value is not None else ""
    return [
        *lines,
        f"best: trial {best.number} with {history.metric} {best.value:.4f}{than}",
        "The validation requests chose it, so this is too high. See what the test requests and the gates say:",
        f"  {shlex.join([*command, '--set', f'@{best_file(tuning)}'])}",
    ]
