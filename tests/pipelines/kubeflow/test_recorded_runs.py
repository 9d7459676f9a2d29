"""The runs of a real server, replayed: how they are reported, their logs, and why they ended as they did."""

# ruff: noqa: F811 (fixtures are asked for by their name)
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.nodes import step_pods
from pipelines.kubeflow.runs import ClusterRuns, follow
from pipelines.runs.runner import exit_code
from rankline.io.files import write_json
from rankline.registry.model_registry import ModelRegistry
from rankline.runtime.steps import FLOWS
from tests.pipelines import golden
from tests.pipelines.kubeflow.kubeflow_world import compiled_once, nothing_of_ours  # noqa: F401
from tests.pipelines.kubeflow.recorded import (  # noqa: F401
    add_package,
    cluster,
    deserialized,
    flow_of,
    in_words,
    recorded,
    replay,
    step_log,
)  # fmt: skip
from tests.servers.kubeflow import RUNS, Kubeflow, recording

TRAINED = dict.fromkeys(FLOWS["train"][:9], "done")
STOPPED_AT_FINETUNE = {
    **dict.fromkeys(FLOWS["train"][:4], "done"), "finetune": "failed",
    **dict.fromkeys(FLOWS["train"][5:9], "skipped"),
}  # fmt: skip
DATA_STEPS = dict.fromkeys(FLOWS["train"][:4], "done")
# recording -> outcome, exit code, steps, failed step, the command or advice of its error
EXPECTED: dict[str, tuple[str, int, dict[str, str], str, str]] = {
    "run-promoted": ("promoted", 0, {**TRAINED, "promote": "done"}, "", ""),
    "run-pod-killed-promoted": ("promoted", 0, {**TRAINED, "promote": "done"}, "", ""),
    "run-cancelled-retried-promoted": ("promoted", 0, {**TRAINED, "promote": "done"}, "", ""),
    "run-already-serving": ("already serving", 0, {**TRAINED, "already-serving": "done"}, "", ""),
    "run-refused": ("refused", 3, {**TRAINED, "refused": "done"}, "", ""),
    "run-features": ("materialized", 0, {**DATA_STEPS, "materialize": "done"}, "", ""),
    "run-refresh-unchanged": (
        "nothing changed", 0,
        {"resolve_inputs": "done", "ingest": "done", "catalogue": "done", "unchanged": "done"}, "", "",
    ),
    "run-out-of-memory": (
        "failed", 1, STOPPED_AT_FINETUNE, "finetune",
        "see `kubectl -n kubeflow logs rankline-smoke-v8n6p-retry-system-container-impl-3768103297 -c main`",
    ),
    "run-image-missing": (
        "failed", 1, STOPPED_AT_FINETUNE, "finetune",
        "its pod never began: see `kubectl -n kubeflow describe pod "
        "rankline-smoke-m9k7w-retry-system-container-impl-267398656`",
    ),
    "run-unschedulable-cancelled": ("cancelled", 130, {**STOPPED_AT_FINETUNE, "finetune": "cancelled"}, "", ""),
    "run-scheduled-cancelled-retried-failed": (
        "failed", 1, {**TRAINED, "decide": "failed"}, "decide",
        "see `kubectl -n kubeflow logs audit2w9dr-1-3829983574-system-container-impl-4034613478 -c main`",
    ),
}  # fmt: skip
CANCELLED: tuple[str, int, dict[str, str], str, str] = ("cancelled", 130, {}, "", "")
RETRIED = ("run-cancelled-retried-promoted", "run-scheduled-cancelled-retried-failed")  # cancelled before that


# every recording


