"""Cancelling a run of a cluster, and retrying one."""

# ruff: noqa: F811 (fixtures are asked for by their name)
from __future__ import annotations

import contextlib
import socket
import threading
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from components.summary.config import SummaryConfig
from components.summary.step import summarize
from pipelines.kubeflow import run_package
from pipelines.kubeflow import runs as cluster_runs
from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.packages import upload
from pipelines.kubeflow.remote_files import RemoteFiles
from pipelines.kubeflow.runs import ClusterRuns, follow, submit
from rankline.errors import RanklineError, UsageError
from tests.pipelines import golden
from tests.pipelines.kubeflow.kubeflow_world import cluster, compiled_once, kubeflow, nothing_of_ours, reach  # noqa: F401
from tests.servers.kubeflow import NAMESPACE, Kubeflow


def submitted(cluster: Cluster) -> str:
    return submit(cluster, upload(cluster, golden.pinned("smoke"))).run


def test_cancel_ends_a_run(kubeflow: Kubeflow, cluster: Cluster) -> None:
    run, runs = submitted(cluster), ClusterRuns(cluster, poll_s=0)
    assert runs.show(run)["outcome"] == "running"
    assert runs.cancel(run)["outcome"] == "cancelled"
    with pytest.raises(UsageError, match="is not running"):
        runs.cancel(run)


@pytest.mark.integration
def test_cancel_leaves_word_for_the_summary_where_the_workspace_is_mounted_here(
    kubeflow: Kubeflow, cluster: Cluster, tmp_path: Path
) -> None:
    recipe = golden.pinned("smoke", f"cluster.workspace={tmp_path / 'ws'}")
    run = submit(cluster, upload(cluster, recipe)).run
    folder = tmp_path / "ws" / "runs" / run
    folder.mkdir(parents=True)
    ClusterRuns(cluster, poll_s=0).cancel(run)
    assert summarize(folder, config=SummaryConfig())["outcome"] == "cancelled"


