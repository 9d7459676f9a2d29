"""The summary says what a run did from its ledger, however the run ended; of a cluster's, whether it was cancelled."""

# ruff: noqa: F811 (fixtures are asked for by their name)

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.summary.component import summary as summary_component
from components.summary.config import SummaryConfig
from components.summary.step import KILLED_MESSAGE, SUMMARY, summarize, summarize_run
from pipelines.runs.store import LocalRuns
from rankline.runtime import ledger
from rankline.runtime.kubeflow_api import was_cancelled
from rankline.runtime.run_context import RunContext
from rankline.runtime.run_summary import KubeflowEnd, note_cancelled
from rankline.runtime.steps import TRAINING_STEPS
from tests.pipelines.kubeflow.recorded import recorded  # noqa: F401
from tests.rankline.notifications.receivers import web_server
from tests.servers.kubeflow import TOKEN, Kubeflow


def write(folder: Path, step: str, status: str = "done", **more: Any) -> None:
    fields = {"step": step, "status": status, "started": 100.0, "finished": 110.0, **more}
    ledger.write_entry(folder, ledger.Entry.model_validate(fields))


def summarized(folder: Path, **prices: Any) -> dict[str, Any]:
    summary = summarize(folder, config=SummaryConfig(**prices), kubeflow_end=KubeflowEnd("SUCCEEDED"))
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


# at the end of a run on a cluster


def ended(
    workspace: Path, *steps: str, run: str = "a-run", state: str = "FAILED", message: str = "", flow: str = "train"
) -> dict[str, Any]:
    """The summary of a run whose exit handler runs after these steps are done."""
    parameters = {"workspace": str(workspace), "recipe": "smoke", "flow": flow}
    context = RunContext.from_parameters(parameters, run)
    for step in steps:
        write(context.folder, step)
    summary = summarize_run(context, config=SummaryConfig(), state=state, message=message)
    assert json.loads((context.folder / SUMMARY).read_text()) == summary
    return summary


@pytest.mark.parametrize(
    ("flow", "steps", "failed_step"),
    [
        ("train", TRAINING_STEPS[:4], "finetune"),
        ("train", (), "resolve_inputs"),
        ("refresh", ("resolve_inputs", "ingest"), "catalogue"),
    ],
)
def test_a_step_that_never_began_is_named_with_what_kubeflow_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flow: str, steps: tuple[str, ...], failed_step: str
) -> None:
    monkeypatch.setenv("ARGO_NODE_ID", "rankline-smoke-v8n6p-1")
    monkeypatch.setenv("RANKLINE_KFP_HOST", "http://127.0.0.1:1")  # nobody knows whether it was cancelled
    summary = ended(tmp_path, *steps, flow=flow, message="Pod was active on the node longer\nthan the deadline")
    assert (summary["outcome"], summary["failed_step"]) == ("failed", failed_step)
    assert summary["error"].startswith(f"{failed_step} did not begin: ")
    assert summary["error"].endswith("Kubeflow says: Pod was active on the node longer than the deadline")
    (listed,) = LocalRuns(tmp_path).list()
    assert (listed.outcome, listed.flow, listed.recipe) == ("failed", flow, "smoke")


def test_a_promotion_whose_pod_never_began_is_named(tmp_path: Path) -> None:
    write(tmp_path / "runs/a-run", "decide", result={"outcome": "promote"})
    assert ended(tmp_path, *TRAINING_STEPS[:8])["failed_step"] == "promote"


def test_a_run_with_a_verdict_has_no_step_that_did_not_begin(tmp_path: Path) -> None:
    write(tmp_path / "runs/a-run", "decide", result={"outcome": "refused", "sentence": "No."})
    summary = ended(tmp_path, *TRAINING_STEPS[:8])  # the empty task of the verdict failed, say
    assert (summary["outcome"], summary["failed_step"], summary["error"]) == ("refused", "", "")


# recorded run -> the state that its summary tells, where finetune was cut short or did not begin
CANCELLED = {
    "run-unschedulable-cancelled": "cancelled",
    "run-out-of-memory": "failed",
    "run-scheduled-cancelled-retried-failed": "failed",  # what was cancelled was its first life
}


