"""How long steps take, by the latest run in which each of them ran or was reused."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.summary.step import SUMMARY
from pipelines.runs.folder import RECIPE, has_timed_id, read_flow, read_recipe_name, start_order
from rankline.io.files import read_json_object
from rankline.runtime import ledger
from rankline.runtime.steps import TRAINING_STEPS


@dataclass(frozen=True)
class Estimate:
    """Seconds, and the run that took them."""

    seconds: float
    run: str


@dataclass(frozen=True)
class Estimates:
    """What earlier runs took, per step and around the steps."""

    ran: dict[str, Estimate]
    reused: dict[str, Estimate]
    overhead: Estimate | None  # the start and the end of the runner, and the time between steps


def estimates(workspace: Path, recipe: str, *, before: Path | None = None) -> Estimates:
    """What the runs of a recipe in a workspace took, the latest counting; the run ``before`` is left out."""
    ran: dict[str, Estimate] = {}
    reused: dict[str, Estimate] = {}
    overhead: Estimate | None = None
    for folder in _run_folders(workspace, recipe):
        if folder == before:
            continue
        for step, entry in ledger.read_entries(folder).items():
            if entry.status == "done":
                ran[step] = Estimate(entry.seconds, folder.name)
                # a reuse takes what is left without work and imports, until one has been measured
                overhead_s = max(entry.seconds - entry.work_s - entry.import_s, 0.0)
                reused.setdefault(step, Estimate(overhead_s, folder.name))
            elif entry.status == "reused":
                reused[step] = Estimate(entry.seconds, folder.name)
        with contextlib.suppress(KeyError, TypeError):
            summary = read_json_object(folder / SUMMARY)
            if summary["kubeflow_status"] == "SUCCEEDED" and has_timed_id(folder):  # pods take times of their own
                steps_s = sum(step["seconds"] for step in summary["steps"])
                overhead = Estimate(max(summary["seconds"] - steps_s, 0.0), folder.name)
    return Estimates(ran, reused, overhead)


def _run_folders(workspace: Path, recipe: str) -> Iterator[Path]:
    """The folders of a recipe's runs and of its steps that ran alone, oldest first."""
    single_step_runs = {f"{recipe}-{step}" for step in TRAINING_STEPS}
    for folder in sorted((workspace / "runs").glob("*"), key=start_order):
        name = folder.name.split("-", 2)[-1]
        is_single_step = name in single_step_runs and not (folder / RECIPE).is_file()
        if has_timed_id(folder):
            is_of_recipe = name == recipe or is_single_step
        else:  # of a cluster
            is_of_recipe = read_recipe_name(folder) == recipe and read_flow(folder) == "train"
        if is_of_recipe:
            yield folder
