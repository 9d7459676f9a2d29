"""Why a run of a cluster waits, failed or was refused: from its steps, its pods and its workspace."""

# ruff: noqa: F811 (fixtures are asked for by their name)
from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from components.summary.config import SummaryConfig
from pipelines.kubeflow import runs as cluster_runs
from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.errors import Unreachable
from pipelines.kubeflow.nodes import step_pods
from pipelines.kubeflow.runs import ClusterRuns, follow
from pipelines.runs.runner import exit_code
from rankline.errors import RanklineError, StaleEvidence, UsageError
from rankline.io.storage import open_filesystem
from rankline.registry.model_registry import ModelRegistry
from rankline.runtime.ledger import Entry, write_entry
from rankline.runtime.run_summary import KubeflowEnd, note_cancelled, summarize
from rankline.runtime.steps import FLOWS
from tests.pipelines import golden
from tests.pipelines.kubeflow.kubeflow_world import compiled_once, nothing_of_ours  # noqa: F401
from tests.pipelines.kubeflow.recorded import (  # noqa: F401
    EVENTS,
    PODS,
    add_package,
    clock_at,
    cluster,
    deserialized,
    in_words,
    pod,
    recorded,
    replay,
    step_log,
    use_kubeconfig,
)  # fmt: skip
from tests.servers.kubeflow import GONE, Kubeflow, recording
from tests.servers.kubeflow.recordings import as_of

STUCK = "run-unschedulable-cancelled"
OOM, OOM_NODE = "run-out-of-memory", "rankline-smoke-v8n6p-3768103297"
IMAGE_NODE = "rankline-smoke-m9k7w-267398656"
WAITING_NODE = "rankline-smoke-j8mrn-271016992"