@pytest.mark.integration
def test_a_bucket_that_does_not_answer_is_asked_once_and_after_the_run_was_cancelled(
    kubeflow: Kubeflow, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    pytest.importorskip("s3fs")
    recipe = golden.pinned("smoke", "cluster.workspace=/ws", "storage.workspace=s3://none/ws")
    run = submit(cluster, upload(cluster, recipe)).run
    cancelled_before: list[bool] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            clients = []
            with contextlib.suppress(OSError):  # the test is over
                while True:
                    clients.append(listener.accept())  # and never answers
                    cancelled_before.append(f"POST /apis/v2beta1/runs/{run}:terminate" in kubeflow.api.asked)

        threading.Thread(target=accept, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
        cluster.files.timeout_s = 3.0
        assert ClusterRuns(cluster, poll_s=0).cancel(run)["outcome"] == "cancelled"
        assert cancelled_before[0]
        assert cluster.files.ask("s3://none/ws", lambda: "an answer") is None


def test_a_place_that_fails_is_not_asked_again() -> None:
    def fail() -> None:
        asked.append("one")
        raise OSError

    files, asked, released = RemoteFiles(timeout_s=0.01), list[str](), threading.Event()
    assert files.ask("slow", released.wait) is None
    assert files.ask("failing", fail) is None
    released.set()
    assert (files.ask("slow", fail), files.ask("failing", fail), asked) == (None, None, ["one"])
    assert RemoteFiles().ask("other", lambda: 1) == 1


def test_cancel_waits_as_long_as_argo_needs(
    kubeflow: Kubeflow, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, runs = submitted(cluster), ClusterRuns(cluster, poll_s=0)
    runs.show(run)
    kubeflow.api.pace = 0  # nothing moves
    clock = [0.0]
    monkeypatch.setattr(cluster_runs.time, "monotonic", lambda: clock[0])

    def watch(summary: dict[str, Any]) -> None:
        assert summary["outcome"] == "running"
        clock[0] += 62.0

    with pytest.raises(RanklineError, match="has not ended yet") as refusal:
        runs.cancel(run, watch=watch)
    assert clock[0] == 5 * 62.0
    assert "it goes on being cancelled" in str(refusal.value)


def test_ctrl_c_leaves_a_run_that_is_being_cancelled_to_itself(
    kubeflow: Kubeflow, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = submitted(cluster)
    kubeflow.api.pace = 0

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster_runs.time, "sleep", interrupted)
    where = ["--host", kubeflow.host, "--namespace", NAMESPACE, "--auth", "none"]
    done = CliRunner().invoke(app, ["runs", "cancel", run, *where])
    assert done.exit_code == 130
    assert f"interrupted; run {run} goes on being cancelled" in done.stderr
    assert f"POST /apis/v2beta1/runs/{run}:terminate" in kubeflow.api.asked


def test_a_run_that_failed_after_it_was_cancelled_counts_as_cancelled(kubeflow: Kubeflow, cluster: Cluster) -> None:
    run = submitted(cluster)
    cluster.client.terminate_run(run)
    kubeflow.api.end(kubeflow.api.runs[run])  # as the workflow's own state is, in some versions
    assert ClusterRuns(cluster).show(run)["outcome"] == "cancelled"


@pytest.mark.parametrize(("hours", "settings"), [(27, []), (4, ["cluster.run_timeout_s=10800"])])
def test_a_failed_run_is_not_retried_once_the_cluster_would_end_it_at_once(
    kubeflow: Kubeflow, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, hours: int, settings: list[str]
) -> None:
    kubeflow.api.fails_at = "distill"
    run = submit(cluster, upload(cluster, golden.pinned("smoke", *settings))).run
    assert follow(cluster, run, poll_s=0)["outcome"] == "failed"
    kubeflow.api.fails_at = ""
    began_s = datetime.fromisoformat(kubeflow.api.runs[run]["created_at"]).timestamp()
    with monkeypatch.context() as patch:
        patch.setattr(run_package, "time", SimpleNamespace(time=lambda: began_s + hours * 3600))
        with pytest.raises(UsageError, match="deadline has passed") as refused:
            ClusterRuns(cluster, poll_s=0).retry(run)
    assert "rankline submit" in refused.value.hint
    assert ClusterRuns(cluster, poll_s=0).retry(run)["outcome"] == "promoted"


def test_a_run_that_was_once_cancelled_has_no_deadline_any_more(
    kubeflow: Kubeflow, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeflow.api.fails_at = "distill"
    run = submit(cluster, upload(cluster, golden.pinned("smoke"))).run
    follow(cluster, run, poll_s=0)
    row = kubeflow.api.runs[run]
    row["state_history"] = [{"update_time": row["created_at"], "state": state} for state in
                            ("RUNNING", "CANCELING", "FAILED", "RUNNING", "FAILED")]  # fmt: skip
    kubeflow.api.fails_at = ""
    began_s = datetime.fromisoformat(row["created_at"]).timestamp()
    monkeypatch.setattr(run_package, "time", SimpleNamespace(time=lambda: began_s + 99 * 3600))
    assert ClusterRuns(cluster, poll_s=0).retry(run)["outcome"] == "promoted"


def test_retry_goes_on_where_it_failed(kubeflow: Kubeflow, cluster: Cluster) -> None:
    kubeflow.api.fails_at = "distill"
    run, runs = submitted(cluster), ClusterRuns(cluster, poll_s=0)
    with pytest.raises(UsageError, match="cannot be retried"):
        runs.retry(run)
    assert follow(cluster, run, poll_s=0)["outcome"] == "failed"
    summaries: list[dict[str, Any]] = []
    assert runs.retry(run, watch=summaries.append)["outcome"] == "promoted"
    running = [step["step"] for each in summaries for step in each["steps"] if step["status"] == "running"]
    assert running[0] == "distill"
    with pytest.raises(UsageError, match="cannot be retried"):
        runs.retry(run)
