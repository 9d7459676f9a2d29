"""The table of steps agrees with the components, the compiled flows and the recipes."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from components import images
from pipelines.recipe import SECTIONS
from pipelines.steps import STANDALONE_STEPS, STEPS, VERDICT_TASKS, component_module, row_of_task
from rankline.runtime.outcomes import Outcome, exit_code, has_verdict
from rankline.runtime.steps import ALL_STEPS, DECIDING_STEPS, FLOWS, SUMMARY_STEP, Flow, component_folder
from tests.pipelines import golden

ROOT = Path(__file__).resolve().parents[2]
NO_COMPONENT = {"images.py", "__init__.py", "__pycache__"}


def component_call(step: str) -> dict[str, ast.expr]:
    """The keyword arguments of the StepSpec that a step's component hands to `run_step`."""
    tree = ast.parse((ROOT / "components" / component_folder(step) / "component.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "StepSpec":
            arguments = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
            if ast.literal_eval(arguments["name"]) == step:
                return arguments
    raise AssertionError(f"{step} has no StepSpec")


def keys(node: ast.expr | None) -> list[str]:
    if node is None:
        return []
    assert isinstance(node, ast.Dict)
    return [key.value for key in node.keys if isinstance(key, ast.Constant)]


def test_every_component_has_a_step_and_every_step_a_component() -> None:
    folders = {path.name for path in (ROOT / "components").iterdir()} - NO_COMPONENT
    assert {component_folder(step) for step in STEPS} == folders
    assert list(STEPS) == [*ALL_STEPS, SUMMARY_STEP]
    assert get_args(Flow) == tuple(FLOWS)


@pytest.mark.parametrize("step", STEPS)
def test_a_component_has_the_image_of_its_row(step: str) -> None:
    component = getattr(importlib.import_module(component_module(step, "component")), step)
    container = component.component_spec.implementation.container
    assert container.image == getattr(images, STEPS[step].image.upper())
    assert row_of_task(component.component_spec.name) is STEPS[step]


@pytest.mark.parametrize("step", ALL_STEPS)
def test_a_component_reads_writes_and_caches_as_its_row_says(step: str) -> None:
    spec, call = STEPS[step], component_call(step)
    assert keys(call.get("inputs")) == list(spec.inputs)
    assert keys(call.get("outputs")) == list(spec.outputs)
    assert ast.literal_eval(call.get("code", ast.Tuple([], ast.Load()))) == spec.code
    assert ast.literal_eval(call.get("reuse", ast.Constant(True))) == spec.cached
    assert ("lineage" in call) == bool(spec.lineage)


@pytest.mark.parametrize("step", ALL_STEPS)
def test_the_lineage_is_computed_in_one_module(step: str) -> None:
    lineage = ROOT / "components" / component_folder(step) / "lineage.py"
    if STEPS[step].lineage:
        assert hasattr(importlib.import_module(component_module(step, "lineage")), "lineage")
    elif component_folder(step) == step:
        assert not lineage.exists()


@pytest.mark.parametrize("flow", FLOWS)
def test_the_flows_join_the_steps_as_the_table_says(flow: str) -> None:
    """Inputs and their producers, in the compiled package."""
    path = golden.path(flow)
    package = next(yaml.safe_load_all(path.read_text()))
    tasks: dict[str, Any] = {}
    for component in package["components"].values():
        tasks |= component.get("dag", {}).get("tasks", {})
    for step in FLOWS[flow]:
        task = tasks[step.replace("_", "-")]
        artifacts = task.get("inputs", {}).get("artifacts", {})
        assert set(artifacts) == set(STEPS[step].inputs)
        for name, value in artifacts.items():
            if "taskOutputArtifact" in value:  # the others come through the branch that the step is in
                produced = (
                    value["taskOutputArtifact"]["producerTask"],
                    value["taskOutputArtifact"]["outputArtifactKey"],
                )
                assert produced == STEPS[step].inputs[name]


@pytest.mark.parametrize("step", ALL_STEPS)
def test_the_steps_an_input_comes_from_run_earlier(step: str) -> None:
    for producer, output in STEPS[step].inputs.values():
        assert output in STEPS[producer].outputs
        assert all(flow.index(producer) < flow.index(step) for flow in FLOWS.values() if step in flow)


def test_a_step_that_runs_alone_has_settings() -> None:
    assert set(STANDALONE_STEPS) <= set(SECTIONS)


# outcomes


def test_the_tasks_of_verdicts_are_known() -> None:
    from components.promote import component

    assert {component.refused.name, component.pending.name} <= set(VERDICT_TASKS)
    assert {outcome.step for outcome in Outcome if outcome.step} == {"promote", "publish", "materialize"}
    assert all(set(DECIDING_STEPS) & set(flow) for flow in FLOWS.values())


def test_every_refusal_takes_one_branch_and_another_verdict_its_own() -> None:
    refusals = {outcome for outcome in Outcome if outcome.exit_code == 3}
    assert refusals == {Outcome.REFUSED, Outcome.INSUFFICIENT_DATA}
    assert {outcome.branch for outcome in refusals} == {"refused"}
    assert all(outcome.branch == outcome.verdict for outcome in set(Outcome) - refusals)


def test_a_label_of_another_version_is_a_failure() -> None:
    assert (exit_code("abandoned"), has_verdict("abandoned")) == (1, False)
    assert Outcome.of_verdict("") is Outcome.of_verdict("maybe") is Outcome.INCOMPLETE


@pytest.mark.parametrize("outcome", Outcome)
def test_an_outcome_is_its_label(outcome: Outcome) -> None:
    assert outcome == Outcome(outcome.value) == str(outcome)
    assert exit_code(outcome.value) == (1 if outcome.exit_code is None else outcome.exit_code)
    assert has_verdict(outcome.value) == (exit_code(outcome.value) in (0, 3))
