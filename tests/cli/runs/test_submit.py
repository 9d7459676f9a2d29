"""`rankline submit` on the command line, against a server that speaks Kubeflow's API."""

# ruff: noqa: F811 (fixtures are asked for by their name)
from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from pipelines.assets.synthetic_shop import write_shop
from pipelines.runs.plan import Plan
from pipelines.steps import CACHED_TRAINING_STEPS
from rankline.errors import SourceError
from tests.cli.command import RANKLINE
from tests.pipelines import golden
from tests.pipelines.kubeflow.kubeflow_world import compiled_once, kubeflow, nothing_of_ours  # noqa: F401
from tests.servers.kubeflow import NAMESPACE, Kubeflow

PINNED = [each for setting in golden.PINNED for each in ("--set", setting)]
REUSABLE = CACHED_TRAINING_STEPS


def command(kubeflow: Kubeflow, *more: str) -> list[str]:
    where = ["--host", kubeflow.host, "--namespace", NAMESPACE, "--auth", "none", "--poll", "0.05"]
    return ["submit", "--recipe", "smoke", *PINNED, *where, *more]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("verdict", "fails_at", "code", "printed"),
    [
        ("promote", "", 0, ": Every gate is met; the model serves"),
        ("already_serving", "", 0, "already serving after"),
        ("refused", "", 3, ": A gate is not met"),
        ("promote", "export", 1, "export stopped"),
    ],
)
def test_wait_ends_with_the_verdict(kubeflow: Kubeflow, verdict: str, fails_at: str, code: int, printed: str) -> None:
    kubeflow.api.verdict, kubeflow.api.fails_at = verdict, fails_at
    done = CliRunner().invoke(app, command(kubeflow, "--wait"))
    assert done.exit_code == code, done.output
    assert printed in done.output
    assert "(uploaded)" in done.output
    (run,) = kubeflow.api.runs
    assert f"{kubeflow.host}/#/runs/details/{run}" in done.output
    assert "▶ finetune" in done.output
    assert "✔ distill" in done.output


def test_json_is_all_that_is_printed(kubeflow: Kubeflow) -> None:
    submitted = json.loads(CliRunner().invoke(app, command(kubeflow, "--json")).stdout)
    assert submitted["uploaded"] is True
    assert submitted["pipeline"] == "rankline-smoke"
    assert submitted["version"].startswith("smoke-")
    assert submitted["run"] in kubeflow.api.runs
    waited = json.loads(CliRunner().invoke(app, command(kubeflow, "--json", "--wait", "-e", "other")).stdout)
    assert (waited["uploaded"], waited["outcome"], waited["experiment"]) == (False, "promoted", "other")
    assert {each["display_name"] for each in kubeflow.api.experiments.values()} == {"rankline", "other"}


def test_what_is_wrong_is_refused_before_anything_is_sent(kubeflow: Kubeflow) -> None:
    from rankline.errors import UsageError

    done = CliRunner().invoke(app, command(kubeflow, "--set", "finetune.colour=red"))
    assert isinstance(done.exception, UsageError)
    assert kubeflow.api.asked == []
    done = CliRunner().invoke(app, command(kubeflow, "--set", "cluster.images.data=tag:1"))
    assert isinstance(done.exception, UsageError)
    assert kubeflow.api.versions == {}


