"""What the evidence takes from the ledger of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rankline.evidence.run_facts import RunFacts, read_run
from rankline.runtime import ledger


def entry(folder: Path, step: str, **fields: Any) -> None:
    times = {"started": 1.0, "finished": 3.0}
    ledger.write_entry(folder, ledger.Entry(**{"step": step, "status": "done", **times, **fields}))


def known(folder: Path) -> RunFacts:
    run = read_run(folder)
    assert run is not None
    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = tmp_path / "a b" / "runs" / "run-1"
    run.mkdir(parents=True)
    ingest = {
        "rows": {"items": 9}, "rejected": {"items": {"bad": 2, "worse": 1}, "users": {}},
        "event_time": {"first": "2023", "last": "2024"},
    }  # fmt: skip
    settings = {
        "source": "postgresql://u:secret@h/d", "files": {"a": 1}, "url": "https://h/d?sig=secret",
        "headers": '{"Authorization": "Bearer secret"}',
    }  # fmt: skip
    entry(run, "ingest", result=ingest, core_s=2.5, settings=settings)
    changes = {"items_rows_change": -0.1, "click_drift": 0.2}
    entry(run, "validate", result={"rows": {"items": 6}, "changes": changes, "warnings": ["w"]}, core_s=1.0)
    entry(run, "decide", status="running", finished=None)
    return run


def test_the_ledger_says_what_a_run_took_and_read(folder: Path) -> None:
    run = known(folder)
    assert ([each.step for each in run.steps], run.core_s) == (["ingest", "validate"], 3.5)
    assert run.data is not None
    assert (run.data.rows, run.data.rejected) == ({"items": 6}, {"items": 3})
    assert run.data.changes == {"items_rows_change": -0.1, "click_drift": 0.2}
    assert (run.data.first, run.data.last, run.data.warnings) == ("2023", "2024", ("w",))


def test_settings_that_differ_are_named_and_passwords_are_not_shown(folder: Path) -> None:
    run = known(folder)
    assert run.settings["ingest.files.a"] == "1"
    assert "secret" not in json.dumps(dict(run.settings))


@pytest.mark.parametrize(
    ("status", "result", "compared"),
    [
        ("done", {"compared_with_previous": False}, False), ("done", {"compared_with_previous": True}, True),
        ("reused", {"compared_with_previous": False}, None), ("reused", {"compared_with_previous": True}, True),
        ("done", {}, None),
    ],
)  # fmt: skip
def test_a_missing_comparison_is_known_of_this_runs_own_profile_alone(
    folder: Path, status: str, result: dict[str, Any], compared: bool | None
) -> None:
    entry(folder, "validate", status=status, result={"rows": {"items": 6}, **result})
    data = known(folder).data
    assert data is not None
    assert data.compared is compared


def test_training_curves_are_read_where_the_outputs_still_are(folder: Path, tmp_path: Path) -> None:
    points = [{"epoch": 0, "loss": 1.0}]
    for name, content in {"teacher": points, "student": {"towers": points, "scorer": []}, "broken": "?"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "curve.json").write_text(json.dumps(content) if name != "broken" else "{")
    entry(folder, "finetune", paths={"teacher": str(tmp_path / "teacher"), "gone": str(tmp_path / "gone")})
    entry(folder, "distill", paths={"student": str(tmp_path / "student"), "broken": str(tmp_path / "broken")})
    assert known(folder).curves == {"finetune": points, "distill/towers": points, "distill/scorer": []}


def test_the_commands_need_the_recipe_and_quote_the_workspace(folder: Path) -> None:
    assert known(folder).commands == ()
    (folder / "recipe.json").write_text('{"cluster": {"images": {"data": "r/i@sha256:1", "train": ""}}}')
    run = known(folder)
    assert run.commands[0] == f"rankline runs retry run-1 -w '{folder.parent.parent}'"
    assert run.images == {"data": "r/i@sha256:1"}
    (folder / "watcher.json").write_text('{"runner": "local"}')
    assert known(folder).images == {}


@pytest.mark.parametrize("step", ["", "decide"])
def test_without_the_ledger_of_earlier_steps_nothing_is_known(tmp_path: Path, step: str) -> None:
    if step:
        entry(tmp_path, step)
    assert read_run(tmp_path) is None
    assert read_run(None) is None
    assert read_run(tmp_path / "none") is None


@pytest.mark.parametrize("result", [{}, {"rows": 3}, {"rows": {"items": "?"}}, {"rejected": []}, {"event_time": 1}])
def test_a_result_of_another_version_says_nothing(tmp_path: Path, result: dict[str, Any]) -> None:
    entry(tmp_path, "ingest", result=result)
    (tmp_path / "recipe.json").write_text("[]")
    assert known(tmp_path).data is None
    (tmp_path / "validate.json").write_text("{")
    assert read_run(tmp_path) is not None
