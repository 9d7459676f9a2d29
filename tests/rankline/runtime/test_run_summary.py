"""A run that a cluster retries under its own id: its summary is always that of its last life."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from components.summary.config import SummaryConfig
from components.summary.step import KILLED_MESSAGE
from pipelines.runs.folder import read_flow, read_recipe_name, run_folders
from pipelines.runs.store import LocalRuns
from rankline.contracts import FrozenModel
from rankline.errors import SourceError, StaleEvidence
from rankline.io.files import write_json
from rankline.runtime import ledger
from rankline.runtime.outcomes import exit_code, has_verdict
from rankline.runtime.run_context import RunContext
from rankline.runtime.run_step import StepSpec, run_step
from rankline.runtime.run_summary import CANCEL, EARLIER_SUMMARY, SUMMARY, KubeflowEnd, summarize

PRICES = SummaryConfig(core_hour=7.0, currency="EUR")
VERDICT = {"outcome": "promote", "model_id": "4fcf", "sentence": "All checks are met."}


def context(workspace: Path, flow: str = "train") -> RunContext:
    parameters = {"workspace": str(workspace), "recipe": "smoke", "catalogue": "smoke", "flow": flow}
    return RunContext.from_parameters(parameters, "430a72d0-7e44-4b0f-9a1c-0d7c2a3d4e5f")


def step(run: RunContext, name: str, result: dict[str, Any] | None = None, *, error: str | Exception = "") -> None:
    """Run a step that returns a result or fails."""

    def work(**arguments: Any) -> dict[str, Any]:
        if error:
            raise error if isinstance(error, Exception) else SourceError(error)
        return result or {}

    try:
        run_step(StepSpec(name, work, FrozenModel(), reuse=False), run)
    except SystemExit:
        assert error


def killed(run: RunContext, name: str) -> None:
    """Leave what a step leaves that is killed."""
    ledger.write_entry(run.folder, ledger.Entry(step=name, status="running", started=100.0))


def exit_handler(run: RunContext) -> None:
    """What Kubeflow runs at the end of the first life of a run, and never again."""
    summarize(run.folder, config=PRICES, kubeflow_end=KubeflowEnd("FAILED"))


def summary_of(run: RunContext) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((run.folder / SUMMARY).read_text())
    return summary


@pytest.fixture
def run(tmp_path: Path) -> RunContext:
    """A run whose distill was killed, with its summary."""
    run = context(tmp_path)
    step(run, "finetune")
    killed(run, "distill")
    exit_handler(run)
    assert (summary_of(run)["outcome"], summary_of(run)["error"]) == ("failed", KILLED_MESSAGE)
    return run


def test_while_it_goes_on_it_has_no_summary(run: RunContext) -> None:
    step(run, "distill")
    assert not (run.folder / SUMMARY).is_file()
    assert (run.folder / EARLIER_SUMMARY).is_file()
    (listed,) = LocalRuns(run.workspace).list()
    assert (listed.outcome, listed.recipe, listed.flow) == ("running", "smoke", "train")


def test_its_last_step_writes_the_summary(run: RunContext) -> None:
    for name in ("distill", "export", "evaluate"):
        step(run, name)
    step(run, "decide", VERDICT)
    assert not (run.folder / SUMMARY).is_file(), "promote follows"
    step(run, "promote")
    summary = summary_of(run)
    assert (summary["outcome"], summary["model_id"], summary["error"]) == ("promoted", "4fcf", "")
    assert summary["failed_step"] == ""
    assert (summary["currency"], summary["prices"]) == ("EUR", PRICES.model_dump())
    assert [each["step"] for each in summary["steps"]][-2:] == ["decide", "promote"]
    distill = next(each for each in summary["steps"] if each["step"] == "distill")
    assert "begun again: its process had been killed (attempt 2" in distill["why"]
    (listed,) = LocalRuns(run.workspace).list()
    assert (listed.outcome, listed.model_id) == ("promoted", "4fcf")


def test_a_verdict_that_no_step_follows_ends_it(run: RunContext) -> None:
    step(run, "distill")
    step(run, "decide", {**VERDICT, "outcome": "refused", "failures": ["floor"]})
    assert (summary_of(run)["outcome"], summary_of(run)["reasons"]) == ("refused", ["floor"])


def test_a_step_that_fails_ends_it_and_the_next_attempt_goes_on(run: RunContext) -> None:
    step(run, "distill", error="there is no data")
    assert (summary_of(run)["outcome"], summary_of(run)["failed_step"]) == ("failed", "distill")
    assert summary_of(run)["error"].startswith("there is no data")
    step(run, "distill")
    assert not (run.folder / SUMMARY).is_file()
    step(run, "decide", {**VERDICT, "outcome": "already_serving"})
    assert (summary_of(run)["outcome"], summary_of(run)["currency"]) == ("already serving", "EUR")


def test_a_comparison_that_came_too_late_is_an_outcome_of_its_own(run: RunContext) -> None:
    step(run, "distill")
    step(run, "decide", error=StaleEvidence("the champion changed since this model was evaluated"))
    assert (summary_of(run)["outcome"], exit_code(summary_of(run)["outcome"])) == ("stale", 4)
    assert not has_verdict("stale")


def test_killed_again_it_has_not_ended_well(run: RunContext) -> None:
    step(run, "distill")
    killed(run, "export")
    (listed,) = LocalRuns(run.workspace).list()
    assert listed.outcome == "running"  # until its folder has been silent for a while
    assert not (run.folder / SUMMARY).is_file()


def test_in_its_first_life_the_exit_handler_writes_it(tmp_path: Path) -> None:
    run = context(tmp_path)
    step(run, "ingest", error="there is no data")
    assert not (run.folder / SUMMARY).is_file()


@pytest.mark.parametrize("flow", ["train", "refresh", "features"])
def test_a_folder_of_a_cluster_run_names_its_recipe_and_flow(tmp_path: Path, flow: str) -> None:
    run = context(tmp_path, flow)
    step(run, "resolve_inputs")
    assert (read_recipe_name(run.folder), read_flow(run.folder)) == ("smoke", flow)
    assert run_folders(tmp_path) == [run.folder]


@pytest.mark.parametrize(("name", "last"), [("catalogue", "publish"), ("", "materialize")])
def test_the_smaller_flows_end_it_as_well(run: RunContext, name: str, last: str) -> None:
    step(run, "distill")
    if name:
        step(run, name, {"outcome": "publish", "model_id": "4fcf"})
        assert not (run.folder / SUMMARY).is_file()
    step(run, last, {"model_id": "4fcf"})
    assert summary_of(run)["outcome"] == {"publish": "published", "materialize": "materialized"}[last]


def test_a_cancelled_run_is_summarized_as_cancelled(run: RunContext) -> None:
    write_json(run.folder / CANCEL, {"by": "someone"})
    exit_handler(run)
    assert (summary_of(run)["outcome"], summary_of(run)["error"]) == (
        "cancelled",
        "it was cancelled while distill ran",
    )
    step(run, "distill")  # a retry goes on: nobody cancelled it
    step(run, "decide", {**VERDICT, "outcome": "pending"})
    assert summary_of(run)["outcome"] == "waiting for review"
    assert not (run.folder / CANCEL).is_file()


def test_a_step_that_failed_before_it_was_cancelled_has_failed(tmp_path: Path) -> None:
    run = context(tmp_path)
    step(run, "ingest", error="there is no data")
    write_json(run.folder / CANCEL, {"by": "someone"})
    exit_handler(run)
    assert (summary_of(run)["outcome"], summary_of(run)["failed_step"]) == ("failed", "ingest")


@pytest.mark.integration
def test_a_retried_step_whose_process_dies_leaves_no_old_summary(run: RunContext) -> None:
    script = f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).resolve().parents[3])!r})
        from pathlib import Path
        from tests.rankline.runtime.test_run_summary import context
        from rankline.contracts import FrozenModel
        from rankline.runtime.run_step import StepSpec, run_step
        def work(**arguments): os.kill(os.getpid(), signal.SIGKILL)
        run_step(StepSpec("distill", work, FrozenModel(), reuse=False), context(Path({str(run.workspace)!r})))
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(script)]).returncode == -9
    assert not (run.folder / SUMMARY).is_file()
    assert ledger.read_entries(run.folder)["distill"].attempts == 2
