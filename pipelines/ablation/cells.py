"""The cells of an ablation: the recipe as it is, and with each part changed, for every seed.

ablations/<recipe>-<digest>/   of the recipe's settings
  cells/<part>-<seed>/         result.json, and of the evaluation report.json, per_request.parquet, requests.parquet
  ablation.json ablation.md ablation.html
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.ablation.changes import randomize_weights, shuffle_words
from pipelines.ablation.parts import Part
from pipelines.overrides import change
from pipelines.recipe import WORKSPACE_PLACEHOLDER, Recipe, as_dict
from pipelines.runs.folder import new_run_folder
from pipelines.runs.single_step import StepStopped, run_single_step
from pipelines.steps import FEATURES, STEPS
from rankline.contracts import FrozenModel
from rankline.errors import StepFailed
from rankline.evaluation.report import PER_REQUEST, REPORT, REQUESTS
from rankline.io import digest
from rankline.io.files import write_json

RUN_STEPS = ("ingest", "validate", "featurize", "finetune", "distill", "export", "evaluate")
BASE = Part("recipe", "as it is")
RESULT = "result.json"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Cell:
    """One run: a part changed, and a seed."""

    part: Part
    seed: int

    @property
    def name(self) -> str:
        """Its folder."""
        return f"{self.part.name}-{self.seed}"


class CellResult(FrozenModel):
    """A cell that has run."""

    part: str
    seed: int
    seconds: float


@dataclass(frozen=True)
class Ablation:
    """An ablation of a recipe in a workspace."""

    recipe: Recipe
    workspace: Path

    @property
    def folder(self) -> Path:
        """Where its cells and pages lie; another folder for other settings."""
        return self.workspace / "ablations" / f"{self.recipe.name}-{digest.json_digest(as_dict(self.recipe))[:8]}"

    @property
    def encoder(self) -> Path:
        """The folder of the recipe's encoder."""
        return Path(self.recipe.finetune.encoder.replace(WORKSPACE_PLACEHOLDER, str(self.workspace)))

    def cell_folder(self, cell: Cell) -> Path:
        """Where a cell's result lies."""
        return self.folder / "cells" / cell.name

    def result(self, cell: Cell) -> CellResult | None:
        """What a cell came to; None where it has not run to its end."""
        path = self.cell_folder(cell) / RESULT
        return CellResult.model_validate_json(path.read_text()) if path.is_file() else None

    def run(self, cell: Cell, *, say: Say) -> CellResult:
        """Run a cell; the steps that it shares with others come from the cache.

        Raises:
            StepFailed: a step failed.
        """
        started_s = time.monotonic()
        folder, recipe = self.cell_folder(cell), self._recipe_of(cell)
        work = folder / "work"
        run_folder = new_run_folder(self.workspace, f"{recipe.name}-ablate")
        paths: dict[tuple[str, str], Path] = {}
        for step in RUN_STEPS:
            say(f"{cell.name}: {step}")
            row = STEPS[step]
            outputs = {name: work / step / name for name in row.outputs}
            inputs = {name: paths[source] for name, source in row.inputs.items()}
            try:
                run_single_step(
                    step, recipe, {**inputs, **outputs}, workspace=self.workspace, run_folder=run_folder, champion=""
                )
            except StepStopped as stopped:
                raise StepFailed(
                    f"{step} of the cell {cell.name} stopped: {stopped}\n  the next `rankline ablate` goes on with it",
                    summary={},
                    exit_code=stopped.exit_code,
                ) from stopped
            paths |= {(step, name): path for name, path in outputs.items()}
            if step == "featurize" and cell.part.artifact == "words":
                paths[FEATURES] = shuffle_words(paths[FEATURES], work / "words", seed=cell.seed)
        for name in (REPORT, PER_REQUEST, REQUESTS):
            shutil.copyfile(paths["evaluate", "report"] / name, folder / name)
        shutil.rmtree(work)
        result = CellResult(part=cell.part.name, seed=cell.seed, seconds=round(time.monotonic() - started_s, 1))
        write_json(folder / RESULT, result.model_dump())
        return result

    def _recipe_of(self, cell: Cell) -> Recipe:
        settings = [f"finetune.seed={cell.seed}", f"distill.seed={cell.seed}", *cell.part.settings]
        if cell.part.artifact == "weights":
            folder = self.folder / "encoders" / str(cell.seed)
            randomize_weights(self.encoder, folder, seed=cell.seed)
            settings += [f"finetune.encoder={folder}", "finetune.encoder_sha256=null"]
        return change(self.recipe, settings)


def all_cells(parts: Sequence[Part], seeds: int) -> list[Cell]:
    """The recipe as it is and each part that applies, a seed after the other."""
    changed = [part for part in parts if not part.not_applicable]
    return [Cell(part, seed) for seed in range(seeds) for part in (BASE, *changed)]
