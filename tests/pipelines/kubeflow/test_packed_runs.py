"""Runs whose small steps share a pod, played by a server that speaks Kubeflow's API."""

# ruff: noqa: F811 (fixtures are asked for by their name)
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.packages import upload
from pipelines.kubeflow.runs import ClusterRuns, follow, submit
from pipelines.runs.runner import exit_code
from rankline.runtime.ledger import Entry, write_entry
from rankline.runtime.steps import TRAINING_STEPS
from tests.pipelines import golden
from tests.pipelines.kubeflow.kubeflow_world import cluster, compiled_once, kubeflow, nothing_of_ours  # noqa: F401
from tests.pipelines.kubeflow.recorded import LAUNCHER
from tests.servers.kubeflow import NAMESPACE, Kubeflow

PACKED = ("prepare", "featurize", "finetune", "distill", "export", "evaluate", "conclude")
WORK = {"started": 100.0, "finished": 104.5, "work_s": 4.0}
KILLED = "F1130 05:55:37.001957      17 main.go:62] failed to execute component: exit status 137"


def packed(*settings: str) -> Any:
    return golden.pinned("smoke", "cluster.pack=true", *settings)


def part(step: str, *lines: str, **entry: Any) -> list[str]:
    """What a step writes, with its result where it came to one."""
    result = [f"rankline-result: {json.dumps({'step': step, 'status': 'done', **WORK, **entry})}"] if entry else []
    return [f"rankline-step: {step}", f"{step} works", *lines, *result]


def log(*parts: list[str], end: str = "") -> str:
    return "\n".join([*LAUNCHER, *(line for each in parts for line in each), *([end] if end else [])]) + "\n"


def prepare_log(**ingest: Any) -> str:
    entry = ingest or {"status": "reused"}
    return log(part("resolve_inputs", result={}), part("ingest", **entry), part("validate", why="new data"))


def conclude_log(outcome: str, *, promotes: bool = False, failures: tuple[str, ...] = ()) -> str:
    decided = {"outcome": outcome, "model_id": "m1", "sentence": f"it is {outcome}", "failures": list(failures)}
    return log(part("decide", result=decided), *([part("promote", result={"event": 3})] if promotes else []))


def run_through(kubeflow: Kubeflow, cluster: Cluster, *settings: str) -> dict[str, Any]:
    run = submit(cluster, upload(cluster, packed(*settings))).run
    return follow(cluster, run, poll_s=0, settle_s=0)


def statuses(summary: dict[str, Any]) -> dict[str, str]:
    return {step["step"]: step["status"] for step in summary["steps"]}


DONE = dict.fromkeys(TRAINING_STEPS[:-1], "done") | {"ingest": "reused"}


# the verdict


@pytest.mark.parametrize(
    ("conclusion", "outcome", "code"),
    [
        (conclude_log("promote", promotes=True), "promoted", 0),
        (conclude_log("refused", failures=("ndcg@10",)), "refused", 3),
        (conclude_log("insufficient_data"), "insufficient data", 3),
        (conclude_log("pending"), "waiting for review", 0),
        (conclude_log("already_serving"), "already serving", 0),
    ],
)
def test_the_verdict_is_read_from_the_log_of_the_last_pod(
    kubeflow: Kubeflow, cluster: Cluster, conclusion: str, outcome: str, code: int
) -> None:
    kubeflow.api.pod_logs = {"prepare": prepare_log(), "conclude": conclusion}
    summary = run_through(kubeflow, cluster)
    assert (summary["outcome"], exit_code(summary), summary["model_id"]) == (outcome, code, "m1")
    assert summary["verdict"].startswith("it is ")
    assert summary["reasons"] == (["ndcg@10"] if outcome == "refused" else [])
    assert statuses(summary) == DONE | ({"promote": "done"} if outcome == "promoted" else {})
    assert {step["step"]: step["seconds"] for step in summary["steps"]}["ingest"] == 4.5
    (listed,) = ClusterRuns(cluster).list()
    assert (listed.outcome, listed.model_id) == (outcome, "m1")
    nodes = {task["display_name"] for task in kubeflow.api.runs[listed.run]["run_details"]["task_details"]}
    assert {name for name in nodes if f"{name}-driver" in nodes} == {*PACKED, "root"}


def test_wait_and_the_commands_of_runs(kubeflow: Kubeflow) -> None:
    kubeflow.api.pod_logs = {"prepare": prepare_log(), "conclude": conclude_log("refused", failures=("ndcg@10",))}
    where = ["--host", kubeflow.host, "--namespace", NAMESPACE, "--auth", "none"]
    pinned = [each for setting in (*golden.PINNED, "cluster.pack=true") for each in ("--set", setting)]
    words = ["submit", "--recipe", "smoke", *pinned, "--wait", "--poll", "0.05", *where]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 3, done.output
    assert "\nrefused after " in done.output
    assert "not met: ndcg@10" in done.output
    shown = CliRunner().invoke(app, ["runs", "show", "last", *where]).output
    assert "↺ ingest" in shown
    assert "✔ validate" in shown
    printed = CliRunner().invoke(app, ["runs", "logs", "last", "ingest", *where]).output
    assert [line for line in printed.splitlines() if "works" in line] == ["ingest works"]


