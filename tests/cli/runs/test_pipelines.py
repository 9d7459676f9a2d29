"""`rankline submit`, `runs` and `schedule` with a flow other than training, on a cluster."""

# ruff: noqa: F811 (fixtures are asked for by their name)
from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.runs import follow
from tests.cli.command import rankline
from tests.cli.runs.test_cluster import SETTINGS, RunCli, at_once, run_cli  # noqa: F401
from tests.pipelines import golden
from tests.pipelines.kubeflow.kubeflow_world import cluster, compiled_once, kubeflow, nothing_of_ours  # noqa: F401
from tests.pipelines.test_flows import ENDS
from tests.servers.kubeflow import Kubeflow

SUBMIT = ["submit", "--recipe", "smoke", *SETTINGS, "--poll", "0.05"]


@pytest.mark.integration
def test_compile_writes_the_package(tmp_path: Path) -> None:
    done = rankline("compile", "--recipe", "smoke", "--flow", "features", "-o", tmp_path / "flow.yaml", *SETTINGS)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "flow.yaml").read_text() == golden.path("features").read_text()


# submit


@pytest.mark.integration
@pytest.mark.parametrize(("flow", "verdict", "outcome", "code", "last"), ENDS)
def test_wait_ends_with_the_verdict(
    run_cli: RunCli, kubeflow: Kubeflow, flow: str, verdict: str, outcome: str, code: int, last: str
) -> None:
    kubeflow.api.verdict = verdict
    text = run_cli(*SUBMIT, "--flow", flow, "--wait", code=code)
    assert f"rankline-smoke-{flow} smoke-" in text
    assert f"{outcome} after" in text
    assert f"✔ {last}" in text
    shown = run_cli("runs", "show", "last", "--json")
    assert (shown["flow"], shown["outcome"]) == (flow, outcome)
    (row,) = run_cli("runs", "list", "--json")
    assert (row["recipe"], row["flow"]) == ("smoke", flow)
    header, line = run_cli("runs", "list").splitlines()
    assert line[header.index("flow") :].split() == [flow, "manual"]


def test_a_step_that_fails_ends_with_1(run_cli: RunCli, kubeflow: Kubeflow) -> None:
    kubeflow.api.fails_at = "materialize"
    assert "materialize stopped" in run_cli(*SUBMIT, "--flow", "features", "--wait", code=1)


def test_a_plan_of_a_smaller_flow_is_refused(run_cli: RunCli, kubeflow: Kubeflow) -> None:
    refusal = run_cli(*SUBMIT, "--flow", "refresh", "--plan", code=2)
    assert refusal.startswith("only the training pipeline can be planned")
    assert "found: --plan with --flow refresh" in refusal
    assert kubeflow.api.asked == []


# schedules


def create(run_cli: RunCli, flow: str, *more: str) -> Any:
    words = ["schedule", "create", "often", "-r", "smoke", "--flow", flow, *SETTINGS, "--cron", "0 0 3 * * *"]
    return run_cli(*words, "--lag", "6h", *more)


@pytest.mark.parametrize("flow", ["refresh", "features"])
def test_a_schedule_runs_its_flow(
    run_cli: RunCli, kubeflow: Kubeflow, cluster: Cluster, flow: str, tmp_path: Path
) -> None:
    kubeflow.api.verdict = "publish"
    words = ["schedule", "create", "often", "-r", "smoke", "--flow", flow, "--cron", "0 0 3 * * *", "--lag", "6h"]
    here = json.loads(CliRunner().invoke(app, [*words, "--json", "-w", str(tmp_path)]).stdout)
    there = create(run_cli, flow, "--json")
    assert there["flow"] == here["flow"] == flow
    assert set(here) <= set(there)
    assert run_cli("schedule", "list").splitlines()[1].split()[:2] == ["often", flow]
    assert f"flow             {flow}" in run_cli("schedule", "show", "often")
    (run,) = kubeflow.api.tick(datetime(2026, 11, 23, 3, tzinfo=UTC))
    follow(cluster, run, poll_s=0)
    shown = run_cli("runs", "show", run, "--json")
    assert (shown["flow"], shown["trigger"]["window_end"]) == (flow, "2026-11-22T21:00:00+00:00")
    (firing,) = run_cli("schedule", "show", "often", "--json")["runs"]
    assert (firing["outcome"], firing["exit_code"]) == (shown["outcome"], 0)


def test_update_takes_another_flow(run_cli: RunCli, kubeflow: Kubeflow) -> None:
    create(run_cli, "refresh")
    assert run_cli("schedule", "update", "often", "--lag", "1h", "--json")["flow"] == "refresh"
    assert run_cli("schedule", "update", "often", "--flow", "features", "--json")["flow"] == "features"
    (recurring_run,) = kubeflow.api.recurring.values()
    owner = kubeflow.api.pipelines[recurring_run["pipeline_version_reference"]["pipeline_id"]]
    assert owner["display_name"] == "rankline-smoke-features"


@pytest.mark.integration
def test_backfill_of_features(run_cli: RunCli, kubeflow: Kubeflow) -> None:
    create(run_cli, "features")
    words = ["schedule", "backfill", "often", "--from", "2026-11-01", "--to", "2026-11-03", "--json"]
    results = run_cli(*words)
    assert [(each["scheduled_at"][:10], each["what"], each["outcome"], each["exit_code"]) for each in results] == [
        ("2026-11-01", "ran", "materialized", 0), ("2026-11-02", "ran", "materialized", 0),
    ]  # fmt: skip
    given = [run["runtime_config"]["parameters"]["scheduled_at"] for run in kubeflow.api.runs.values()]
    assert given == ["backfill 2026-11-01T03:00:00+00:00", "backfill 2026-11-02T03:00:00+00:00"]
    assert [each["what"] for each in run_cli(*words, "--allow-older")] == ["done before"] * 2
    assert {row["flow"] for row in run_cli("runs", "list", "--json")} == {"features"}


def test_backfill_of_a_refresh_is_refused(run_cli: RunCli, kubeflow: Kubeflow) -> None:
    create(run_cli, "refresh")
    refusal = run_cli("schedule", "backfill", "often", "--from", "2026-11-01", "--to", "2026-11-03", code=2)
    assert refusal.startswith("a refresh publishes the current items")
    assert kubeflow.api.runs == {}


def test_what_failed_runs_again_as_the_same_flow(run_cli: RunCli, kubeflow: Kubeflow) -> None:
    create(run_cli, "features")
    words = ["schedule", "backfill", "often", "--from", "2026-11-01", "--to", "2026-11-02", "--allow-older", "--json"]
    kubeflow.api.fails_at = "materialize"
    assert [each["outcome"] for each in run_cli(*words, code=1)] == ["failed"]
    kubeflow.api.fails_at = ""
    assert [each["outcome"] for each in run_cli(*words)] == ["materialized"]
    assert [row["flow"] for row in run_cli("runs", "list", "--json")] == ["features"] * 2