@pytest.mark.parametrize("name", RUNS)
def test_outcome_exit_code_and_steps(recorded: Kubeflow, cluster: Cluster, name: str) -> None:
    outcome, code, steps, failed_step, advice = EXPECTED[name]
    run = replay(recorded, name)
    recorded.api.log = "" if name == "run-image-missing" else recorded.api.log  # a pod that never began
    for summary in (ClusterRuns(cluster).show(run), follow(cluster, run, poll_s=0)):
        assert (summary["outcome"], exit_code(summary), summary["failed_step"]) == (outcome, code, failed_step)
        assert {each["step"]: each["status"] for each in summary["steps"] if each["step"] != "summary"} == steps
        assert advice in summary["error"]
        assert summary["flow"] == flow_of(name)


@pytest.mark.integration
@pytest.mark.parametrize("name", RUNS)
def test_wait_ends_as_the_run_did(recorded: Kubeflow, name: str) -> None:
    outcome, code, _, failed_step, _ = EXPECTED[name] if name not in RETRIED else CANCELLED
    recorded.api.next_recording = name
    pinned = [each for setting in golden.PINNED for each in ("--set", setting)]
    done = in_words(recorded, "submit", "--recipe", "smoke", *pinned, "--wait", "--poll", "0.05")
    assert done.exit_code == code, done.output
    assert f"\n{outcome} after " in done.output
    assert (f"{failed_step} stopped: " if failed_step else "") in done.output


@pytest.mark.parametrize("name", RUNS)
def test_logs_of_each_step_and_of_one(recorded: Kubeflow, cluster: Cluster, name: str) -> None:
    run = replay(recorded, name)
    pods = step_pods(deserialized(name))
    steps = [step for step, status in EXPECTED[name][2].items() if status in ("done", "failed", "cancelled")]
    assert [each.step for each in pods if each.step != "summary"] == steps
    recorded.api.pod_logs = {each.node_id: step_log(each.step, f"I am {each.step}", a=1) for each in pods}
    printed = [(each.step, each.line) for each in ClusterRuns(cluster).logs(run)]
    own = [step for step in (*FLOWS[flow_of(name)], "summary") if step in {each.step for each in pods}]
    assert printed == [(step, f"I am {step}") for step in own]
    assert [each.line for each in ClusterRuns(cluster).logs(run, "ingest")] == ["I am ingest"]
    everything = [each.line for each in ClusterRuns(cluster).logs(run, "ingest", everything=True)]
    assert any("launcher_v2.go" in line for line in everything)


def test_the_pods_of_the_recorded_nodes_have_the_names_that_kubernetes_gave_them(recorded: Kubeflow) -> None:
    for name, pods in (("run-out-of-memory", "pods-out-of-memory"),
                       ("run-cancelled-retried-promoted", "pods-cancelled-retried-promoted")):  # fmt: skip
        names = {each["metadata"]["name"] for each in recording(pods)["items"]}
        for each in step_pods(deserialized(name)):
            retries = each.step not in ("resolve_inputs", "decide", "summary")
            assert each.pod_name(retries=retries) in names
            assert each.pod_name(retries=not retries) not in names


@pytest.mark.integration
def test_list_shows_every_one_with_its_flow_and_model(recorded: Kubeflow, cluster: Cluster) -> None:
    runs = {recorded.api.replay(name): name for name in RUNS}
    for name in ("run-promoted", "run-already-serving", "run-refresh-unchanged"):
        (decided,) = [each for each in step_pods(deserialized(name)) if each.step in ("decide", "catalogue")]
        recorded.api.pod_logs[decided.node_id] = step_log(decided.step, result={"model_id": f"model of {name}"})
    listed = {runs[each.run]: each for each in ClusterRuns(cluster).list()}
    assert {name: each.outcome for name, each in listed.items()} == {name: row[0] for name, row in EXPECTED.items()}
    assert {name: each.flow for name, each in listed.items()} == {name: flow_of(name) for name in RUNS}
    assert listed["run-scheduled-cancelled-retried-failed"].trigger == "scheduled"
    assert {name for name, each in listed.items() if each.model_id == f"model of {name}"} == {
        "run-promoted", "run-already-serving", "run-refresh-unchanged",
    }  # fmt: skip
    assert listed["run-refused"].model_id == ""


