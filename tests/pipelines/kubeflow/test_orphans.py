"""Schedules that fire without being listed: how they come about, how they are found, and how they are ended."""

# ruff: noqa: F811 (fixtures are asked for by their name)
from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cli.project.checks.cluster import _schedules
from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.orphans import unlisted, unreadable
from pipelines.kubeflow.packages import upload
from pipelines.kubeflow.recurring_runs import RecurringRunSpec, create
from pipelines.kubeflow.runs import submit
from pipelines.kubeflow.scheduled_workflows import list_scheduled_workflows
from rankline.errors import AccessError, UsageError
from tests.pipelines import golden
from tests.pipelines.kubeflow.kubeflow_world import cluster, compiled_once, kubeflow, nothing_of_ours  # noqa: F401
from tests.servers.kubeflow import NAMESPACE, Kubeflow, schedules
from tests.servers.process import free_port

MORNING = datetime(2026, 11, 2, 3, tzinfo=UTC)


@pytest.fixture
def kubeconfig(kubeflow: Kubeflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeflow.kubeconfig(tmp_path)))


def nightly(**settings: Any) -> RecurringRunSpec:
    metadata = {"schedule": {"name": "nightly", "recipe": "smoke", "cron": "0 0 3 * * *"}}
    return RecurringRunSpec(**{"name": "nightly", "cron": "0 0 3 * * *", "metadata": metadata, **settings})


@pytest.fixture
def failure(kubeflow: Kubeflow, cluster: Cluster) -> AccessError:
    """The error of a recurring run that the database refused; its ScheduledWorkflow fires."""
    cluster.experiment_id("rankline")
    kubeflow.api.stores = False
    with pytest.raises(AccessError, match="schedule nightly is not stored, and may fire all the same") as refusal:
        create(cluster, nightly(), golden.pinned("smoke"))
    kubeflow.api.stores = True
    assert kubeflow.api.recurring == {}
    return refusal.value


def test_a_create_that_fails_says_how_to_find_what_it_may_have_left(kubeflow: Kubeflow, failure: AccessError) -> None:
    (workflow,) = kubeflow.api.scheduled_workflows.values()
    assert "Failed to store job nightly to table" in failure.found
    assert f"kubectl -n {NAMESPACE} get scheduledworkflows` shows it as nightly and five more" in failure.hint
    assert f"kubectl -n {NAMESPACE} delete scheduledworkflow NAME" in failure.hint
    assert workflow["metadata"]["name"][:-5] == "nightly"


def test_with_a_kubeconfig_it_names_what_was_left(kubeconfig: None, kubeflow: Kubeflow, failure: AccessError) -> None:
    (workflow,) = kubeflow.api.scheduled_workflows.values()
    assert failure.hint == f"`kubectl -n {NAMESPACE} delete scheduledworkflow {workflow['metadata']['name']}`"


def test_what_is_refused_leaves_nothing_behind(kubeflow: Kubeflow, cluster: Cluster) -> None:
    with pytest.raises(UsageError) as refusal:
        create(cluster, nightly(), golden.pinned("smoke", "ingest.window_end=2026-01-01"))
    assert "kubectl" not in str(refusal.value)


@pytest.mark.integration
def test_a_run_that_is_not_stored_may_run(kubeflow: Kubeflow, cluster: Cluster) -> None:
    version = upload(cluster, golden.pinned("smoke"))
    cluster.experiment_id("rankline")
    kubeflow.api.stores = False
    with pytest.raises(AccessError, match="is not stored, and may run all the same") as failure:
        submit(cluster, version)
    (workflow,) = kubeflow.api.unlisted
    assert "get workflows` shows it as rankline-smoke- and five more" in failure.value.hint
    assert workflow.startswith("rankline-smoke-")


def test_what_fires_unlisted_is_found_and_ended(
    kubeconfig: None, kubeflow: Kubeflow, cluster: Cluster, failure: AccessError
) -> None:
    good = create(cluster, nightly(name="weekly"), golden.pinned("smoke"))
    assert kubeflow.api.tick(MORNING) != []  # the good one's
    assert len(kubeflow.api.unlisted) == 1
    (orphan,) = unlisted(cluster)
    (id, workflow), _ = kubeflow.api.scheduled_workflows.items()
    assert id != good.id
    assert (orphan.kind, orphan.name, orphan.fires) == ("ScheduledWorkflow", workflow["metadata"]["name"], True)
    assert (orphan.pipeline, orphan.remedy) == (
        "rankline-smoke",
        f"kubectl -n {NAMESPACE} delete scheduledworkflow {orphan.name}",
    )
    schedules.delete_scheduled_workflow(kubeflow.api, id)
    assert unlisted(cluster) == []
    assert [each.status for each in _schedules(cluster)] == ["ok"]


def test_what_is_not_ours_is_left_out(kubeconfig: None, kubeflow: Kubeflow, cluster: Cluster) -> None:
    kubeflow.api.replay("recurringruns")
    for pipeline in kubeflow.api.pipelines.values():
        pipeline["display_name"] = "theirs"
    kubeflow.api.recurring.clear()
    for workflow in kubeflow.api.scheduled_workflows.values():
        workflow["metadata"]["namespace"] = NAMESPACE
    assert len(list_scheduled_workflows(cluster)) == 2
    assert unlisted(cluster) == []


def test_a_recurring_run_that_stores_no_schedule_is_found(kubeflow: Kubeflow, cluster: Cluster) -> None:
    create(cluster, nightly(metadata={}), golden.pinned("smoke"))
    (orphan,) = unreadable(cluster)
    assert (orphan.kind, orphan.name, orphan.fires) == ("recurring run", "nightly", True)
    kubeflow.api.versions.clear()  # a schedule of ours whose package was deleted is one, too
    create(cluster, nightly(name="weekly"), golden.pinned("smoke"))
    kubeflow.api.versions.clear()
    cluster._cache.clear()
    assert {each.name for each in unreadable(cluster)} == {"nightly", "weekly"}


def test_without_kubernetes_nobody_knows_what_fires_unlisted(
    kubeflow: Kubeflow, cluster: Cluster, failure: AccessError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AccessError, match="no kubeconfig leads to Kubernetes"):
        list_scheduled_workflows(cluster)
    (finding,) = _schedules(cluster)
    assert (finding.status, "not known" in finding.found, "kubeconfig" in finding.hint) == ("warn", True, True)
    path = kubeflow.kubeconfig(tmp_path)
    path.write_text(path.read_text().replace(str(kubeflow.port), str(free_port())))
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(AccessError, match="Kubernetes does not answer"):
        unlisted(cluster)
    path.write_text("a: [1,")  # as if there were none
    (finding,) = _schedules(cluster)
    assert (finding.status, "not known" in finding.found) == ("warn", True)
