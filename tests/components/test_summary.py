"""The summary says what a run did from its ledger alone, however the run ended."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.summary.component import summary as summary_component
from components.summary.config import SummaryConfig
from components.summary.step import KILLED_MESSAGE, SUMMARY, summarize
from rankline.runtime import ledger
from rankline.runtime.steps import TRAINING_STEPS
from tests.rankline.notifications.receivers import web_server


def write(folder: Path, step: str, status: str = "done", **more: Any) -> None:
    fields = {"step": step, "status": status, "started": 100.0, "finished": 110.0, **more}
    ledger.write_entry(folder, ledger.Entry.model_validate(fields))


def summarized(folder: Path, **prices: Any) -> dict[str, Any]:
    summary = summarize(folder, config=SummaryConfig(**prices), kubeflow_status="SUCCEEDED")
    assert json.loads((folder / SUMMARY).read_text()) == summary
    return summary


@pytest.mark.parametrize(
    ("outcome", "label"),
    [
        ("promote", "promoted"),
        ("already_serving", "already serving"),
        ("pending", "waiting for review"),
        ("refused", "refused"),
        ("insufficient_data", "insufficient data"),
    ],
)
def test_the_verdict_is_the_runs_outcome(tmp_path: Path, outcome: str, label: str) -> None:
    result = {"outcome": outcome, "sentence": "So it is.", "failures": ["floor"], "model_id": "abc"}
    write(tmp_path, "decide", result=result)
    if outcome == "promote":
        write(tmp_path, "promote")
    summary = summarized(tmp_path)
    assert (summary["outcome"], summary["verdict"], summary["reasons"]) == (label, "So it is.", ["floor"])
    assert summary["model_id"] == "abc"
    assert summary["error"] == summary["failed_step"] == ""


def test_a_failed_step_brings_its_message(tmp_path: Path) -> None:
    write(tmp_path, "ingest")
    write(tmp_path, "validate", "failed", error="no rows\n  expected: rows")
    summary = summarized(tmp_path)
    assert (summary["outcome"], summary["failed_step"]) == ("failed", "validate")
    assert summary["error"] == "no rows\n  expected: rows"
    assert [step["status"] for step in summary["steps"]] == ["done", "failed"]


def test_a_step_that_never_ended_was_killed(tmp_path: Path) -> None:
    write(tmp_path, "finetune", "running", finished=None)
    summary = summarized(tmp_path)
    assert (summary["outcome"], summary["failed_step"], summary["error"]) == ("failed", "finetune", KILLED_MESSAGE)
    assert summary["steps"][0]["status"] == "killed"


def test_a_promotion_that_never_came_is_a_failure(tmp_path: Path) -> None:
    """The verdict was to promote, and the runner was killed before the step began."""
    write(tmp_path, "decide", result={"outcome": "promote"})
    assert summarized(tmp_path)["outcome"] == "failed"


@pytest.mark.parametrize("steps", [(), ("resolve_inputs", "ingest")])
def test_a_run_that_did_not_reach_its_verdict_is_incomplete(tmp_path: Path, steps: tuple[str, ...]) -> None:
    for step in steps:
        write(tmp_path, step)
    summary = summarized(tmp_path)
    assert summary["outcome"] == "incomplete"
    assert [step["step"] for step in summary["steps"]] == list(steps)


def test_times_memory_and_cost(tmp_path: Path) -> None:
    write(tmp_path, "ingest", started=100.0, finished=103.0, work_s=2.0, core_s=1800.0, peak_memory_bytes=3 * 2**20)
    write(tmp_path, "finetune", started=105.0, finished=118.0, import_s=1.5, work_s=3600.0, core_s=3600.0)
    write(tmp_path, "distill", "reused", started=120.0, finished=120.5)
    summary = summarized(tmp_path, core_hour=0.1, gpu_hour=3.0, gpus={"finetune": 2}, currency="EUR")
    ingest, finetune, distill = summary["steps"]
    assert (ingest["seconds"], ingest["work_s"], ingest["peak_memory_mb"]) == (3.0, 2.0, 3)
    assert ingest["cost"] == pytest.approx(0.05)
    assert (finetune["import_s"], finetune["gpu_s"]) == (1.5, 7200.0)
    assert finetune["cost"] == pytest.approx(0.1 + 6.0)
    assert distill["cost"] == 0
    assert (summary["seconds"], summary["work_s"], summary["cost"], summary["currency"]) == (20.5, 3602.0, 6.15, "EUR")
    assert summary["kubeflow_status"] == "SUCCEEDED"


def test_steps_come_in_the_order_of_the_pipeline(tmp_path: Path) -> None:
    for step in reversed(TRAINING_STEPS):
        write(tmp_path, step)
    assert [step["step"] for step in summarized(tmp_path)["steps"]] == list(TRAINING_STEPS)


@pytest.mark.parametrize(("status", "events"), [("failed", ["failed"]), ("done", [])])
def test_a_run_that_failed_is_announced(tmp_path: Path, status: str, events: list[str]) -> None:
    write(tmp_path / "runs" / "run-1", "finetune", status, error="no loss" if status == "failed" else "")
    write(tmp_path / "runs" / "run-1", "decide", "done", result={"outcome": "pending", "sentence": "So it is."})
    with web_server([200]) as (url, received):
        run = {"workspace": str(tmp_path), "recipe": "smoke", "notify": {"webhooks": [{"url": url}]}}
        summary_component.python_func(config={}, run=run, job="run-1", status=SimpleNamespace(state="FAILED"))
    assert [json.loads(each.body)["event"] for each in received] == events
    assert all(json.loads(each.body)["error"] == "no loss" for each in received)