# while it waits


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
        (
            {"containerStatuses": [{"name": "main", "state": {"waiting": {"reason": "ContainerCreating"}}}]},
            [{"reason": "FailedMount", "lastTimestamp": "2026-11-30T06:00:09Z", "eventTime": None},
             {"reason": "BackOff", "lastTimestamp": None, "eventTime": "2026-11-30T06:00:09.500000Z"},
             {"reason": "FailedScheduling", "lastTimestamp": "2026-11-30T05:59:59Z", "eventTime": None}],
            "BackOff",
        ),
        ({"containerStatuses": [{"name": "main", "state": {"waiting": {"reason": "ContainerCreating"}}}]}, [],
         "waits for its pod to begin"),
    ],
)  # fmt: skip
def test_a_pod_that_is_not_placed(
    recorded: Kubeflow, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    status: dict[str, Any], events: list[dict[str, str | None]], expected: str,
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
    run = recorded.api.replay(STUCK)
    recorded.api.runs[run] = as_of(recorded.api.runs[run], "2026-11-30T06:00:00Z")
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


def test_a_request_to_end_it_that_fails_is_sent_again(
    recorded: Kubeflow, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_runs, "PENDING_GRACE_S", -1e9)
    run, terminate = at_waiting(recorded), cluster.client.terminate_run
    watch = cluster_runs.RunWatch(cluster, run)
    asked = []

    def fail_once(run_id: str) -> Any:
        asked.append(run_id)
        if len(asked) == 1:
            raise Unreachable("the cluster does not answer")
        return terminate(run_id)

    monkeypatch.setattr(cluster.client, "terminate_run", fail_once)
    assert watch.poll() is None
    assert watch.poll() is not None
    watch.poll()
    assert asked == [run, run]


def test_a_run_that_ended_by_itself_at_that_moment_is_no_error(
    recorded: Kubeflow, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_runs, "PENDING_GRACE_S", -1e9)
    watch = cluster_runs.RunWatch(cluster, at_waiting(recorded))

    def refuse(run_id: str) -> None:
        raise UsageError("the run has ended")

    monkeypatch.setattr(cluster.client, "terminate_run", refuse)
    assert watch.poll() is not None


def test_why_it_was_ended_is_in_its_summary_and_in_every_later_command(
    recorded: Kubeflow, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_runs, "PENDING_GRACE_S", -1e9)
    run = at_waiting(recorded)
    add_package(recorded.api, run, workspace=str(tmp_path / "rankline"))
    folder = tmp_path / "rankline" / "runs" / run
    for step in FLOWS["train"][:4]:
        write_entry(folder, Entry(step=step, status="done", started=1.0, finished=2.0))
    cluster_runs.RunWatch(cluster, run).poll()
    why = "finetune did not begin within cluster.train.timeout_s (60 s): waits for its pod to begin"
    summary = summarize(folder, config=SummaryConfig(), kubeflow_end=KubeflowEnd("FAILED"))
    assert (summary["outcome"], summary["error"]) == ("cancelled", f"it was cancelled: {why}")
    recorded.api.runs[run] = recording("run-unschedulable-cancelled")
    assert ClusterRuns(cluster).show(run)["error"] == why
    assert f"cancelled after 7:20: {why}" in in_words(recorded, "runs", "show", run).output
    note_cancelled(folder)  # by a user, who needs no reason
    assert ClusterRuns(cluster).show(run)["error"] == ""


@pytest.mark.integration
def test_a_reason_for_a_bucket_is_written_though_no_step_has_begun(
    recorded: Kubeflow, cluster: Cluster, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_runs, "PENDING_GRACE_S", -1e9)
    run = at_waiting(recorded)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    add_package(recorded.api, run, storage={"workspace": url})
    cluster_runs.RunWatch(cluster, run).poll()
    fs, root = open_filesystem(url)
    record = json.loads(fs.cat_file(f"{root}/runs/{run}/cancel.json"))
    assert record["why"].startswith("finetune did not begin within cluster.train.timeout_s (60 s)")


def test_the_command_that_ended_it_says_so_and_has_failed(recorded: Kubeflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_runs, "PENDING_GRACE_S", -1e9)
    recorded.api.next_recording = "run-unschedulable-cancelled"
    pinned = [each for setting in golden.PINNED for each in ("--set", setting)]
    done = in_words(recorded, "submit", "--recipe", "smoke", *pinned, "--wait", "--poll", "0.05")
    assert done.exit_code == 1
    assert "cancelled after 7:20: " in done.output
    assert "did not begin within cluster." in done.output


# why it ended


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
    folder = tmp_path / "rankline" / "runs" / run  # where the ledger knows no more than that it ran
    write_entry(folder, Entry(step="finetune", status="running", started=1.0))
    add_package(recorded.api, run, workspace=str(tmp_path / "rankline"))
    assert ClusterRuns(cluster).show(run)["error"] == killed
    add_package(recorded.api, run)
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
    failure = "F1130 05:45:50.332347      17 main.go:53] failed to execute component: exit status 137\n"
    recorded.api.pod_logs = {OOM_NODE: step_log("finetune", "epoch 1") + failure}  # as after a kill for memory
    error = ClusterRuns(cluster).show(run)["error"]
    assert error.startswith("Evicted: The node was low on resource: ephemeral-storage.; see `kubectl ")


def test_the_error_of_a_step_is_the_one_that_it_wrote(recorded: Kubeflow, cluster: Cluster) -> None:
    run = replay(recorded, "run-scheduled-cancelled-retried-failed")
    error = "the champion changed since this model was evaluated\n  try: run the pipeline again"
    node = "audit2w9dr-1-3829983574-4034613478"
    recorded.api.pod_logs = {node: step_log("decide", status="failed", error=error)}
    assert ClusterRuns(cluster).show(run)["error"] == error
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
    assert [(each.run, each.outcome) for each in ClusterRuns(cluster).list()] == [(run, "stale")]
    recorded.api.logs = False
    assert [each.outcome for each in ClusterRuns(cluster).list()] == ["failed"]


@pytest.mark.parametrize("flow", ["train", "refresh"])
def test_a_run_whose_comparison_came_too_late_is_not_retried(recorded: Kubeflow, cluster: Cluster, flow: str) -> None:
    run = replay(recorded, "run-scheduled-cancelled-retried-failed")
    if flow == "refresh":
        id = recorded.api.runs[run]["pipeline_version_reference"]["pipeline_id"]
        recorded.api.pipelines[id]["display_name"] += "-refresh"
    node = "audit2w9dr-1-3829983574-4034613478"
    result = step_log("decide", status="failed", error="too late", exit_code=StaleEvidence.exit_code)
    recorded.api.pod_logs = {node: result}
    before = len(recorded.api.asked)
    refusal = in_words(recorded, "runs", "retry", run).exception
    assert isinstance(refusal, UsageError)
    command = "rankline submit" + (" --flow refresh" if flow == "refresh" else "")
    assert f"`{command}` of its recipe" in refusal.hint
    assert not [each for each in recorded.api.asked[before:] if each.endswith(":retry")]
    recorded.api.logs = False  # nothing says so any more: the cluster is asked
    with contextlib.suppress(RanklineError):
        ClusterRuns(cluster).restart(run)
    assert [each for each in recorded.api.asked[before:] if each.endswith(":retry")]


def test_a_refusal_for_too_little_data_is_named_by_the_step(recorded: Kubeflow, cluster: Cluster) -> None:
    run = replay(recorded, "run-refused")
    (node,) = [each.node_id for each in step_pods(deserialized("run-refused")) if each.step == "decide"]
    result = {"outcome": "insufficient_data", "model_id": "0123456789abcdef", "sentence": "40 requests."}
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


def test_once_its_pod_is_gone_the_verdict_is_that_of_the_registry(
    recorded: Kubeflow, cluster: Cluster, tmp_path: Path
) -> None:
    run = replay(recorded, "run-refused", storage={"repository": str(tmp_path / "repository")})
    recorded.api.logs = False
    assert ClusterRuns(cluster).show(run)["reasons"] == []
    models, details = ModelRegistry(str(tmp_path / "repository")), {"outcome": "refused", "failures": ["floor ndcg@10"]}
    for run_id, sentence in (("another", "It is worse."), (run, "ndcg@10 is 0.4123."), ("a later one", "It is worse.")):
        models.append("rejected", "0123456789abcdef", who="decide", why=sentence, run_id=run_id, details=details)
    summary = ClusterRuns(cluster).show(run)
    assert (summary["verdict"], summary["reasons"]) == ("ndcg@10 is 0.4123.", ["floor ndcg@10"])
    assert (summary["outcome"], summary["model_id"]) == ("refused", "0123456789abcdef")
    assert "not met: floor ndcg@10" in in_words(recorded, "runs", "show", run).output


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
    assert f"try: `kubectl -n kubeflow logs {pod_name} -c main`" in str(refusal.value)
    folder = tmp_path / "rankline" / "runs" / run
    folder.mkdir(parents=True)
    (folder / "finetune.log").write_text("epoch 1\n")
    write_entry(folder, Entry(step="finetune", status="failed", started=1.0, error="the loss is not finite"))
    assert [(each.step, each.line) for each in ClusterRuns(cluster).logs(run, "finetune")] == [("finetune", "epoch 1")]
    assert ClusterRuns(cluster).show(run)["error"] == "the loss is not finite"
    with pytest.raises(RanklineError, match="the log of resolve_inputs, ingest, validate, featurize, summary cannot"):
        list(ClusterRuns(cluster).logs(run))


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ({"workspace": "/mnt/rankline"}, "-w /mnt/rankline` in a pod that mounts the workspace, as logs.yaml of"),
        ({"storage": {"workspace": "s3://acme/team"}}, "-w s3://acme/team`: the pods are gone"),
    ],
)
def test_once_the_pods_are_gone_the_workspace_is_named(
    recorded: Kubeflow, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Any, says: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    run = replay(recorded, OOM, **place)
    recorded.api.logs = False
    command = f"`rankline runs logs {run} finetune {says}"

    def texts() -> list[str]:
        with pytest.raises(RanklineError) as refusal:
            list(ClusterRuns(cluster).logs(run, "finetune"))
        return [refusal.value.hint, ClusterRuns(cluster).show(run)["error"]]

    assert [command in each for each in texts()] == [False, False]
    clock_at(monkeypatch, "2026-11-30T09:00:00Z")
    now = texts()
    assert [command in each for each in now] == [True, True]
    assert "kubectl" not in str(now)
    assert ClusterRuns(cluster).logs_command(run) == ""
    (version,) = [each for each in recorded.api.versions.values() if "pipeline_spec" in each]
    platform = version["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]
    platform["pipelineConfig"] = {"resourceTtlOnCompletion": 86_400}  # cluster.keep_s
    cluster._cache.clear()
    assert ["kubectl" in each for each in texts()] == [True, True]


def test_a_pod_that_is_gone_is_not_to_be_described(
    recorded: Kubeflow, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = replay(recorded, "run-image-missing")
    recorded.api.log = ""
    assert "see `kubectl -n kubeflow describe pod" in ClusterRuns(cluster).show(run)["error"]
    clock_at(monkeypatch, "2026-11-30T09:00:00Z")
    assert ClusterRuns(cluster).show(run)["error"].endswith("it is gone, and so are its events")


def test_a_step_that_waits_has_no_log_yet(recorded: Kubeflow, cluster: Cluster) -> None:
    run = at_waiting(recorded)
    waiting = recorded.api.pod_logs
    waiting |= {each.node_id: step_log(each.step, "epoch 1") for each in step_pods(deserialized(STUCK))}
    waiting[WAITING_NODE] = GONE
    assert {each.step for each in ClusterRuns(cluster).logs(run)} == {*FLOWS["train"][:4]}
    with pytest.raises(RanklineError, match="the log of finetune cannot be read"):
        list(ClusterRuns(cluster).logs(run, "finetune"))


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


def test_a_namespace_that_means_nothing_there_is_reported(recorded: Kubeflow) -> None:
    listed = in_words(recorded, "runs", "list", "--namespace", "team")
    assert listed.exit_code == 0
    assert "--namespace team is ignored" in listed.stderr
    assert "ignored" not in in_words(recorded, "runs", "list").stderr
