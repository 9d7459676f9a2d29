"""Runs that wait for hours: found by `schedule list` and `doctor`, with what they wait for."""

# ruff: noqa: F811 (fixtures are asked for by their name)
from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.kubeflow import recurring_runs
from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.recurring_runs import RecurringRunSpec
from pipelines.kubeflow.waiting import find_waiting
from tests.cli.in_process import rankline
from tests.pipelines import golden
from tests.pipelines.kubeflow.kubeflow_world import compiled_once, nothing_of_ours  # noqa: F401
from tests.pipelines.kubeflow.recorded import (  # noqa: F401
    PODS,
    clock_at,
    cluster,
    in_words,
    pod,
    recorded,
    replay,
    use_kubeconfig,
)  # fmt: skip
from tests.pipelines.kubeflow.test_run_reasons import STUCK, WAITING_NODE, at_waiting
from tests.servers.kubeflow import Kubeflow


def test_a_step_that_is_pending_for_hours_is_found_with_its_reason(
    recorded: Kubeflow, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_kubeconfig(recorded, tmp_path, monkeypatch)
    run = at_waiting(recorded)
    unscheduled = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "1 Insufficient cpu",
    }
    recorded.api.kubernetes[PODS] = {"items": [pod(run, WAITING_NODE, conditions=[unscheduled])]}
    clock_at(monkeypatch, "2026-11-30T06:40:00Z")
    assert find_waiting(cluster) == []  # a node may still come
    clock_at(monkeypatch, "2026-11-30T09:00:00Z")
    (held,) = find_waiting(cluster)
    assert (held.run, held.step, held.recurring_run) == (run, "finetune", "")
    assert 2.9 < held.seconds / 3600 < 3.1
    assert held.reason == "Unschedulable: 1 Insufficient cpu (see cluster.train.cpu)"
    recorded.api.kubernetes.clear()
    done = rankline("doctor", "smoke", "--host", recorded.host, "--auth", "none")
    assert f"finetune has been pending for {held.seconds / 3600:.1f} hours" in done.stdout
    assert f"`rankline runs cancel {run}`" in done.stdout


def test_a_run_that_has_ended_or_works_for_hours_does_not_wait(
    recorded: Kubeflow, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock_at(monkeypatch, "2026-11-30T20:00:00Z")
    replay(recorded, STUCK)
    run = replay(recorded, "run-out-of-memory")
    assert find_waiting(cluster) == []
    row = recorded.api.runs[run]
    row["state"], row["finished_at"] = "RUNNING", None
    assert find_waiting(cluster) == []


@pytest.mark.parametrize(("state", "waits"), [("PENDING", True), ("RUNNING", False)])
def test_a_run_without_any_task_waits_as_a_whole_if_it_is_pending(
    recorded: Kubeflow, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, state: str, waits: bool
) -> None:
    recorded.api.runs[at_waiting(recorded)] |= {"run_details": {}, "state": state}
    clock_at(monkeypatch, "2026-11-30T09:00:00Z")
    expected = [("", "no pod of it has been created")] if waits else []
    assert [(each.step, each.reason) for each in find_waiting(cluster)] == expected


def test_the_list_of_schedules_names_the_run_that_holds_one_up(
    recorded: Kubeflow, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = {"schedule": {"name": "nightly", "recipe": "smoke", "cron": "0 0 3 * * *"}}
    spec = RecurringRunSpec(name="nightly", cron="0 0 3 * * *", metadata=metadata)
    nightly = recurring_runs.create(cluster, spec, golden.pinned("smoke"))
    run = at_waiting(recorded)
    recorded.api.runs[run]["recurring_run_id"] = nightly.id
    clock_at(monkeypatch, "2026-11-30T09:00:00Z")
    listed = in_words(recorded, "schedule", "list")
    assert listed.exit_code == 0, listed.output
    assert f"nightly: finetune of run {run} has been pending for " in listed.output
    clock_at(monkeypatch, "2026-11-30T06:00:00Z")
    assert "pending" not in in_words(recorded, "schedule", "list").output
