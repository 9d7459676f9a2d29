"""The runs of a real server, replayed: what is said of them, their logs, and why they ended as they did."""

# ruff: noqa: F811 (fixtures are asked for by their name)
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kfp_server_api
import pytest
from typer.testing import CliRunner

from cli.main import app
from pipelines.kubeflow import runs as cluster_runs
from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.nodes import step_pods
from pipelines.kubeflow.runs import ClusterRuns, follow
from pipelines.runs.runner import exit_code
from rankline.errors import RanklineError, StaleEvidence
from rankline.io.files import write_json
from rankline.registry.model_registry import ModelRegistry
from rankline.runtime.ledger import Entry, write_entry
from rankline.runtime.steps import FLOWS
from tests.pipelines import golden
from tests.pipelines.kubeflow.kubeflow_world import compiled_once, nothing_of_ours  # noqa: F401
from tests.pipelines.kubeflow.recorded import (  # noqa: F401
    EVENTS,
    PODS,
    add_package,
    cluster,
    pod,
    recorded,
    step_log,
    use_kubeconfig,
)  # fmt: skip
from tests.servers.kubeflow import RUNS, Kubeflow, recording
from tests.servers.kubeflow.recordings import at_moment

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
OOM, OOM_NODE = "run-out-of-memory", "rankline-smoke-v8n6p-3768103297"
IMAGE_NODE = "rankline-smoke-m9k7w-267398656"
WAITING_NODE = "rankline-smoke-j8mrn-271016992"


def flow_of(name: str) -> str:
    return {"run-features": "features", "run-refresh-unchanged": "refresh"}.get(name, "train")


def replay(server: Kubeflow, name: str, **parameters: Any) -> str:
    run = server.api.replay(name)
    add_package(server.api, run, flow_of(name), **parameters)
    return run


def deserialized(name: str) -> Any:
    class Answer:
        data = json.dumps(recording(name))

    return kfp_server_api.ApiClient().deserialize(Answer, "V2beta1Run")


def in_words(server: Kubeflow, *words: str) -> Any:
    return CliRunner().invoke(app, [*words, "--host", server.host, "--auth", "none"])


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


@pytest.mark.parametrize("name", RUNS)
def test_wait_ends_as_the_run_did(recorded: Kubeflow, name: str) -> None:
    outcome, code, _, failed_step, _ = EXPECTED[name]
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


@pytest.mark.parametrize("name", RUNS)
def test_while_it_runs_a_step_is_pending_until_its_pod_runs(recorded: Kubeflow, cluster: Cluster, name: str) -> None:
    run = recorded.api.replay(name, play=True)
    add_package(recorded.api, run, flow_of(name), timeout_s=10_000)
    seen: list[dict[str, Any]] = []
    assert follow(cluster, run, watch=seen.append, poll_s=0)["outcome"] == EXPECTED[name][0]
    states = [
        each["status"] for summary in seen[:-1] for each in summary["steps"]
        if each["step"] in ("finetune", "catalogue", "materialize")
    ]  # fmt: skip
    assert "pending" in states
    began = "running" in states
    assert began is not (name in ("run-image-missing", "run-unschedulable-cancelled"))
    assert all(each["why"] for summary in seen[:-1] for each in summary["steps"] if each["status"] == "pending")


