"""The smoke recipe end to end: promoted, reused, hurt half-way, picked up, refused.

The tests of this module tell one story in one workspace; each fixture is its next chapter.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipelines.recipes import named
from pipelines.runs.plan import Plan, PlannedStep, plan
from pipelines.runs.runner import exit_code
from pipelines.steps import CACHED_TRAINING_STEPS
from rankline.registry.model_registry import ModelRegistry
from rankline.runtime.steps import TRAINING_STEPS
from tests.cli import command
from tests.cli.in_process import rankline
from tests.conftest import SmokeRun
from tests.pipelines.runs.test_plan import comes_true
from tests.pipelines.runs.watched import flip, folders, reasons, steps, summary, watched

ROOT = Path(__file__).resolve().parents[3]
REUSABLE = CACHED_TRAINING_STEPS
REFUSING = ("finetune.epochs=3", 'decide.floors={"ndcg@10": 0.99}')
Ended = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def workspace(smoke: SmokeRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of a finished smoke run, moved to another place."""
    return smoke.copy(tmp_path_factory.mktemp("story") / "ws")


def events(workspace: Path) -> list[str]:
    return [event.kind for event in ModelRegistry(workspace / "repository").history()]


# The first run: everything is done, and the model is promoted.


def test_the_first_run_promotes_its_model(smoke: SmokeRun) -> None:
    result = smoke.summary
    assert (result["outcome"], exit_code(result)) == ("promoted", 0)
    assert {step["step"]: step["status"] for step in result["steps"]} == dict.fromkeys(TRAINING_STEPS, "done")
    assert result["model_id"] == ModelRegistry(smoke.workspace / "repository").champion()
    assert events(smoke.workspace) == ["registered", "evaluated", "promoted"]
    assert result["kubeflow_status"] == "SUCCEEDED"
    assert result["error"] == result["failed_step"] == ""


def test_the_summary_counts_time_memory_and_cost(smoke: SmokeRun) -> None:
    result = smoke.summary
    assert result["seconds"] > sum(step["seconds"] for step in result["steps"]) > result["work_s"] > 5
    trained = next(step for step in result["steps"] if step["step"] == "finetune")
    assert trained["import_s"] > 0.1
    assert trained["peak_memory_mb"] > 200
    assert trained["core_s"] > 1
    assert 0 < trained["cost"] < result["cost"] < 1


# The second: nothing changed.


@pytest.fixture(scope="module")
def foretold(workspace: Path) -> dict[str, PlannedStep]:
    """What a plan says of the run that follows."""
    return {step.step: step for step in plan(named("smoke"), workspace).steps}


@pytest.fixture(scope="module")
def again(foretold: object, workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ended, dict[str, Any]]:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for name in ("rankline", "components", "pipelines", "serving"):  # somebody's own folders, which are not ours
        (elsewhere / name).mkdir()
        (elsewhere / name / "__init__.py").write_text("raise SystemExit('not this one')\n")
    done = command.rankline("demo", "--recipe", "smoke", "-w", workspace, cwd=elsewhere)
    return done, summary(workspace)


@pytest.mark.integration
def test_unchanged_steps_are_reused(again: tuple[Ended, dict[str, Any]], smoke: SmokeRun) -> None:
    done, result = again
    assert done.returncode == 0
    status = {step["step"]: step["status"] for step in result["steps"]}
    assert status == {"resolve_inputs": "done", **dict.fromkeys(REUSABLE, "reused"), "decide": "done"}
    assert f"unchanged since run {smoke.summary['run']}" in done.stdout


def test_an_unchanged_run_was_planned(
    again: tuple[Ended, dict[str, Any]], foretold: dict[str, PlannedStep], workspace: Path
) -> None:
    assert {foretold[step].state for step in REUSABLE} == {"reused"}
    assert foretold["promote"].state == "skipped"
    result = {step["step"]: step for step in again[1]["steps"]}
    comes_true(
        foretold,
        {step: each["status"] for step, each in result.items()},
        {step: each["why"] for step, each in result.items()},
    )


def test_a_champion_that_is_its_own_candidate_is_already_serving(
    again: tuple[Ended, dict[str, Any]], workspace: Path, smoke: SmokeRun
) -> None:
    done, result = again
    assert result["outcome"] == "already serving"
    assert "already serving: " in done.stdout
    assert result["model_id"] == smoke.summary["model_id"]
    assert events(workspace) == ["registered", "evaluated", "promoted"]


def test_reused_outputs_equal_the_first_ones(again: tuple[Ended, dict[str, Any]], smoke: SmokeRun) -> None:
    assert (Path(location(again[1], "evaluate", "report")) / "report.html").is_file()
    for name, step, output in (("model", "export", "bundle"), ("table", "featurize", "features")):
        before, after = smoke.artifact(step, output), Path(location(again[1], step, output))
        assert (before / "files.json").read_text() == (after / "files.json").read_text(), name
        assert before != after


def location(result: dict[str, Any], step: str, output: str) -> str:
    return str(next(each["paths"][output] for each in result["steps"] if each["step"] == step))


# The third run: one setting changes, a cache entry is damaged, and training is killed.


@pytest.fixture(scope="module")
def killed(again: object, workspace: Path) -> tuple[int, str, str]:
    flip(next((workspace / "cache" / "ingest").glob("*/raw/events.parquet")))
    with watched(workspace, *REFUSING) as run:
        os.kill(run.reached("finetune").pid, signal.SIGKILL)
        return run.ended()


