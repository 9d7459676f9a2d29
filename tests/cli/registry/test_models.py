"""`rankline champion`, `rankline history` and `rankline runs`, also in an empty workspace."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from rankline.io.files import write_json
from rankline.runtime import ledger
from rankline.runtime.steps import TRAINING_STEPS
from tests.cli.in_process import rankline, refused
from tests.conftest import SmokeRun


def run_cli(*arguments: object) -> str:
    printed = CliRunner().invoke(app, [str(each) for each in arguments], env={"COLUMNS": "200"})
    assert printed.exit_code == 0, printed.output
    return printed.output


def test_the_champion(smoke: SmokeRun) -> None:
    printed = run_cli("champion", "-w", smoke.workspace)
    assert printed.startswith(smoke.summary["model_id"])
    assert f"run {smoke.summary['run']}" in printed
    assert smoke.summary["verdict"] in printed
    bundle = Path(printed.splitlines()[-1].split("bundle: ")[1])
    assert (bundle / "manifest.json").is_file()
    event = json.loads(run_cli("champion", "-w", smoke.workspace, "--json"))
    assert (event["kind"], event["model_id"]) == ("promoted", smoke.summary["model_id"])


def test_the_history(smoke: SmokeRun) -> None:
    lines = run_cli("history", "-w", smoke.workspace).splitlines()
    assert [line.split()[2] for line in lines] == ["registered", "evaluated", "promoted"]
    printed = json.loads(run_cli("history", "-w", smoke.workspace, "--json"))
    assert [event["n"] for event in printed] == [1, 2, 3]


def test_the_runs(smoke: SmokeRun) -> None:
    run = smoke.summary["run"]
    _, line = run_cli("runs", "list", "-w", smoke.workspace).splitlines()
    assert line.split()[:2] == [run, "promoted"]
    assert line.split()[-2:] == ["train", "manual"]
    assert json.loads(run_cli("runs", "list", "-w", smoke.workspace, "--json"))[0]["run"] == run
    shown = run_cli("runs", "show", run, "-w", smoke.workspace)
    assert shown == run_cli("runs", "show", "-w", smoke.workspace)
    for step in TRAINING_STEPS:
        assert f"\n{step} " in shown
    assert "promoted: " in shown
    for page in ("data report", "evaluation report", "evidence for the verdict"):
        path = next(line for line in shown.splitlines() if line.startswith(f"{page}: ")).split(": ")[1]
        assert Path(path).is_file()
    shown = json.loads(run_cli("runs", "show", "-w", smoke.workspace, "--json"))
    assert shown == {**smoke.summary, "trigger": None, "flow": "train"}


def test_an_empty_workspace(tmp_path: Path) -> None:
    for command in (("champion",), ("catalogue", "list"), ("catalogue", "rollback")):
        printed = refused(*command, "-w", tmp_path, code=2)
        assert "no model has been promoted yet" in printed
        assert "try: `rankline run --recipe …`" in printed
    assert "no events yet" in run_cli("history", "-w", tmp_path)
    assert run_cli("history", "-w", tmp_path, "--json").strip() == "[]"
    assert "no runs yet" in run_cli("runs", "list", "-w", tmp_path)
    assert run_cli("runs", "list", "-w", tmp_path, "--json").strip() == "[]"
    printed = refused("runs", "show", "-w", tmp_path, code=2)
    assert "there is no run 'last'" in printed
    assert "try: start one" in printed


@pytest.mark.integration
def test_a_missing_workspace_is_named(tmp_path: Path) -> None:
    for command in (
        ("champion",),
        ("history",),
        ("runs", "list"),
        ("runs", "show"),
        ("gates", "check"),
        ("users", "erase", "u1"),
    ):
        printed = refused(*command, code=2, cwd=tmp_path)
        assert "there is no workspace here" in printed
        assert f"where: {tmp_path / '.rankline'} (--workspace, or the current folder)" in printed
        assert "try: -w FOLDER, or RANKLINE_WORKSPACE, names another; `rankline demo` creates one" in printed
    printed = refused("champion", code=2, RANKLINE_WORKSPACE=str(tmp_path / "gone"))
    assert f"where: {tmp_path / 'gone'} (RANKLINE_WORKSPACE)" in printed
    (tmp_path / ".rankline").mkdir()
    (tmp_path / "below").mkdir()
    assert f"try: -w {tmp_path / '.rankline'}" in refused("runs", "list", code=2, cwd=tmp_path / "below")


def test_the_list_of_runs_fits_eighty_columns(smoke: SmokeRun, tmp_path: Path) -> None:
    long = tmp_path / "runs" / f"20260101-000000-{'x' * 40}"
    write_json(long / "summary.json", {**smoke.summary, "run": long.name})
    printed = rankline("runs", "list", "-w", tmp_path, COLUMNS="80").stdout
    assert long.name in printed
    assert "promoted" in printed
    assert max(map(len, printed.splitlines())) == 80
    usual = rankline("runs", "list", "-w", smoke.workspace, COLUMNS="80").stdout
    assert smoke.summary["model_id"] in usual
    assert max(map(len, usual.splitlines())) <= 80


def active_run(tmp_path: Path, *, pid: int, age_s: float) -> Path:
    """A run without a summary, whose running step has this process and last wrote a file ``age_s`` ago."""
    folder = tmp_path / "runs" / "20260101-000000-smoke"
    write_json(folder / "recipe.json", {"name": "smoke"})
    then = time.time() - age_s
    ledger.write_entry(folder, ledger.Entry(step="ingest", status="done", started=then, finished=then + 1, why="new"))
    ledger.write_entry(folder, ledger.Entry(step="validate", status="running", started=time.time(), pid=pid))
    for path in folder.iterdir():
        os.utime(path, (then, then))
    return folder


def test_an_active_run_is_shown_as_running(tmp_path: Path) -> None:
    step = subprocess.Popen(["sleep", "600"])
    try:
        _shown_live(tmp_path, active_run(tmp_path, pid=step.pid, age_s=3600))  # quiet for an hour, its process is there
    finally:
        step.kill()
        step.wait()


def _shown_live(tmp_path: Path, folder: Path) -> None:
    assert run_cli("runs", "list", "-w", tmp_path).splitlines()[1].split()[:2] == [folder.name, "running"]
    printed = run_cli("runs", "show", "-w", tmp_path)
    assert "✔ ingest" in printed
    assert "▶ validate" in printed
    assert "it is running" in printed
    shown = json.loads(run_cli("runs", "show", "-w", tmp_path, "--json"))
    assert (shown["outcome"], [step["step"] for step in shown["steps"]]) == ("running", ["ingest", "validate"])


def test_a_run_with_recent_files_is_running_even_without_a_visible_process(tmp_path: Path) -> None:
    active_run(tmp_path, pid=0, age_s=1)
    assert "it is running" in run_cli("runs", "show", "-w", tmp_path)


def test_another_process_with_the_id_of_a_step_is_not_that_step(tmp_path: Path) -> None:
    active_run(tmp_path, pid=1, age_s=3600)  # as a step's in a container often is
    assert "the next run continues from there" in run_cli("runs", "show", "-w", tmp_path)


def test_a_killed_run_is_unfinished(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    folder = active_run(tmp_path, pid=ended.pid, age_s=3600)
    assert run_cli("runs", "list", "-w", tmp_path).splitlines()[1].split()[:2] == [folder.name, "unfinished"]
    printed = run_cli("runs", "show", "-w", tmp_path)
    assert "✘ validate" in printed
    assert "the next run continues from there" in printed
