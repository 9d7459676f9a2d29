"""The smaller flows on a cluster: their packages, and runs of them as kfp's own client tells them."""

# ruff: noqa: F811 (fixtures are asked for by their name)
from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.ingest.config import IngestConfig
from components.ingest.window import with_scheduled_window
from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.conformance import package_problems
from pipelines.kubeflow.packages import parse_pipeline_name, pipeline_name, upload
from pipelines.kubeflow.recurring_runs import RecurringRunSpec, create, list_active
from pipelines.kubeflow.runs import ClusterRuns, follow, submit
from pipelines.package import compile_flow
from rankline.errors import UsageError
from rankline.runtime.outcomes import exit_code
from rankline.runtime.steps import ALL_STEPS, FLOWS, Flow
from tests.pipelines import golden
from tests.pipelines.kubeflow.kubeflow_world import cluster, compiled_once, kubeflow, nothing_of_ours  # noqa: F401
from tests.servers.kubeflow import Kubeflow

MORNING = datetime(2026, 11, 2, 3, 0, 0, tzinfo=UTC)
ENDS = [
    ("refresh", "publish", "published", 0, "publish"),
    ("refresh", "unchanged", "nothing changed", 0, "catalogue"),
    ("refresh", "refused", "refused", 3, "refused"),
    ("features", "", "materialized", 0, "materialize"),
]


def begun(cluster: Cluster, flow: Flow) -> str:
    return submit(cluster, upload(cluster, golden.pinned("smoke"), flow=flow)).run


# packages


def test_the_package_of_features_is_the_golden_file_and_the_server_would_take_it(tmp_path: Path) -> None:
    path = compile_flow(golden.pinned("smoke"), tmp_path / "flow.yaml", flow="features")
    assert path.read_text() == golden.path("features").read_text(), "see the difference, then `make golden`"
    assert list(package_problems(path)) == []
    executors = next(yaml.safe_load_all(path.read_text()))["deploymentSpec"]["executors"]
    assert set(executors) == {f"exec-{step.replace('_', '-')}" for step in (*FLOWS["features"], "summary")}
    assert {result["container"]["image"].split("@")[0].rsplit("-", 1)[-1] for result in executors.values()} == {"data"}


def test_how_many_nodes_train_is_nothing_to_a_flow_that_does_not(tmp_path: Path) -> None:
    recipe = golden.pinned("smoke", "cluster.train.nodes=2")
    package = compile_flow(recipe, tmp_path / "flow.yaml", flow="features")
    written = package.read_text().replace('"nodes": 2', '"nodes": 1')  # in the copy of the recipe for the run's folder
    assert written == golden.path("features").read_text()
    with pytest.raises(UsageError, match="one pod on one node"):
        compile_flow(recipe, tmp_path / "line.yaml")


@pytest.mark.parametrize("flow", ["refresh", "features"])
def test_the_scheduled_time_reaches_ingest(kubeflow: Kubeflow, cluster: Cluster, tmp_path: Path, flow: Flow) -> None:
    night = RecurringRunSpec(name="often", flow=flow, cron="0 0 3 * * *", window="1d", lag="1h")
    retained = create(cluster, night, golden.pinned("smoke"))
    assert (retained.recipe, retained.flow) == ("smoke", flow)
    assert list_active(cluster) == [retained]
    (run,) = kubeflow.api.tick(MORNING)
    spec = kubeflow.api.versions[retained.pipeline_version]["pipeline_spec"]["pipeline_spec"]
    assert spec["pipelineInfo"]["name"] == f"rankline-smoke-{flow}"
    line = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    inputs = line["ingest"]["inputs"]["parameters"]
    assert inputs["scheduled_at"] == {"componentInputParameter": "pipelinechannel--scheduled_at"}
    assert inputs["schedule_time"]["runtimeValue"]["constant"] == "{{$.pipeline_job_schedule_time_utc}}"
    schedule = inputs["run"]["runtimeValue"]["constant"]["schedule"]
    result = (kubeflow.api.arguments[run]["scheduled_at"], "")
    config = with_scheduled_window(IngestConfig(source="/data"), schedule, result, tmp_path)
    assert (config.window_start, config.window_end) == ("2026-11-01T02:00:00+00:00", "2026-11-02T02:00:00+00:00")


@pytest.mark.parametrize("flow", ["refresh", "features"])
def test_a_package_of_a_run_by_hand_has_no_such_parameter(flow: str) -> None:
    pipeline, _ = yaml.safe_load_all(golden.path(flow).read_text())
    assert "inputDefinitions" not in pipeline["root"]
    assert "scheduled_at" not in pipeline["components"]["comp-exit-handler-1"]["dag"]["tasks"]["ingest"]["inputs"]


# names


