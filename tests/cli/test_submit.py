"""`rankline submit` as people run it, against a server that speaks Kubeflow's API."""

# ruff: noqa: F811 (fixtures are asked for by their name)
from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest
from typer.testing import CliRunner

from cli.main import app
from tests.cli.command import RANKLINE
from tests.pipelines import golden
from tests.pipelines.kubeflow_world import compiled_once, kubeflow, nothing_of_ours  # noqa: F401
from tests.servers.kubeflow import NAMESPACE, Kubeflow


def command(kubeflow: Kubeflow, *more: str) -> list[str]:
    settings = [each for setting in golden.PINNED for each in ("--set", setting)]
    where = ["--host", kubeflow.host, "--namespace", NAMESPACE, "--auth", "none", "--poll", "0.05"]
    return ["submit", "--recipe", "smoke", *settings, *where, *more]


@pytest.mark.parametrize(
    ("verdict", "fails_at", "code", "told"),
    [
        ("promote", "", 0, ": Every gate is met; the model serves"),
        ("pending", "", 0, "waiting for review after"),
        ("already_serving", "", 0, "already serving after"),
        ("refused", "", 3, ": A gate is not met"),
        ("promote", "export", 1, "export stopped"),
    ],
)
def test_wait_ends_with_the_verdict(kubeflow: Kubeflow, verdict: str, fails_at: str, code: int, told: str) -> None:
    kubeflow.api.verdict, kubeflow.api.fails_at = verdict, fails_at
    done = CliRunner().invoke(app, command(kubeflow, "--wait"))
    assert done.exit_code == code, done.output
    assert told in done.output
    assert "(uploaded)" in done.output
    (run,) = kubeflow.api.runs
    assert f"{kubeflow.host}/#/runs/details/{run}" in done.output
    assert "▶ finetune" in done.output
    assert "✔ distill" in done.output


def test_json_is_all_that_is_printed(kubeflow: Kubeflow) -> None:
    begun = json.loads(CliRunner().invoke(app, command(kubeflow, "--json")).stdout)
    assert begun["uploaded"] is True
    assert begun["pipeline"] == "rankline-smoke"
    assert begun["version"].startswith("smoke-")
    assert begun["run"] in kubeflow.api.runs
    waited = json.loads(CliRunner().invoke(app, command(kubeflow, "--json", "--wait", "-e", "other")).stdout)
    assert (waited["uploaded"], waited["outcome"], waited["experiment"]) == (False, "promoted", "other")
    assert {each["display_name"] for each in kubeflow.api.experiments.values()} == {"rankline", "other"}


def test_what_is_wrong_is_told_before_anything_is_sent(kubeflow: Kubeflow) -> None:
    from rankline.errors import UsageError

    done = CliRunner().invoke(app, command(kubeflow, "--set", "finetune.colour=red"))
    assert isinstance(done.exception, UsageError)
    assert kubeflow.api.asked == []
    done = CliRunner().invoke(app, command(kubeflow, "--set", "cluster.images.data=tag:1"))
    assert isinstance(done.exception, UsageError)
    assert kubeflow.api.versions == {}


def test_ctrl_c_leaves_the_run_to_itself(kubeflow: Kubeflow) -> None:
    kubeflow.api.plots.clear()
    process = subprocess.Popen(
        [RANKLINE, *command(kubeflow, "--wait", "--poll", "30")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "/#/runs/details/" in line:
            break
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    (run,) = kubeflow.api.runs
    assert process.returncode == 130
    assert f"interrupted; run {run} goes on: {kubeflow.host}/#/runs/details/{run}" in told
    assert "the next run" not in told
    assert "Traceback" not in told
    assert kubeflow.api.runs[run]["state"] in ("PENDING", "RUNNING")