def test_why_a_pod_waits_is_read_from_kubernetes_and_remembered(
    recorded: Kubeflow, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_kubeconfig(recorded, tmp_path, monkeypatch)
    run = recorded.api.replay("run-image-missing", play=True)
    add_package(recorded.api, run)
    message = 'Back-off pulling image "registry.example/train@sha256:000"'
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": message}}}
    statuses = [{"name": "wait", **waiting}, {"name": "main", **waiting}]
    pods = [pod(run, IMAGE_NODE, containerStatuses=statuses), pod("another-run", "a-1", containerStatuses=statuses)]
    recorded.api.kubernetes[PODS] = {"items": pods}
    seen: list[str] = []

    def watch(summary: dict[str, Any]) -> None:
        seen.extend(each["why"] for each in summary["steps"] if each["step"] == "finetune")
        if summary["outcome"] != "running":
            recorded.api.kubernetes[PODS] = {"items": []}  # the pod goes

    recorded.api.log = ""
    summary = follow(cluster, run, watch=watch, poll_s=0)
    reason = f"ImagePullBackOff: {message} (see cluster.images.train)"
    assert reason in seen
    assert summary["error"] == f"its pod never began: {reason}"


@pytest.mark.parametrize(
    ("status", "events", "expected"),
    [
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                             "message": "0/1 nodes are available: 1 Insufficient cpu."}]}, [],
            "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu. (see cluster.train.cpu)",
        ),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                             "message": 'persistentvolumeclaim "rankline" not found'}]}, [],
            'Unschedulable: persistentvolumeclaim "rankline" not found (see cluster.volume)',
        ),
        (
            {"containerStatuses": [{"name": "main", "state": {"waiting": {"reason": "ContainerCreating"}}}]},
            [{"reason": "Scheduled", "message": "old"}, {"reason": "FailedMount", "message": "no such\nhost"}],
            "FailedMount: no such host",
        ),
        ({"containerStatuses": [{"name": "main", "state": {"waiting": {"reason": "ContainerCreating"}}}]}, [],
         "waits for its pod to begin"),
    ],
)  # fmt: skip
def test_a_pod_that_is_not_placed(
    recorded: Kubeflow, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    status: dict[str, Any], events: list[dict[str, str]], expected: str,
) -> None:  # fmt: skip
    use_kubeconfig(recorded, tmp_path, monkeypatch)
    run = at_waiting(recorded)
    recorded.api.kubernetes[PODS] = {"items": [pod(run, WAITING_NODE, **status)]}
    recorded.api.kubernetes[EVENTS] = {"items": events}
    (waiting,) = [each for each in ClusterRuns(cluster).show(run)["steps"] if each["step"] == "finetune"]
    assert (waiting["status"], waiting["why"]) == ("pending", expected)
    shown = in_words(recorded, "runs", "show", run)
    assert f"pending: {expected}" in shown.output


def at_waiting(recorded: Kubeflow) -> str:
    """The run whose pod is never placed, while it waits."""
    run = recorded.api.replay("run-unschedulable-cancelled")
    recorded.api.runs[run] = at_moment(recorded.api.runs[run], "2026-11-30T06:00:00Z")
    add_package(recorded.api, run)
    return run


