"""`rankline champion`, `rankline history` and `rankline runs`: looking at what there is, and at nothing."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from cli.main import app
from rankline import ledger
from tests.cli.command import refused
from tests.conftest import SmokeRun


def said(*arguments: object) -> str:
    told = CliRunner().invoke(app, [str(each) for each in arguments])
    assert told.exit_code == 0, told.output
    return told.output


def test_the_champion(smoke: SmokeRun) -> None:
    told = said("champion", "-w", smoke.workspace)
    assert told.startswith(smoke.summary["model_id"])
    assert f"run {smoke.summary['run']}" in told
    assert smoke.summary["verdict"] in told
    bundle = Path(told.splitlines()[-1].split("bundle: ")[1])
    assert (bundle / "manifest.json").is_file()
    event = json.loads(said("champion", "-w", smoke.workspace, "--json"))
    assert (event["kind"], event["model_id"]) == ("promoted", smoke.summary["model_id"])


def test_the_history(smoke: SmokeRun) -> None:
    lines = said("history", "-w", smoke.workspace).splitlines()
    assert [line.split()[2] for line in lines] == ["registered", "evaluated", "promoted"]
    told = json.loads(said("history", "-w", smoke.workspace, "--json"))
    assert [event["n"] for event in told] == [1, 2, 3]


def test_the_runs(smoke: SmokeRun) -> None:
    run = smoke.summary["run"]
    (line,) = said("runs", "list", "-w", smoke.workspace).splitlines()
    assert line.split()[:2] == [run, "promoted"]
    assert json.loads(said("runs", "list", "-w", smoke.workspace, "--json"))[0]["run"] == run
    shown = said("runs", "show", run, "-w", smoke.workspace)
    assert shown == said("runs", "show", "-w", smoke.workspace)
    for step in ledger.STEPS:
        assert f"\n{step} " in shown
    assert "promoted: " in shown
    for page in ("data report", "evaluation report", "verdict"):
        path = next(line for line in shown.splitlines() if line.startswith(f"{page}: ")).split(": ")[1]
        assert Path(path).is_file()
    assert json.loads(said("runs", "show", "-w", smoke.workspace, "--json")) == smoke.summary


def test_an_empty_workspace_is_told_kindly(tmp_path: Path) -> None:
    told = refused("champion", "-w", tmp_path)
    assert "no model has been promoted yet" in told
    assert "try: `rankline demo` makes one" in told
    assert "no events yet" in said("history", "-w", tmp_path)
    assert said("history", "-w", tmp_path, "--json").strip() == "[]"
    assert "no runs yet" in said("runs", "list", "-w", tmp_path)
    assert said("runs", "list", "-w", tmp_path, "--json").strip() == "[]"
    told = refused("runs", "show", "-w", tmp_path, code=2)
    assert "there is no run 'last'" in told
    assert "try: start one" in told


def test_a_run_under_way_is_told_of(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "20260101-000000-smoke"
    ledger.write_json(folder / "recipe.json", {})
    ledger.write(folder, ledger.Entry(step="ingest", status="running", started=0))
    assert said("runs", "list", "-w", tmp_path).split()[:2] == [folder.name, "unfinished"]
    told = refused("runs", "show", "-w", tmp_path, code=2)
    assert f"run {folder.name} has not finished" in told
    assert "found: steps ingest" in told