def test_a_verdict_that_cannot_be_read_is_not_guessed(kubeflow: Kubeflow, cluster: Cluster) -> None:
    kubeflow.api.logs = False
    summary = run_through(kubeflow, cluster)
    assert (summary["outcome"], exit_code(summary)) == ("incomplete", 1)
    assert summary["verdict"] == "It succeeded; its verdict could not be read."
    assert statuses(summary) == dict.fromkeys(TRAINING_STEPS, "done")
    assert "shares a pod with promote" in {step["step"]: step["why"] for step in summary["steps"]}["decide"]
    assert [each.outcome for each in ClusterRuns(cluster).list()] == ["incomplete"]


def test_logs_that_are_gone_are_asked_for_once_in_a_list(kubeflow: Kubeflow, cluster: Cluster) -> None:
    for _ in range(3):
        run_through(kubeflow, cluster)
    kubeflow.api.logs, before = False, len(kubeflow.api.asked)
    assert {each.outcome for each in ClusterRuns(cluster).list()} == {"incomplete"}
    asked = [each for each in kubeflow.api.asked[before:] if each.endswith("/log")]
    assert len({each.partition("/nodes/")[0] for each in asked}) == 1  # one run's, by every name that it may have


def test_where_the_workspace_is_mounted_here_its_ledger_is_read(
    kubeflow: Kubeflow, cluster: Cluster, tmp_path: Path
) -> None:
    kubeflow.api.logs = False
    run = submit(cluster, upload(cluster, packed(f"cluster.workspace={tmp_path}"))).run
    for step in TRAINING_STEPS:
        result = {"outcome": "promote", "model_id": "m1"} if step == "decide" else {}
        write_entry(tmp_path / "runs" / run, Entry(step=step, status="done", result=result, **WORK))
    assert follow(cluster, run, poll_s=0)["outcome"] == "promoted"
    assert [each.outcome for each in ClusterRuns(cluster).list()] == ["promoted"]


# a step that fails


def test_the_part_that_failed_is_named(kubeflow: Kubeflow, cluster: Cluster) -> None:
    kubeflow.api.fails_at = "prepare"
    failed = part("ingest", status="failed", error="the source is empty", exit_code=2)
    kubeflow.api.pod_logs = {"prepare": log(part("resolve_inputs", result={}), failed)}
    summary = run_through(kubeflow, cluster)
    assert (summary["outcome"], summary["failed_step"], summary["error"]) == ("failed", "ingest", "the source is empty")
    reached = {"resolve_inputs": "done", "ingest": "failed"}
    assert statuses(summary) == dict.fromkeys(TRAINING_STEPS, "skipped") | reached


def test_the_part_that_was_killed_names_the_setting_of_the_pod(kubeflow: Kubeflow, cluster: Cluster) -> None:
    kubeflow.api.fails_at = "conclude"
    kubeflow.api.pod_logs = {"prepare": prepare_log(), "conclude": log(part("decide"), end=KILLED)}
    summary = run_through(kubeflow, cluster)
    assert summary["failed_step"] == "decide"
    assert summary["error"].startswith("killed for memory: raise cluster.data.memory (")


def test_stale_evidence_is_an_outcome_of_its_own(kubeflow: Kubeflow, cluster: Cluster) -> None:
    kubeflow.api.fails_at = "conclude"
    stale = part("decide", status="failed", error="the champion changed", exit_code=4, final=True)
    kubeflow.api.pod_logs = {"prepare": prepare_log(), "conclude": log(stale)}
    summary = run_through(kubeflow, cluster)
    assert (summary["outcome"], exit_code(summary), summary["failed_step"]) == ("stale", 4, "decide")


def test_a_retry_begins_the_task_again(kubeflow: Kubeflow, cluster: Cluster) -> None:
    kubeflow.api.fails_at = "prepare"
    kubeflow.api.pod_logs = {"prepare": log(part("resolve_inputs", status="failed", error="no such bucket"))}
    failed = run_through(kubeflow, cluster)
    assert failed["failed_step"] == "resolve_inputs"
    kubeflow.api.pod_logs = {"prepare": prepare_log(), "conclude": conclude_log("promote", promotes=True)}
    assert ClusterRuns(cluster, poll_s=0).retry(failed["run"])["outcome"] == "promoted"


# while it runs, and what it prints


def test_while_a_pod_runs_only_what_has_begun_is_shown(kubeflow: Kubeflow, cluster: Cluster) -> None:
    kubeflow.api.pod_logs = {"prepare": log(part("resolve_inputs", result={}), part("ingest"))}
    run = submit(cluster, upload(cluster, packed())).run
    seen = [statuses(ClusterRuns(cluster).show(run)) for _ in range(6)]
    assert {"resolve_inputs": "done", "ingest": "running"} in seen


def test_logs_of_each_step_and_of_one(kubeflow: Kubeflow, cluster: Cluster) -> None:
    kubeflow.api.pod_logs = {"prepare": prepare_log(), "conclude": conclude_log("promote", promotes=True)}
    run = run_through(kubeflow, cluster)["run"]
    printed = [(each.step, each.line) for each in ClusterRuns(cluster).logs(run) if "works" in each.line]
    assert printed == [(step, f"{step} works") for step in TRAINING_STEPS if step in ("decide", "promote")
                       or step in ("resolve_inputs", "ingest", "validate")]  # fmt: skip
    assert [each.line for each in ClusterRuns(cluster).logs(run, "promote")] == ["promote works"]
    everything = [each.line for each in ClusterRuns(cluster).logs(run, everything=True)]
    assert everything.count("ingest works") == 1
