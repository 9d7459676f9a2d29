"""The plan of a run: what becomes of each step, why, and how long it takes. Nothing is run and nothing is written.

`reused`   the cache holds the step's outputs
`runs`     no cached outputs can fit
`unsure`   a step before it runs; if its output comes out the same as before, byte for byte, this one is reused
`skipped`  promote, where the policy or the champion rules it out
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.recipes import Recipe
from pipelines.runs.estimates import Estimate, estimates
from pipelines.runs.planner import Libraries, PlannedStep, Planner
from rankline.contracts import FrozenModel

__all__ = ["Libraries", "Plan", "PlannedStep", "TotalTime", "plan"]


class TotalTime(FrozenModel):
    """How long the whole run takes, as far as earlier runs tell."""

    least_s: float
    most_s: float
    around_s: float | None  # the part of both that is spent around the steps, and in which run that was
    around_from: str
    without: tuple[str, ...]  # steps that no earlier run tells of; they are not counted

    @classmethod
    def of(cls, steps: tuple[PlannedStep, ...], overhead: Estimate | None) -> TotalTime:
        """The sum over the steps and the runner's own overhead."""
        around_s = round(overhead.seconds, 2) if overhead else None
        nothing = cls(
            least_s=0.0, most_s=0.0, around_s=around_s, around_from=overhead.run if overhead else "", without=()
        )
        return nothing.with_steps(steps)

    def with_steps(self, steps: tuple[PlannedStep, ...]) -> TotalTime:
        """The same overhead around these steps."""
        around_s = self.around_s or 0.0
        return self.model_copy(
            update={
                "least_s": round(sum(step.least_s or 0.0 for step in steps) + around_s, 2),
                "most_s": round(sum(step.most_s or 0.0 for step in steps) + around_s, 2),
                "without": tuple(step.step for step in steps if step.least_s is None or step.most_s is None),
            }
        )


class Plan(FrozenModel):
    """What a run would do."""

    recipe: str
    workspace: str
    champion: str
    fetches: tuple[str, ...]  # assets that are not downloaded yet
    steps: tuple[PlannedStep, ...]
    total: TotalTime


def plan(recipe: Recipe, workspace: Path, *, libraries: Libraries | None = None) -> Plan:
    """Plan a run of a recipe; reads the workspace, the source and the champion.

    ``libraries`` gives the versions that a step will work with where they are not those of this process.

    Raises:
        SourceError: the source is missing; the run would stop at its first step.
        UsageError: the workspace's champion ranks another catalogue.
        IntegrityError: a downloaded asset is damaged.
    """
    workspace = workspace.resolve()
    planner = Planner(recipe, workspace, libraries)
    known = estimates(workspace, recipe.name)
    steps = tuple(
        step.model_copy(update=_times("run", known.ran.get(step.step)) | _times("reuse", known.reused.get(step.step)))
        for step in planner.plan_steps()
    )
    return Plan(
        recipe=recipe.name,
        workspace=str(workspace),
        champion=planner.champion,
        fetches=tuple(planner.missing_assets),
        steps=steps,
        total=TotalTime.of(steps, known.overhead),
    )


def _times(name: str, estimate: Estimate | None) -> dict[str, Any]:
    return {f"{name}_s": round(estimate.seconds, 2), f"{name}_from": estimate.run} if estimate else {}
