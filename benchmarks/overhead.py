"""How long a run took, step by step, and how much of that is the overhead of the pipeline."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def main() -> None:
    """Print the table of the latest run of a recipe that ran every step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path, default=Path(".rankline"))
    parser.add_argument("--recipe", default="movielens")
    arguments = parser.parse_args()
    from components.summary.step import SUMMARY
    from pipelines.runs.folder import run_folders

    summaries = [
        json.loads((folder / SUMMARY).read_text())
        for folder in run_folders(arguments.workspace)
        if folder.name.endswith(arguments.recipe) and (folder / SUMMARY).is_file()
    ]
    complete = [run for run in summaries if len(run["steps"]) >= 9 and all(s["status"] == "done" for s in run["steps"])]
    if not complete:
        raise SystemExit(f"no run in {arguments.workspace} in which every step of {arguments.recipe} ran")
    run = complete[-1]
    print("| step | wall s | work s | imports s | peak memory MB | core-seconds |")
    print("| --- | --- | --- | --- | --- | --- |")
    for step in run["steps"]:
        cells = (step[k] for k in ("seconds", "work_s", "import_s", "peak_memory_mb", "core_s"))
        print(f"| {step['step']} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |")
    share = 1 - run["work_s"] / run["seconds"]
    print(f"\nrun of {run['seconds']:.0f} s, {run['work_s']:.0f} s of it work of the steps: overhead {share:.1%}")


if __name__ == "__main__":
    main()