def test_ctrl_c_leaves_the_run_to_itself(kubeflow: Kubeflow) -> None:
    process = subprocess.Popen(
        [RANKLINE, *command(kubeflow, "--wait", "--poll", "30")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "/#/runs/details/" in line:
            break
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=60)
    (run,) = kubeflow.api.runs
    assert process.returncode == 130
    assert f"interrupted; run {run} continues: {kubeflow.host}/#/runs/details/{run}" in printed
    assert "the next run" not in printed
    assert "Traceback" not in printed
    assert kubeflow.api.runs[run]["state"] in ("PENDING", "RUNNING")


# what it would do


def test_a_plan_uploads_nothing_and_assumes_nothing(kubeflow: Kubeflow) -> None:
    first = json.loads(CliRunner().invoke(app, command(kubeflow, "--plan", "--json")).stdout)
    assert first["cluster"]["uploaded"] is True
    assert kubeflow.api.versions == {}
    assert kubeflow.api.pipelines == {}
    states = {step["step"]: step["state"] for step in first["steps"]}
    assert states == {
        "resolve_inputs": "runs",
        **dict.fromkeys(REUSABLE, "unsure"),
        "decide": "runs",
        "promote": "unsure",
    }
    assert all(step["run_s"] is None for step in first["steps"])
    assert set(Plan.model_fields) < set(first)
    assert "which this machine cannot read" in first["cluster"]["notes"][0]
    done = json.loads(CliRunner().invoke(app, command(kubeflow, "--wait", "--json")).stdout)
    assert done["version"] == first["cluster"]["version"]
    second = json.loads(CliRunner().invoke(app, command(kubeflow, "--plan", "--json")).stdout)
    assert second["cluster"]["uploaded"] is False
    assert {step["run_from"] for step in second["steps"]} == {done["run"]}
    text = CliRunner().invoke(app, command(kubeflow, "--plan")).stdout
    assert f"{done['version']} (is there)" in text
    assert "note: times are the shortest and the longest of the latest 10 runs there" in text
    assert len(kubeflow.api.runs) == 1
    # what the pods of a cluster cost: around each of ten steps and the summary, and for the branches
    pods = [(each["cluster"]["pods_least_s"], each["cluster"]["pods_most_s"]) for each in (first, second)]
    assert pods[0] == (11 * 20 + 10, 11 * 30 + 10)
    assert pods[1] == (10 * 10 + 10 + 20, 10 * 10 + 10 + 30)  # a time of the API has the pod of the step in it
    steps_s = sum(step["reuse_s"] for step in second["steps"][:-1])  # the last one, promote, may not run
    assert second["total"]["least_s"] == pytest.approx(pods[1][0] + steps_s)
    assert "the pods of 11 tasks take 130 to 140 s around the work of the steps, 20 to 30 s each" in text


def test_a_plan_without_a_cluster_asks_none(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = CliRunner().invoke(app, ["submit", "--recipe", "smoke", *PINNED, "--plan"]).stdout
    assert "(the cluster was not asked)" in printed
    assert "the duration is unknown: there is no earlier run" in printed


def test_with_the_volume_at_hand_the_plan_is_that_of_a_run_in_it(tmp_path: Path) -> None:
    """The source is on the volume, so a path there is the same file here."""
    from pipelines.recipes import named
    from pipelines.runs.plan import plan

    for folder in ("runs", "data"):
        (tmp_path / folder).mkdir()
    write_shop(tmp_path / "data")
    there = ["--set", "cluster.workspace=/mnt/line", "--set", "ingest.source=/mnt/line/data"]
    words = ["submit", "--recipe", "smoke", *PINNED, *there, "--plan", "--json", "-w", str(tmp_path)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, (done.output, done.exception)
    printed = json.loads(done.stdout)
    expected = plan(named("smoke", [f"ingest.source={tmp_path}/data"]), tmp_path).model_dump(mode="json")
    assert printed["steps"] == expected["steps"]
    assert printed["steps"][1]["state"] == "runs"
    assert printed["cluster"]["workspace"] == str(tmp_path)
    assert any(note.startswith("this holds if the images hold this code") for note in printed["cluster"]["notes"])
    assert "smoke is not on the volume; run `rankline fetch smoke` there first" in printed["cluster"]["notes"]
    gone = CliRunner().invoke(app, [*words, "--set", "ingest.source=/mnt/line/nowhere"])
    assert isinstance(gone.exception, SourceError)


def test_a_plan_refuses_what_the_run_would(kubeflow: Kubeflow) -> None:
    from rankline.errors import UsageError

    done = CliRunner().invoke(app, command(kubeflow, "--plan", "--set", "cluster.images.data=tag:1"))
    assert isinstance(done.exception, UsageError)
    assert "is not pinned" in str(done.exception)
    done = CliRunner().invoke(app, command(kubeflow, "-w", "/tmp"))
    assert "a cluster does not use a workspace of this machine" in str(done.exception)