# recording -> what `runs list` prints of it after its id and its outcome
LISTED: dict[str, list[str]] = {
    "run-promoted": ["6:59", "df3c33cad003ade5", "train", "manual"],
    "run-pod-killed-promoted": ["7:46", "train", "manual"],
    "run-cancelled-retried-promoted": ["8:09", "train", "manual"],
    "run-already-serving": ["4:47", "train", "manual"],
    "run-refused": ["6:37", "train", "manual"],
    "run-features": ["4:16", "features", "manual"],
    "run-refresh-unchanged": ["3:59", "refresh", "manual"],
    "run-out-of-memory": ["3:59", "train", "manual"],
    "run-image-missing": ["4:20", "train", "manual"],
    "run-unschedulable-cancelled": ["7:20", "train", "manual"],
    "run-scheduled-cancelled-retried-failed": ["5:42", "train", "scheduled"],
}
MARKS = {"✔": "done", "✘": "failed", "·": "skipped"}


@pytest.mark.integration
def test_the_command_lists_a_row_for_each(recorded: Kubeflow) -> None:
    runs = {recorded.api.replay(name): name for name in RUNS}
    (decided,) = [each for each in step_pods(deserialized("run-promoted")) if each.step == "decide"]
    recorded.api.pod_logs[decided.node_id] = step_log("decide", result={"model_id": "df3c33cad003ade5"})
    done = in_words(recorded, "runs", "list")
    assert done.exit_code == 0, done.output
    header, *lines = done.output.splitlines()
    assert header.split() == ["run", "outcome", "took", "model", "flow", "trigger"]
    rows = {runs[line.split()[0]]: line.split() for line in lines}
    assert {name: row[1:] for name, row in rows.items()} == {
        name: [*EXPECTED[name][0].split(), *LISTED[name]] for name in RUNS
    }
    listed = json.loads(in_words(recorded, "runs", "list", "--json").stdout)
    assert [(runs[each["run"]], each["outcome"], each["flow"], each["trigger"]) for each in listed] == [
        (name, EXPECTED[name][0], row[-2], row[-1]) for name, row in rows.items()
    ]


@pytest.mark.parametrize("name", RUNS)
def test_the_command_shows_each_step_and_how_the_run_ended(recorded: Kubeflow, name: str) -> None:
    outcome, _, steps, failed_step, advice = EXPECTED[name]
    run = replay(recorded, name)
    recorded.api.log = "" if name == "run-image-missing" else recorded.api.log
    done = in_words(recorded, "runs", "show", run)
    assert done.exit_code == 0, done.output
    lines = [line for line in done.output.splitlines() if not line.startswith("trigger: ")]
    marked = {line.split()[1]: MARKS[line[0]] for line in lines if line[0] in MARKS}
    shown = {step: "failed" if status == "cancelled" else status for step, status in steps.items()}
    assert {step: status for step, status in marked.items() if step != "summary"} == shown
    (ended,) = [line for line in lines if line.startswith(f"{outcome} after {LISTED[name][0]}: ")]
    assert (f"{failed_step} stopped: " if failed_step else "") in ended
    assert advice in ended
    assert lines[-1].startswith(f"run {run}: {recorded.host}")
    assert ("trigger: scheduled" in done.output) is (LISTED[name][-1] == "scheduled")


@pytest.mark.parametrize("name", RUNS)
def test_the_command_prints_the_logs_of_each_step_and_of_one(recorded: Kubeflow, name: str) -> None:
    run = replay(recorded, name)
    pods = {each.step: each.node_id for each in step_pods(deserialized(name))}
    recorded.api.pod_logs = {node: step_log(step, f"I am {step}", a=1) for step, node in pods.items()}
    done = in_words(recorded, "runs", "logs", run)
    assert done.exit_code == 0, done.output
    own = [step for step in (*FLOWS[flow_of(name)], "summary") if step in pods]
    assert done.stdout.splitlines() == [line for step in own for line in (f"── {step}", f"I am {step}")]
    assert f"kubectl -n kubeflow logs -l pipeline/runid={run} " in done.stderr
    assert in_words(recorded, "runs", "logs", run, "ingest").stdout == "I am ingest\n"
    assert "launcher_v2.go" in in_words(recorded, "runs", "logs", run, "ingest", "--all").stdout


