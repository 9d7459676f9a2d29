"""`rankline runs` on a cluster, against a server that speaks Kubeflow's API."""

# ruff: noqa: F811 (fixtures are asked for by their name)
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from components.summary.config import SummaryConfig
from components.summary.step import summarize
from pipelines.kubeflow import recurring_runs
from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.packages import upload
from pipelines.kubeflow.runs import follow, submit
from pipelines.runs.store import RunInfo
from rankline.errors import RanklineError, UsageError
from rankline.runtime import ledger
from tests.pipelines import golden
from tests.pipelines.kubeflow.kubeflow_world import cluster, compiled_once, kubeflow, nothing_of_ours  # noqa: F401
from tests.servers.kubeflow import NAMESPACE, Kubeflow

SETTINGS = [each for setting in golden.PINNED for each in ("--set", setting)]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for nothing."""
    for place in (
        "cli.runs.runs.POLL_S",
        "cli.schedules.schedule.POLL_S",
        "pipelines.kubeflow.recurring_runs.SETTLE_S",
    ):
        monkeypatch.setattr(place, 0.0)
    monkeypatch.setattr(recurring_runs, "CLEAR_S", 0)


RunCli = Callable[..., Any]


@pytest.fixture
def run_cli(kubeflow: Kubeflow) -> RunCli:
    """Run a command against the cluster; returns what it prints, parsed with --json."""

    kubeflow.api.pace = 5

    def invoke(*words: str, code: int = 0) -> Any:
        where = ["--host", kubeflow.host, "--namespace", NAMESPACE, "--auth", "none"]
        done = CliRunner().invoke(app, [*words, *where], env={"COLUMNS": "200"})
        if isinstance(done.exception, RanklineError):
            assert done.exception.exit_code == code, done.exception
            return str(done.exception)
        assert done.exit_code == code, (done.output, done.exception)
        return json.loads(done.stdout) if "--json" in words else done.stdout

    return invoke


def submitted(cluster: Cluster) -> str:
    return submit(cluster, upload(cluster, golden.pinned("smoke"))).run


# which place is meant


@pytest.mark.parametrize(
    ("words", "host", "there"),
    [
        (["--host", "http://k/pipeline"], "", True),
        ([], "http://k/pipeline", True),
        ([], "", False),
        (["-w", "."], "http://k/pipeline", False),  # the command line goes before the environment
        (["--host", ""], "http://k/pipeline", False),
        (["--context", "far"], "", True),
        (["--auth", "port-forward"], "", True),
        (["-n", "team"], "", True),
    ],
)
def test_which_place_is_meant(
    words: list[str], host: str, there: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from cli.runs import runs

    targets: list[bool] = []

    def record(workspace: Path, where: Any) -> Any:
        targets.append(bool(where))
        raise UsageError("that is all")

    monkeypatch.setattr(runs, "_runs", record)
    monkeypatch.setenv("RANKLINE_KFP_HOST", host)
    monkeypatch.setenv("RANKLINE_KFP_NAMESPACE", "team")
    monkeypatch.setenv("RANKLINE_KFP_AUTH", "token")
    CliRunner().invoke(app, ["runs", "list", *words])
    assert targets == [there]


def test_both_places_at_once_are_refused() -> None:
    for words in (["runs", "list"], ["schedule", "list"]):
        done = CliRunner().invoke(app, [*words, "-w", ".", "--host", "http://k/pipeline"])
        assert isinstance(done.exception, UsageError)
        assert "both given" in str(done.exception)


# runs


def test_list_has_the_columns_and_the_json_of_a_workspace(run_cli: RunCli, cluster: Cluster) -> None:
    assert run_cli("runs", "list") == "no runs yet; start one with `rankline submit`\n"
    first, second = submitted(cluster), submitted(cluster)
    follow(cluster, first, poll_s=0)
    lines = run_cli("runs", "list").splitlines()
    assert lines[0].split() == ["run", "outcome", "took", "model", "flow", "trigger"]
    assert [line.split()[:2] for line in lines[1:]] == [[first, "promoted"], [second, "running"]]
    assert all(line.endswith("manual") for line in lines[1:])
    rows = run_cli("runs", "list", "--json")
    assert set(rows[0]) == {each.name for each in fields(RunInfo)}
    assert [row["recipe"] for row in rows] == ["smoke", "smoke"]
    assert rows[1]["seconds"] is None


def test_show_has_the_json_of_a_workspace(run_cli: RunCli, cluster: Cluster, tmp_path: Path) -> None:
    run = submitted(cluster)
    follow(cluster, run, poll_s=0)
    summary = run_cli("runs", "show", run, "--json")
    ledger.write_entry(tmp_path, ledger.Entry(step="resolve_inputs", status="done", started=1.0, finished=2.0))
    local = summarize(tmp_path, config=SummaryConfig())
    assert set(local) <= set(summary)
    assert set(local["steps"][0]) <= set(summary["steps"][0])
    assert summary["trigger"] is None
    text = run_cli("runs", "show", "last")
    assert "✔ finetune" in text
    assert ": Every gate is met; the model serves." in text
    assert "there is no run 'nope'" in run_cli("runs", "show", "nope", code=2)


@pytest.mark.integration
def test_logs_say_where_the_rest_is(run_cli: RunCli, kubeflow: Kubeflow, cluster: Cluster) -> None:
    run = submitted(cluster)
    follow(cluster, run, poll_s=0)
    assert "── finetune\nhello from rankline-smoke-" in run_cli("runs", "logs", run)
    where = ["--host", kubeflow.host, "--namespace", NAMESPACE, "--auth", "none"]
    done = CliRunner().invoke(app, ["runs", "logs", run, *where])
    assert f"drivers included: kubectl -n {NAMESPACE} logs -l pipeline/runid={run} -c main" in done.stderr
    done = CliRunner().invoke(app, ["runs", "logs", run, "finetune", *where])
    assert f"the pod of finetune: kubectl -n {NAMESPACE} logs rankline-smoke-" in done.stderr
    lines = CliRunner().invoke(app, ["runs", "logs", run, "finetune", "--json", *where]).stdout.splitlines()
    assert {json.loads(line)["step"] for line in lines} == {"finetune"}
    kubeflow.api.logs = False
    assert f"try: `kubectl -n {NAMESPACE} logs" in run_cli("runs", "logs", run, code=1)


@pytest.mark.integration
def test_cancel_and_retry(run_cli: RunCli, kubeflow: Kubeflow, cluster: Cluster) -> None:
    run = submitted(cluster)
    assert f"cancelled {run}; `rankline runs retry {run}` continues" in run_cli("runs", "cancel", run)
    assert "is not running" in run_cli("runs", "cancel", run, code=2)
    retried = run_cli("runs", "retry", run, "--json")
    assert (retried["run"], retried["outcome"]) == (run, "promoted")
    assert "cannot be retried" in run_cli("runs", "retry", run, code=2)
    kubeflow.api.fails_at = "distill"
    failed = submitted(cluster)
    follow(cluster, failed, poll_s=0)
    text = run_cli("runs", "retry", failed)
    assert f"run {failed} continues" in text
    assert "promoted after" in text


@pytest.mark.integration
@pytest.mark.parametrize(("verdict", "code"), [("refused", 3), ("pending", 0)])
def test_retry_ends_with_the_code_of_the_verdict(
    run_cli: RunCli, kubeflow: Kubeflow, cluster: Cluster, verdict: str, code: int
) -> None:
    run = submitted(cluster)
    run_cli("runs", "cancel", run)
    kubeflow.api.verdict = verdict
    run_cli("runs", "retry", run, code=code)
