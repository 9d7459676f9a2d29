"""One trial: the pipeline's steps up to distill, with the cache of the workspace, in a process of its own.

python -m pipelines.tuning.trial RUN_FOLDER WORKSPACE
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.recipe import Recipe, as_dict
from pipelines.runs.folder import RECIPE, new_run_folder, read_recipe
from pipelines.steps import STEPS
from rankline.errors import RanklineError
from rankline.io.files import write_json
from rankline.runtime import ledger
from rankline.runtime.progress import read_progress

TRIAL_STEPS = ("ingest", "validate", "featurize", "finetune", "distill")
STEP, METRIC = "distill", "towers_valid_ndcg@10"
PARTS = 20  # of the towers' training, after each of which a trial may be pruned
LOG = "trial.log"
TRAINING = "training the towers"  # the phase of distill whose progress has the validation
POLL_S = 0.3


class TrialFailed(RanklineError):
    """A step of a trial failed; the message is the step's."""


class TrialStopped(Exception):
    """A trial was ended before its time: it was pruned, or the minutes are over."""


def main() -> int:
    """Run the steps of the recipe in the given run folder."""
    from pipelines.runs.single_step import StepStopped, run_single_step

    folder, workspace = Path(sys.argv[1]), Path(sys.argv[2])
    recipe = read_recipe(folder)
    artifacts: dict[tuple[str, str], Path] = {}
    for step in TRIAL_STEPS:
        row = STEPS[step]
        outputs = {name: folder / "artifacts" / step / name for name in row.outputs}
        artifacts |= {(step, name): path for name, path in outputs.items()}
        inputs = {name: artifacts[origin] for name, origin in row.inputs.items()}
        try:
            run_single_step(step, recipe, {**inputs, **outputs}, workspace=workspace, run_folder=folder)
        except StepStopped as stopped:
            return stopped.exit_code
    return 0


def run_trial(
    recipe: Recipe, workspace: Path, *, number: int, stop: Callable[[int, float | None], bool]
) -> tuple[float, Path]:
    """Run a trial; (its metric, its run folder).

    ``stop`` is called with the parts of the towers' training that are over, and the best validation so far; where it
    says so, the trial ends.

    Raises:
        TrialFailed: a step failed.
        TrialStopped: ``stop`` returned true.
    """
    folder = new_run_folder(workspace, f"{recipe.name}-trial-{number}")
    write_json(folder / RECIPE, as_dict(recipe))
    environment = {**os.environ, "RANKLINE_RUN_DIR": str(folder), "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-P", "-m", "pipelines.tuning.trial", str(folder), str(workspace)]
    with (folder / LOG).open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            while process.poll() is None:
                if stop(*_progress(folder)):
                    raise TrialStopped
                time.sleep(POLL_S)
        finally:
            _end(process)
    entries = ledger.read_entries(folder)
    if process.returncode or STEP not in entries:
        raise TrialFailed(_why(entries, folder))
    return float(entries[STEP].result[METRIC]), folder


def _progress(folder: Path) -> tuple[int, float | None]:
    """The parts of the towers' training that are over, and the best validation so far."""
    progress: dict[str, Any] = read_progress(folder / f"{STEP}.progress")
    if progress.get("phase") != TRAINING or not progress.get("total"):
        return 0, None
    best = progress["numbers"].get("valid", math.nan)
    return int(PARTS * progress["done"] / progress["total"]), None if math.isnan(best) else best


def _why(entries: dict[str, ledger.Entry], folder: Path) -> str:
    failed = [entry for entry in entries.values() if entry.status == "failed"]
    if failed:
        return f"{failed[0].step} stopped: {failed[0].error}"
    lines = [line for line in (folder / LOG).read_text(errors="replace").splitlines() if line.strip()]
    return f"the trial ended early: {(lines or ['nothing was printed'])[-1]}\n  where: {folder / LOG}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process of a trial with all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                continue


if __name__ == "__main__":
    sys.exit(main())
