"""The steps of each flow, in order, and the component that each of them belongs to.

This is the part of the table of steps that the ledger, the cache and the summary read; pipelines/steps.py has the rest.
A step's image, inputs and outputs stand again in its component.py, because Kubeflow reads them there;
tests/pipelines/test_steps.py compares them with the table.
"""

from typing import Literal

Flow = Literal["train", "refresh", "features"]
FLOWS: dict[str, tuple[str, ...]] = {
    "train": (
        "resolve_inputs",
        "ingest",
        "validate",
        "featurize",
        "finetune",
        "distill",
        "export",
        "evaluate",
        "decide",
        "promote",
    ),
    "refresh": ("resolve_inputs", "ingest", "catalogue", "publish"),
    "features": ("resolve_inputs", "ingest", "validate", "featurize", "materialize"),
}
TRAINING_STEPS = FLOWS["train"]
ALL_STEPS = tuple(dict.fromkeys(step for steps in FLOWS.values() for step in steps))
EARLIER_NAMES = {"resolve_inputs": "look"}  # step -> its name in the runs of earlier versions
SUMMARY_STEP = "summary"  # the exit handler of every flow: it has no entry in the ledger
DECIDING_STEPS = ("decide", "catalogue", "materialize")  # the step of each flow whose result holds the verdict
_COMPONENTS = {"decide": "promote", "publish": "catalogue", "materialize": "promote"}


def component_folder(step: str) -> str:
    """The folder of components/ that a step lives in; most steps have one of their own."""
    return _COMPONENTS.get(step, step)