def test_the_models_of_older_runs_are_those_of_the_registry(
    recorded: Kubeflow, cluster: Cluster, tmp_path: Path
) -> None:
    run = replay(recorded, "run-promoted", storage={"repository": str(tmp_path / "repository")})
    recorded.api.logs = False
    assert [each.model_id for each in ClusterRuns(cluster).list()] == [""]
    ModelRegistry(tmp_path / "repository").hide(["i1"], who="me", why="it is gone")  # an event without a run
    events = tmp_path / "repository" / "events"
    event = json.loads((events / "1.json").read_text())
    registered = {"n": 2, "kind": "registered", "model_id": "0123456789abcdef", "run_id": run}
    write_json(events / "2.json", {**event, **registered})
    assert [each.model_id for each in ClusterRuns(cluster).list()] == ["0123456789abcdef"]


# the outcome


def test_a_run_that_had_failed_by_itself_when_it_was_cancelled_has_failed(recorded: Kubeflow, cluster: Cluster) -> None:
    run = replay(recorded, "run-unschedulable-cancelled")
    row = recorded.api.runs[run]
    cancelled_at = next(each["update_time"] for each in row["state_history"] if each.get("state") == "CANCELING")
    (executor,) = [
        task for task in row["run_details"]["task_details"]
        if task["display_name"] == "executor(0)" and task.get("state") == "FAILED"
    ]  # fmt: skip
    assert executor["end_time"] > cancelled_at
    assert ClusterRuns(cluster).show(run)["outcome"] == "cancelled"
    executor["end_time"] = "2026-11-30T06:01:29Z"  # two seconds before the request
    summary = ClusterRuns(cluster).show(run)
    assert (summary["outcome"], summary["failed_step"]) == ("failed", "finetune")


def test_a_retried_run_that_is_cancelled_again_was_cancelled(recorded: Kubeflow, cluster: Cluster) -> None:
    run = replay(recorded, "run-scheduled-cancelled-retried-failed")
    row = recorded.api.runs[run]
    assert ClusterRuns(cluster).show(run)["outcome"] == "failed"
    row["state_history"].insert(-1, {"update_time": "2026-11-30T05:51:00Z", "state": "CANCELING"})
    assert ClusterRuns(cluster).show(run)["outcome"] == "cancelled"


# while it runs


@pytest.mark.integration
@pytest.mark.parametrize("name", RUNS)
def test_while_it_runs_a_step_is_pending_until_its_pod_runs(recorded: Kubeflow, cluster: Cluster, name: str) -> None:
    run = recorded.api.replay(name, play=True)
    add_package(recorded.api, run, flow_of(name), timeout_s=10_000)
    seen: list[dict[str, Any]] = []
    if name in RETRIED:
        assert follow(cluster, run, watch=seen.append, poll_s=0)["outcome"] == "cancelled"
        recorded.api.advance(recorded.api.runs[run])
    assert follow(cluster, run, watch=seen.append, poll_s=0)["outcome"] == EXPECTED[name][0]
    states = [
        each["status"] for summary in seen[:-1] for each in summary["steps"]
        if each["step"] in ("finetune", "catalogue", "materialize")
    ]  # fmt: skip
    assert "pending" in states
    if name in ("run-promoted", "run-out-of-memory", "run-image-missing", "run-unschedulable-cancelled"):
        assert ("running" in states) is (name in ("run-promoted", "run-out-of-memory"))
