"""The table of steps: one row for each, which everything outside the components that needs to know about steps reads.

Each component.py repeats its image, inputs and outputs, because Kubeflow reads them there;
tests/pipelines/test_steps.py compares them with the rows.

A new step is a folder in components/, a row here and a name in a flow of rankline/runtime/steps.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from rankline.runtime.outcomes import Outcome
from rankline.runtime.steps import FLOWS, component_folder

Image = Literal["data", "train", "evaluate"]  # a field of `cluster.images`
Size = Literal["small", "data", "train", "serve"]  # a field of `cluster`


@dataclass(frozen=True, kw_only=True)
class StepRow:
    """What is the same in every run of a step."""

    image: Image
    size: Size
    inputs: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # artifact -> the step and output it comes from
    outputs: tuple[str, ...] = ()
    lineage: tuple[str, ...] = ()  # what components/<folder>/lineage.py adds to the cache key
    code: tuple[str, ...] = ()  # modules that decide the outcome beside the component's own
    cached: bool = True  # False: it always runs
    trains: bool = False  # on a device that its settings name
    command: str = ""  # what `rankline step` says of it; empty where it does not run alone


RAW, CLEAN, FEATURES = ("ingest", "raw"), ("validate", "clean"), ("featurize", "features")
CHECKS = ("validate", "report")
TEACHER, STUDENT, BUNDLE = ("finetune", "teacher"), ("distill", "student"), ("export", "bundle")
EVALUATION = ("evaluate", "report")

STEPS: dict[str, StepRow] = {
    "resolve_inputs": StepRow(image="data", size="small", cached=False),
    "ingest": StepRow(
        image="data",
        size="data",
        outputs=("raw",),
        lineage=("source", "erased users", "key of user ids"),
        command="Turn raw files into the canonical tables.",
    ),
    "validate": StepRow(
        image="data",
        size="data",
        inputs={"raw": RAW},
        outputs=("clean", "report"),
        lineage=("previous profile", "day"),
        command="Check the tables against their suites.",
    ),
    "featurize": StepRow(
        image="data",
        size="data",
        inputs={"clean": CLEAN},
        outputs=("features",),
        lineage=("feature stores",),
        command="Compute features and cut requests.",
    ),
    "finetune": StepRow(
        image="train",
        size="train",
        inputs={"features": FEATURES},
        outputs=("teacher",),
        lineage=("encoder", "champion's weights"),
        trains=True,
        command="Train the teacher.",
    ),
    "distill": StepRow(
        image="train",
        size="train",
        inputs={"features": FEATURES, "teacher": TEACHER},
        outputs=("student",),
        trains=True,
        command="Train the student of a teacher.",
    ),
    "export": StepRow(
        image="train",
        size="serve",
        inputs={"features": FEATURES, "student": STUDENT},
        outputs=("bundle",),
        command="Write the bundle of a student.",
    ),
    "evaluate": StepRow(
        image="evaluate",
        size="serve",
        inputs={"bundle": BUNDLE, "features": FEATURES, "teacher": TEACHER, "student": STUDENT},
        outputs=("report",),
        lineage=("champion", "anchor"),
        code=("serving.server",),
        command="Score a bundle through the real server.",
    ),
    "decide": StepRow(
        image="data",
        size="small",
        inputs={"bundle": BUNDLE, "evaluation": EVALUATION, "teacher": TEACHER, "checks": CHECKS},
        outputs=("verdict",),
        cached=False,
        command="Register a bundle and give the verdict.",
    ),
    "promote": StepRow(
        image="data",
        size="data",
        inputs={
            "bundle": BUNDLE,
            "evaluation": EVALUATION,
            "verdict": ("decide", "verdict"),
            "features": FEATURES,
        },
        cached=False,
        command="Make a bundle the champion.",
    ),
    "catalogue": StepRow(
        image="evaluate",
        size="serve",
        inputs={"raw": RAW},
        outputs=("revision",),
        lineage=("champion", "serves over"),
        code=("serving.server",),
    ),
    "publish": StepRow(image="data", size="data", inputs={"revision": ("catalogue", "revision")}, cached=False),
    "materialize": StepRow(image="data", size="data", inputs={"features": FEATURES}, cached=False),
    "summary": StepRow(image="data", size="small", cached=False),
}
# on a cluster a verdict that no step follows is the task of its name having run
VERDICT_TASKS: dict[str, Outcome] = {outcome.task: outcome for outcome in Outcome if outcome.task}
VERDICT_TASK = StepRow(image="data", size="small", cached=False)
# with `cluster.pack` these tasks do the work of several steps in one pod (pipelines/packed.py); the row has the setting
# of their size, of which place() takes at least as much as each of the steps needs
PACKED_TASKS: dict[str, tuple[str, ...]] = {
    "prepare": ("resolve_inputs", "ingest", "validate"),
    "conclude": ("decide", "promote"),
}
PACKED_TASK = StepRow(image="data", size="data", cached=False)

CACHED_TRAINING_STEPS = tuple(step for step in FLOWS["train"] if STEPS[step].cached)
STANDALONE_STEPS = {name: spec for name, spec in STEPS.items() if spec.command}


def row_of_task(name: str) -> StepRow:
    """The row of a task or a component's function; Kubeflow writes names with hyphens."""
    if name in PACKED_TASKS:
        return PACKED_TASK
    return VERDICT_TASK if name.replace("_", "-") in VERDICT_TASKS else STEPS[name.replace("-", "_")]


def component_module(step: str, module: str) -> str:
    """The name of a module of a step's component, such as components.promote.step for decide."""
    return f"components.{component_folder(step)}.{module}"