@pytest.mark.parametrize("status", ["running", ""])
@pytest.mark.parametrize("name", CANCELLED)
def test_a_run_that_was_cancelled_says_so(
    recorded: Kubeflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, status: str
) -> None:
    run = recorded.api.replay(name)
    monkeypatch.setenv("ARGO_NODE_ID", "rankline-smoke-v8n6p-1")
    monkeypatch.setenv("RANKLINE_KFP_HOST", recorded.host)
    if status:
        write(tmp_path / "runs" / run, "finetune", status, finished=None)
    summary = ended(tmp_path, *TRAINING_STEPS[:4], run=run)
    assert summary["outcome"] == CANCELLED[name]
    assert summary["error"].startswith("it was cancelled") is (CANCELLED[name] == "cancelled")
    assert (summary["failed_step"] == "") is (CANCELLED[name] == "cancelled")
    assert LocalRuns(tmp_path).show(run)["outcome"] == CANCELLED[name]


def test_a_pod_asks_the_service_of_its_namespace_with_its_token(
    recorded: Kubeflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = recorded.api.replay("run-unschedulable-cancelled")
    host, port = recorded.host.removesuffix("/pipeline").removeprefix("http://").split(":")
    monkeypatch.setenv("ML_PIPELINE_SERVICE_HOST", host)
    monkeypatch.setenv("ML_PIPELINE_SERVICE_PORT", port)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # which leads out of the cluster
    assert was_cancelled(run)
    assert not was_cancelled("another")
    recorded.api.auth = "token"
    assert not was_cancelled(run)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    assert was_cancelled(run)


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", b""])
def test_what_answers_in_another_protocol_does_not_cost_the_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        monkeypatch.setenv("ARGO_NODE_ID", "rankline-smoke-v8n6p-1")
        monkeypatch.setenv("RANKLINE_KFP_HOST", f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert ended(tmp_path, *TRAINING_STEPS[:4])["outcome"] == "failed"


def test_a_step_that_had_failed_by_itself_keeps_its_error(
    recorded: Kubeflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = recorded.api.replay("run-unschedulable-cancelled")
    monkeypatch.setenv("ARGO_NODE_ID", "rankline-smoke-v8n6p-1")
    monkeypatch.setenv("RANKLINE_KFP_HOST", recorded.host)
    write(tmp_path / "runs" / run, "finetune", "failed", error="the loss is not finite")
    summary = ended(tmp_path, *TRAINING_STEPS[:4], run=run)
    assert (summary["outcome"], summary["error"]) == ("failed", "the loss is not finite")


def test_on_one_machine_nobody_is_asked(recorded: Kubeflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = recorded.api.replay("run-unschedulable-cancelled")
    monkeypatch.setenv("RANKLINE_KFP_HOST", recorded.host)
    before = len(recorded.api.asked)
    assert ended(tmp_path, run=run)["outcome"] == "failed"
    assert len(recorded.api.asked) == before


def test_the_reason_of_a_command_that_gave_the_run_up_is_in_the_summary(tmp_path: Path) -> None:
    why = "finetune did not begin within cluster.train.timeout_s (60 s): Unschedulable: 1 Insufficient cpu"
    note_cancelled(tmp_path / "runs/a-run", why=why)
    summary = ended(tmp_path, *TRAINING_STEPS[:4])
    assert (summary["outcome"], summary["error"]) == ("cancelled", f"it was cancelled: {why}")


@pytest.mark.parametrize(("status", "events"), [("failed", ["failed"]), ("done", [])])
def test_a_run_that_failed_is_announced(tmp_path: Path, status: str, events: list[str]) -> None:
    write(tmp_path / "runs" / "run-1", "finetune", status, error="no loss" if status == "failed" else "")
    write(tmp_path / "runs" / "run-1", "decide", "done", result={"outcome": "pending", "sentence": "So it is."})
    with web_server([200]) as (url, received):
        run = {"workspace": str(tmp_path), "recipe": "smoke", "notify": {"webhooks": [{"url": url}]}}
        end = SimpleNamespace(state="FAILED", error_message="")
        summary_component.python_func(config={}, run=run, job="run-1", status=end)
    assert [json.loads(each.body)["event"] for each in received] == events
    assert all(json.loads(each.body)["error"] == "no loss" for each in received)