@pytest.mark.integration
def test_a_killed_step_is_named_in_one_message(killed: tuple[int, str, str], workspace: Path) -> None:
    code, out, err = killed
    assert code == 1
    assert "✘ finetune" in out
    assert err.splitlines()[0] == "finetune stopped: it ended without an error message (killed, or out of memory?)"
    assert f"ledger: {max(folders(workspace))}" in err
    assert err.splitlines()[-1] == "  the next run continues from the finished steps"


def test_the_exit_handler_reported_the_killed_run(killed: tuple[int, str, str], workspace: Path) -> None:
    result = summary(workspace)
    assert (result["outcome"], result["failed_step"], result["kubeflow_status"]) == ("failed", "finetune", "FAILED")
    assert steps(workspace)["finetune"] == "killed"
    assert "distill" not in steps(workspace)
    shown = rankline("runs", "show", "-w", workspace)
    assert "finetune stopped: it ended without an error message" in shown.stdout
    assert "failed" in rankline("runs", "list", "-w", workspace).stdout.splitlines()[-1]


def test_a_damaged_cache_entry_was_made_again(killed: tuple[int, str, str], workspace: Path) -> None:
    result = reasons(workspace)
    assert steps(workspace)["ingest"] == "done"
    assert "the cache entry was damaged (events.parquet" in result["ingest"]
    assert [steps(workspace)[step] for step in ("validate", "featurize")] == ["reused", "reused"]


# The fourth: the same again. It goes on where it was killed, and the gates refuse the model.


@pytest.fixture(scope="module")
def planned_then(killed: object, workspace: Path) -> dict[str, PlannedStep]:
    return {step.step: step for step in plan(named("smoke", REFUSING), workspace).steps}


@pytest.fixture(scope="module")
def resumed(killed: object, planned_then: object, workspace: Path) -> Ended:
    return rankline("run", "--recipe", "smoke", "-w", workspace, *(f"--set={each}" for each in REFUSING))


@pytest.mark.integration
def test_the_next_run_picks_up_what_was_finished(resumed: Ended, workspace: Path) -> None:
    status, why = steps(workspace), reasons(workspace)
    assert [status[step] for step in ("ingest", "validate", "featurize")] == ["reused"] * 3
    assert [status[step] for step in ("finetune", "distill", "export", "evaluate")] == ["done"] * 4
    assert why["finetune"] == "epochs: 4 -> 3"
    assert "teacher changed" in why["distill"]
    assert "student changed" in why["export"]
    assert "bundle changed" in why["evaluate"]
    assert "champion changed" in why["evaluate"]


def test_a_resumed_run_was_planned(resumed: Ended, planned_then: dict[str, PlannedStep], workspace: Path) -> None:
    assert {step for step in REUSABLE if planned_then[step].state == "reused"} == {"ingest", "validate", "featurize"}
    assert (planned_then["finetune"].state, planned_then["finetune"].why) == ("runs", "epochs: 4 -> 3")
    assert {planned_then[step].state for step in ("distill", "export", "evaluate", "promote")} == {"unsure"}
    comes_true(planned_then, steps(workspace), reasons(workspace))


def test_a_refused_model_ends_the_run_cleanly_with_its_reasons(
    resumed: Ended, workspace: Path, smoke: SmokeRun
) -> None:
    result = summary(workspace)
    assert resumed.returncode == 3
    assert resumed.stderr.strip() == ""
    assert (result["outcome"], result["kubeflow_status"], result["error"]) == ("refused", "SUCCEEDED", "")
    assert "promote" not in steps(workspace)
    assert result["reasons"]
    for reason in result["reasons"]:
        assert f"not met: {reason}" in resumed.stdout
    assert "ndcg@10" in " ".join(result["reasons"])
    assert "refused: " in resumed.stdout
    assert result["model_id"] != smoke.summary["model_id"]
    assert ModelRegistry(workspace / "repository").champion() == smoke.summary["model_id"]
    assert events(workspace)[3:] == ["registered", "evaluated", "rejected"]


# The fifth run: a comment is added to one component.


@pytest.mark.slow  # the default run has the plan of it, in test_plan.py
def test_a_change_of_code_in_one_component_reruns_that_component_and_what_follows(
    resumed: object, workspace: Path, tmp_path: Path
) -> None:
    for name in ("rankline", "components", "pipelines", "feature_repo", "serving", "cli"):
        shutil.copytree(ROOT / name, tmp_path / name)
    with (tmp_path / "components" / "evaluate" / "step.py").open("a") as source:
        source.write("ADDED = 1\n")
    arguments = ("run", "--recipe", "smoke", "-w", workspace, "--json")
    planned = Plan.model_validate_json(command.rankline(*arguments, "--plan", PYTHONPATH=str(tmp_path)).stdout)
    done = command.rankline(*arguments, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0
    result = {step["step"]: (step["status"], step["why"]) for step in json.loads(done.stdout)["steps"]}
    assert {result[step][0] for step in REUSABLE[:-1]} == {"reused"}
    assert result["evaluate"][0] == "done"
    assert result["evaluate"][1].endswith("code changed")
    foretold = {step.step: step for step in planned.steps}
    assert foretold["evaluate"].state == "runs"
    comes_true(foretold, {step: result[step][0] for step in result}, {step: result[step][1] for step in result})