def test_each_flow_has_a_pipeline_of_its_own(kubeflow: Kubeflow, cluster: Cluster) -> None:
    recipe = golden.pinned("smoke")
    flows: tuple[Flow, ...] = ("train", "refresh", "features")
    versions = {flow: upload(cluster, recipe, flow=flow) for flow in flows}
    assert {flow: version.pipeline for flow, version in versions.items()} == {
        "train": "rankline-smoke", "refresh": "rankline-smoke-refresh", "features": "rankline-smoke-features",
    }  # fmt: skip
    assert len({version.pipeline_id for version in versions.values()}) == 3
    assert not upload(cluster, recipe, flow="refresh").uploaded
    assert {flow: parse_pipeline_name(version.pipeline) for flow, version in versions.items()} == {
        flow: ("smoke", flow) for flow in flows
    }


def test_a_recipe_that_is_named_like_anothers_refresh_is_refused(kubeflow: Kubeflow, cluster: Cluster) -> None:
    import dataclasses

    recipe = dataclasses.replace(golden.pinned("smoke"), name="smoke-refresh")
    with pytest.raises(UsageError, match="rankline-smoke-refresh belongs to a flow of another recipe"):
        upload(cluster, recipe)
    assert kubeflow.api.versions == {}
    assert parse_pipeline_name(pipeline_name(recipe, "refresh")) == ("smoke-refresh", "refresh")


# runs


@pytest.mark.parametrize(("flow", "verdict", "outcome", "code", "last"), ENDS)
def test_a_verdict_is_reported_by_the_tasks_that_ran(
    kubeflow: Kubeflow, cluster: Cluster, flow: Flow, verdict: str, outcome: str, code: int, last: str
) -> None:
    kubeflow.api.verdict = verdict
    observed: list[dict[str, Any]] = []
    result = follow(cluster, begun(cluster, flow), watch=observed.append, poll_s=0)
    assert (result["outcome"], result["flow"], exit_code(result["outcome"])) == (outcome, flow, code)
    assert result["verdict"]
    assert "decide" not in result["verdict"]
    done = [step["step"] for step in result["steps"] if step["status"] == "done"]
    line = [step for step in FLOWS[flow] if step != "publish" or outcome == "published"]
    assert [step for step in done if step in ALL_STEPS] == line
    assert last in done
    assert {each["flow"] for each in observed} == {flow}


def test_a_refresh_that_tells_of_no_verdict_is_not_taken_for_one(kubeflow: Kubeflow, cluster: Cluster) -> None:
    """A branch was taken, and nothing in it is known."""
    kubeflow.api.verdict = "publish"
    run = begun(cluster, "refresh")
    tasks = kubeflow.api.workflows[run].spec["components"]["comp-condition-2"]["dag"]["tasks"]
    tasks["something-new"] = tasks.pop("publish")
    assert follow(cluster, run, poll_s=0.01, settle_s=0.1)["outcome"] == "incomplete"


@pytest.mark.parametrize(
    ("flow", "step"), [("refresh", "catalogue"), ("refresh", "publish"), ("features", "materialize")]
)
def test_a_step_that_fails(kubeflow: Kubeflow, cluster: Cluster, flow: Flow, step: str) -> None:
    kubeflow.api.verdict, kubeflow.api.fails_at = "publish", step
    run = begun(cluster, flow)
    result = follow(cluster, run, poll_s=0)
    assert (result["outcome"], result["failed_step"]) == ("failed", step)
    again = ClusterRuns(cluster, poll_s=0).retry(run)
    assert again["outcome"] == {"refresh": "published", "features": "materialized"}[flow]


def test_list_and_logs_know_every_flow(kubeflow: Kubeflow, cluster: Cluster) -> None:
    kubeflow.api.verdict = "publish"
    runs = {flow: begun(cluster, flow) for flow in ("refresh", "features")}
    for run in runs.values():
        follow(cluster, run, poll_s=0)
    there = ClusterRuns(cluster, poll_s=0)
    assert [(line.recipe, line.flow, line.outcome) for line in there.list()] == [
        ("smoke", "refresh", "published"), ("smoke", "features", "materialized"),
    ]  # fmt: skip
    for flow, run in runs.items():
        lines = [each.step for each in there.logs(run) if each.line.startswith("hello")]
        assert lines[:-1] == list(FLOWS[flow])
    assert [each.line for each in there.logs(runs["refresh"], "catalogue")][1] == "it is SUCCEEDED"
    with pytest.raises(UsageError, match="there is no step 'paint'"):
        list(there.logs(runs["refresh"], "paint"))


def test_the_verdict_of_a_run_whose_pipeline_is_gone(kubeflow: Kubeflow, cluster: Cluster) -> None:
    kubeflow.api.verdict = "publish"
    run = begun(cluster, "refresh")
    kubeflow.api.pipelines.clear()
    assert follow(cluster, run, poll_s=0)["outcome"] == "published"
