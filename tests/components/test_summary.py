"""The summary says what a run did from its ledger alone, however the run ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from components.summary.config import SummaryConfig
from components.summary.step import KILLED, SUMMARY, summarize
from rankline.runtime import ledger
from rankline.runtime.steps import TRAINING_STEPS


def write(folder: Path, step: str, status: str = "done", **more: Any) -> None:
    told = {"step": step, "status": status, "started": 100.0, "finished": 110.0, **more}
    ledger.write_entry(folder, ledger.Entry.model_validate(told))


def summarized(folder: Path, **prices: Any) -> dict[str, Any]:
    told = summarize(folder, config=SummaryConfig(**prices), kubeflow_status="SUCCEEDED")
    assert json.loads((folder / SUMMARY).read_text()) == told
    return told


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ("promote", "promoted"),
        ("already_serving", "already serving"),
        ("pending", "waiting for review"),
        ("refused", "refused"),
        ("insufficient_data", "insufficient data"),
    ],
)
def test_the_verdict_is_the_runs_outcome(tmp_path: Path, outcome: str, said: str) -> None:
    result = {"outcome": outcome, "sentence": "So it is.", "failures": ["floor"], "model_id": "abc"}
    write(tmp_path, "decide", result=result)
    if outcome == "promote":
        write(tmp_path, "promote")
    told = summarized(tmp_path)
    assert (told["outcome"], told["verdict"], told["reasons"]) == (said, "So it is.", ["floor"])
    assert told["model_id"] == "abc"
    assert told["error"] == told["failed_step"] == ""


def test_a_failed_step_brings_its_message(tmp_path: Path) -> None:
    write(tmp_path, "ingest")
    write(tmp_path, "validate", "failed", error="no rows\n  expected: rows")
    told = summarized(tmp_path)
    assert (told["outcome"], told["failed_step"]) == ("failed", "validate")
    assert told["error"] == "no rows\n  expected: rows"
    assert [step["status"] for step in told["steps"]] == ["done", "failed"]


def test_a_step_that_never_ended_was_killed(tmp_path: Path) -> None:
    write(tmp_path, "finetune", "running", finished=None)
    told = summarized(tmp_path)
    assert (told["outcome"], told["failed_step"], told["error"]) == ("failed", "finetune", KILLED)
    assert told["steps"][0]["status"] == "killed"


def test_a_promotion_that_never_came_is_a_failure(tmp_path: Path) -> None:
    """The verdict was to promote, and the runner was killed before the step began."""
    write(tmp_path, "decide", result={"outcome": "promote"})
    assert summarized(tmp_path)["outcome"] == "failed"


@pytest.mark.parametrize("steps", [(), ("resolve_inputs", "ingest")])
def test_a_run_that_did_not_reach_its_verdict_is_incomplete(tmp_path: Path, steps: tuple[str, ...]) -> None:
    for step in steps:
        write(tmp_path, step)
    told = summarized(tmp_path)
    assert told["outcome"] == "incomplete"
    assert [step["step"] for step in told["steps"]] == list(steps)


def test_times_memory_and_cost(tmp_path: Path) -> None:
    write(tmp_path, "ingest", started=100.0, finished=103.0, work_s=2.0, core_s=1800.0, peak_memory_bytes=3 * 2**20)
    write(tmp_path, "finetune", started=105.0, finished=118.0, import_s=1.5, work_s=3600.0, core_s=3600.0)
    write(tmp_path, "distill", "reused", started=120.0, finished=120.5)
    told = summarized(tmp_path, core_hour=0.1, gpu_hour=3.0, gpus={"finetune": 2}, currency="EUR")
    ingest, finetune, distill = told["steps"]
    assert (ingest["seconds"], ingest["work_s"], ingest["peak_memory_mb"]) == (3.0, 2.0, 3)
    assert ingest["cost"] == pytest.approx(0.05)
    assert (finetune["import_s"], finetune["gpu_s"]) == (1.5, 7200.0)
    assert finetune["cost"] == pytest.approx(0.1 + 6.0)
    assert distill["cost"] == 0
    assert (told["seconds"], told["work_s"], told["cost"], told["currency"]) == (20.5, 3602.0, 6.15, "EUR")
    assert told["kubeflow_status"] == "SUCCEEDED"


def test_steps_come_in_the_order_of_the_line(tmp_path: Path) -> None:
    for step in reversed(TRAINING_STEPS):
        write(tmp_path, step)
    assert [step["step"] for step in summarized(tmp_path)["steps"]] == list(TRAINING_STEPS)