def test_kubernetes_that_does_not_answer_is_asked_once(
    recorded: Kubeflow, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_kubeconfig(recorded, tmp_path, monkeypatch)
    run = at_waiting(recorded)
    recorded.api.kubernetes.clear()
    summary = ClusterRuns(cluster).show(run)
    assert [each["why"] for each in summary["steps"] if each["status"] == "pending"] == ["waits for its pod to begin"]
    watch = cluster_runs.RunWatch(cluster, run)
    before = len(recorded.api.asked)
    for _ in range(3):
        watch.poll()
    assert len([each for each in recorded.api.asked[before:] if PODS in each]) == 1


def test_a_run_whose_step_cannot_begin_is_ended(
    recorded: Kubeflow, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(cluster_runs.time, "monotonic", lambda: clock[0])
    run = at_waiting(recorded)
    watch = cluster_runs.RunWatch(cluster, run)

    def poll_at(seconds: float) -> dict[str, Any]:
        clock[0] = seconds
        summary = watch.poll()
        assert summary is not None
        return summary

    assert poll_at(0.0)["outcome"] == "running"
    poll_at(89.0)
    assert f"POST /apis/v2beta1/runs/{run}:terminate" not in recorded.api.asked
    poll_at(91.0)
    assert f"POST /apis/v2beta1/runs/{run}:terminate" in recorded.api.asked
    recorded.api.runs[run] = recording("run-unschedulable-cancelled")
    summary = poll_at(150.0)
    assert watch.ended
    assert summary["outcome"] == "cancelled"
    assert summary["error"] == (
        "finetune did not begin within cluster.train.timeout_s (60 s): waits for its pod to begin"
    )


def test_the_command_that_ended_it_says_so_and_has_failed(recorded: Kubeflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_runs, "PENDING_GRACE_S", -1e9)
    recorded.api.next_recording = "run-unschedulable-cancelled"
    pinned = [each for setting in golden.PINNED for each in ("--set", setting)]
    done = in_words(recorded, "submit", "--recipe", "smoke", *pinned, "--wait", "--poll", "0.05")
    assert done.exit_code == 1
    assert "cancelled after 7:20: " in done.output
    assert "did not begin within cluster." in done.output


# why


def test_a_step_that_was_killed_for_memory(
    recorded: Kubeflow, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = replay(recorded, OOM)
    killed = "killed for memory: raise cluster.train.memory (400Mi)"
    # by the launcher's last words
    log = (
        step_log("finetune", "epoch 1")
        + "F1130 05:45:50.3 17 main.go:53] failed to execute component: exit status 137\n"
    )
    recorded.api.pod_logs = {OOM_NODE: log}
    assert ClusterRuns(cluster).show(run)["error"] == killed
    # by the pod, as Kubernetes has it
    recorded.api.pod_logs = {OOM_NODE: step_log("finetune", "epoch 1")}
    assert "it ended without an error message" in ClusterRuns(cluster).show(run)["error"]
    use_kubeconfig(recorded, tmp_path, monkeypatch)
    recorded.api.kubernetes[PODS] = recording("pods-out-of-memory")
    assert ClusterRuns(cluster).show(run)["error"] == killed
    shown = in_words(recorded, "runs", "show", run)
    assert f"failed after 3:59: finetune stopped: {killed}" in shown.output


def test_a_pod_that_was_evicted(
    recorded: Kubeflow, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_kubeconfig(recorded, tmp_path, monkeypatch)
    run = replay(recorded, OOM)
    status = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: ephemeral-storage."}
    recorded.api.kubernetes[PODS] = {"items": [pod(run, OOM_NODE, **status)]}
    error = ClusterRuns(cluster).show(run)["error"]
    assert error.startswith("Evicted: The node was low on resource: ephemeral-storage.; see `kubectl ")


def test_the_error_of_a_step_is_the_one_that_it_wrote(recorded: Kubeflow, cluster: Cluster) -> None:
    run = replay(recorded, "run-scheduled-cancelled-retried-failed")
    error = "the champion changed since this model was evaluated\n  try: run the pipeline again"
    node = "audit2w9dr-1-3829983574-4034613478"
    recorded.api.pod_logs = {node: step_log("decide", status="failed", error=error, exit_code=1)}
    assert (ClusterRuns(cluster).show(run)["error"], ClusterRuns(cluster).show(run)["outcome"]) == (error, "failed")
    assert [each.line for each in ClusterRuns(cluster).logs(run, "decide")] == error.splitlines()
    shown = in_words(recorded, "runs", "show", run).output
    assert "decide stopped: the champion changed since this model was evaluated\n  try: run the pipeline again" in shown


def test_a_run_whose_comparison_came_too_late_is_stale(recorded: Kubeflow, cluster: Cluster) -> None:
    run = replay(recorded, "run-scheduled-cancelled-retried-failed")
    error = str(StaleEvidence("the champion changed since this model was evaluated", hint="`rankline submit` again"))
    result = step_log("decide", status="failed", error=error, exit_code=StaleEvidence.exit_code)
    recorded.api.pod_logs = {"audit2w9dr-1-3829983574-4034613478": result}
    summary = follow(cluster, run, poll_s=0)
    assert (summary["outcome"], summary["error"], exit_code(summary)) == ("stale", error, 4)
    assert "stale after" in in_words(recorded, "runs", "show", run).output


def test_a_refusal_for_too_little_data_is_named_by_the_step(recorded: Kubeflow, cluster: Cluster) -> None:
    run = replay(recorded, "run-refused")
    (node,) = [each.node_id for each in step_pods(deserialized("run-refused")) if each.step == "decide"]
    result = {
        "outcome": "insufficient_data",
        "model_id": "0123456789abcdef",
        "failures": [],
        "sentence": "40 requests.",
    }
    recorded.api.pod_logs = {node: step_log("decide", result=result)}
    summary = ClusterRuns(cluster).show(run)
    assert (summary["outcome"], exit_code(summary)) == ("insufficient data", 3)
    recorded.api.pod_logs = {}
    assert ClusterRuns(cluster).show(run)["outcome"] == "refused"


def test_a_refusal_names_the_gates_with_their_numbers(recorded: Kubeflow, cluster: Cluster) -> None:
    run = replay(recorded, "run-refused")
    decision = {
        "outcome": "refused", "model_id": "0123456789abcdef", "failures": ["floor ndcg@10"],
        "sentence": "ndcg@10 is 0.4123, and at least 0.99 is required.",
    }  # fmt: skip
    (node,) = [each.node_id for each in step_pods(deserialized("run-refused")) if each.step == "decide"]
    recorded.api.pod_logs = {node: step_log("decide", result=decision)}
    summary = ClusterRuns(cluster).show(run)
    assert (summary["verdict"], summary["reasons"]) == (decision["sentence"], decision["failures"])
    assert summary["model_id"] == "0123456789abcdef"
    shown = in_words(recorded, "runs", "show", run).output
    assert "refused after 6:37: ndcg@10 is 0.4123, and at least 0.99 is required.\nnot met: floor ndcg@10\n" in shown


def test_a_reused_step_and_the_second_life_of_a_killed_pod_are_shown(recorded: Kubeflow, cluster: Cluster) -> None:
    run = replay(recorded, "run-pod-killed-promoted")
    nodes = {each.step: each.node_id for each in step_pods(deserialized("run-pod-killed-promoted"))}
    recorded.api.pod_logs = {
        nodes["ingest"]: step_log("ingest", status="reused", why="unchanged since run a", peak_memory_bytes=2**21),
        nodes["finetune"]: step_log("finetune", why="seed: 7 -> 8; begun again: its process had been killed"),
    }
    steps = {each["step"]: each for each in ClusterRuns(cluster).show(run)["steps"]}
    assert (steps["ingest"]["status"], steps["ingest"]["peak_memory_mb"]) == ("reused", 2)
    assert "begun again: its process had been killed" in in_words(recorded, "runs", "show", run).output


# where the pods are gone


def test_logs_and_results_of_pods_that_are_gone_come_from_the_workspace(
    recorded: Kubeflow, cluster: Cluster, tmp_path: Path
) -> None:
    run = replay(recorded, OOM, workspace=str(tmp_path / "rankline"))
    recorded.api.logs = False
    with pytest.raises(RanklineError, match="the log of finetune cannot be read") as refusal:
        list(ClusterRuns(cluster).logs(run, "finetune"))
    pod_name = "rankline-smoke-v8n6p-retry-system-container-impl-3768103297"
    assert f"try: kubectl -n kubeflow logs {pod_name} -c main" in str(refusal.value)
    folder = tmp_path / "rankline" / "runs" / run
    folder.mkdir(parents=True)
    (folder / "finetune.log").write_text("epoch 1\n")
    write_entry(folder, Entry(step="finetune", status="failed", started=1.0, error="the loss is not finite"))
    assert [(each.step, each.line) for each in ClusterRuns(cluster).logs(run, "finetune")] == [("finetune", "epoch 1")]
    assert ClusterRuns(cluster).show(run)["error"] == "the loss is not finite"
    with pytest.raises(RanklineError, match="the log of resolve_inputs, ingest, validate, featurize, summary cannot"):
        list(ClusterRuns(cluster).logs(run))


def test_a_page_in_place_of_a_log_is_none(
    recorded: Kubeflow, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.servers.kubeflow import handler

    run = replay(recorded, OOM)
    recorded.api.pod_logs = {OOM_NODE: step_log("finetune", "<b>a line</b>", a=1).split("\n", 4)[4]}
    assert [each.line for each in ClusterRuns(cluster).logs(run, "finetune")] == ["<b>a line</b>"]
    answer = handler.Handler.answer
    monkeypatch.setattr(
        handler.Handler, "answer", lambda self, status, body, kind="application/json", **headers: answer(
            self, status, body, "text/html" if kind == "text/plain" else kind, **headers
        ),
    )  # fmt: skip
    with pytest.raises(RanklineError, match="a page in place of a log"):
        list(ClusterRuns(cluster).logs(run, "finetune"))


# a server with a single user


def test_a_namespace_that_means_nothing_there_is_told(recorded: Kubeflow) -> None:
    listed = in_words(recorded, "runs", "list", "--namespace", "team")
    assert listed.exit_code == 0
    assert "--namespace team is ignored" in listed.stderr
    assert "ignored" not in in_words(recorded, "runs", "list").stderr
