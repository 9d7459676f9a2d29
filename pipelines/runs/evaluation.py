"""Measure a stored bundle again beside the present champion, without training.

The steps evaluate and decide run, and promote where the verdict says so, on the outputs of the run that made the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from components.summary.step import summarize
from pipelines.recipe import Recipe, as_dict, run_context
from pipelines.runs.artifacts import find_output
from pipelines.runs.folder import RECIPE, TRIGGER, WATCHER, new_run_folder, process_identity, read_recipe
from pipelines.runs.single_step import run_single_step
from pipelines.steps import STEPS
from rankline.errors import UsageError
from rankline.io.artifacts import link_or_copy, write_digests
from rankline.io.files import write_json
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import Event
from rankline.runtime import ledger
from rankline.runtime.outcomes import Outcome

EVALUATION = "evaluation"  # the kind of the run's trigger
_SOURCES: Mapping[str, tuple[str, str]] = {  # what the run that made a model has; the bundle is in the registry
    name: source
    for step in ("evaluate", "decide")
    for name, source in STEPS[step].inputs.items()
    if source[0] != "evaluate" and name != "bundle"
}
_OWN_EVENTS = ("registered", "evaluated", "pending", "approved", "rejected", "promoted")  # named by runs of the model


def evaluate_candidate(
    recipe: Recipe,
    model_id: str,
    *,
    workspace: Path,
    started_by: str,
    on_step: Callable[[str], object] = lambda step: None,
) -> dict[str, Any]:
    """Evaluate a registered model again and decide on it, in a run of its own; returns the run's summary.

    ``started_by`` is who started the run that made it, ``on_step`` is called with each step that begins.

    Raises:
        UsageError: an output of the run that made the model is gone; the message says which.
        RegistryError: the model is not in the registry.
        IntegrityError: a file of its bundle changed.
        StepStopped: a step failed.
    """
    context = run_context(recipe, workspace)
    models = ModelRegistry(context.repository)
    bundle = models.bundle(model_id, revision="", into=workspace / "fetched").folder
    folders = _outputs_of_training(models.history(), model_id, recipe, workspace)
    run_folder = new_run_folder(workspace, f"{recipe.name}-evaluate")
    write_json(run_folder / RECIPE, as_dict(recipe))
    write_json(run_folder / TRIGGER, {"kind": EVALUATION, "model_id": model_id})
    write_json(run_folder / WATCHER, {**process_identity(), "flow": "train", "user": started_by})
    outputs = run_folder / "artifacts" / "evaluation"
    folders["bundle"] = outputs / "export" / "bundle"
    link_or_copy(bundle, folders["bundle"])
    write_digests(folders["bundle"])
    folders |= {"report": outputs / "evaluate" / "report", "verdict": outputs / "decide" / "verdict"}
    folders["evaluation"] = folders["report"]
    try:
        for step in ("evaluate", "decide", "promote"):
            if step == "promote" and _outcome(run_folder) is not Outcome.PROMOTED:
                break
            on_step(step)
            names = (*STEPS[step].inputs, *STEPS[step].outputs)
            run_single_step(
                step, recipe, {name: folders[name] for name in names}, workspace=workspace, run_folder=run_folder
            )
    finally:
        summary = summarize(run_folder, config=recipe.summary)
        run_context(recipe, workspace, run_folder.name).upload_run()
    return summary


def runs_of(history: list[Event], model_id: str) -> list[str]:
    """The runs that made, measured or promoted a model, the latest first.

    The events by which other models' runs confirm or anchor it do not count.
    """
    own = (event for event in reversed(history) if event.model_id == model_id and event.kind in _OWN_EVENTS)
    return list(dict.fromkeys(event.run_id for event in own if event.run_id))


def recipe_of(history: list[Event], model_id: str, workspace: Path) -> Recipe:
    """The recipe of the run that made or measured a model last.

    Raises:
        UsageError: no run of it is in the workspace, or its recipe cannot be read.
    """
    runs = runs_of(history, model_id)
    folder = next((workspace / "runs" / run for run in runs if (workspace / "runs" / run / RECIPE).is_file()), None)
    if folder is None:
        raise UsageError(
            f"the run that made model {model_id} is not in this workspace",
            expected=f"the folder of run {' or '.join(runs) or '(none)'}, with its {RECIPE}",
            found="none",
            where=str(workspace / "runs"),
            hint="-w names its workspace, or --recipe the recipe",
        )
    return read_recipe(folder)


def _outcome(run_folder: Path) -> Outcome:
    return Outcome.of_verdict(ledger.read_entries(run_folder)["decide"].result.get("outcome", ""))


def _outputs_of_training(history: list[Event], model_id: str, recipe: Recipe, workspace: Path) -> dict[str, Path]:
    """The outputs of the run that made a model, by name."""
    runs, context = runs_of(history, model_id), run_context(recipe, workspace)
    folders = {name: find_output(runs, step, output, context) for name, (step, output) in _SOURCES.items()}
    gone = [f"{name} of {_SOURCES[name][0]}" for name, folder in folders.items() if folder is None]
    if gone:
        raise UsageError(
            f"the outputs of the run that made model {model_id} are gone",
            expected=", ".join(f"{name} of {step}" for name, (step, _) in _SOURCES.items()),
            found=f"no {', no '.join(gone)}",
            where=", ".join(str(workspace / "runs" / run) for run in runs) or str(workspace / "runs"),
            hint=f"-w names the workspace of that run; else `rankline run --recipe {recipe.name}` trains a new "
            "candidate, and reuses what is left",
        )
    return {name: folder for name, folder in folders.items() if folder is not None}
