"""`rankline gc`: it shows the plan, asks, removes, and records removed models in the history."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rankline.io.files import write_json
from rankline.registry.model_registry import ModelRegistry
from tests.cli.in_process import rankline
from tests.pipelines.retention.sweep_workspace import make

KEEP = ("--keep-runs", "2", "--keep-bundles", "2", "--keep-days", "0")


@pytest.fixture
def world(tmp_path: Path) -> tuple[Path, list[str]]:
    return tmp_path / "w", make(tmp_path / "w")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_dry_run_shows_a_table_and_removes_nothing(world: tuple[Path, list[str]]) -> None:
    workspace, ids = world
    before = names(workspace / "repository" / "bundles")
    done = rankline("gc", *KEEP, "--dry-run", "--list", "-w", workspace)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["kept", "removed", "frees", "why"]
    bundle = next(line for line in lines if line.startswith("bundle"))
    assert bundle.split()[:3] == ["bundle", "2", "3"]
    assert any(line.startswith("kept     bundle") and ids[3] in line and "it serves" in line for line in lines)
    assert any(line.startswith("removed  run") and "2 later ones of its kind are kept" in line for line in lines)
    assert names(workspace / "repository" / "bundles") == before


def test_without_a_terminal_it_needs_yes(world: tuple[Path, list[str]]) -> None:
    workspace, _ = world
    done = rankline("gc", *KEEP, "-w", workspace)
    assert (done.returncode, "nothing was removed" in done.stderr, "--yes" in done.stderr) == (2, True, True)
    assert len(names(workspace / "repository" / "bundles")) == 5


@pytest.mark.integration
@pytest.mark.parametrize(("answer", "left"), [("n\n", 5), ("y\n", 2)])
def test_in_a_terminal_it_asks(world: tuple[Path, list[str]], answer: str, left: int) -> None:
    workspace, _ = world
    leader, terminal = pty.openpty()
    os.write(leader, answer.encode())
    command = [sys.executable, "-m", "cli.main", "gc", *KEEP, "-w", str(workspace)]
    done = subprocess.run(command, stdin=terminal, capture_output=True, text=True, timeout=120, check=False)
    assert ("remove 17 items" in done.stdout, "removed 17" in done.stdout) == (True, left == 2), done.stdout
    assert (done.returncode, "nothing was removed" in done.stdout) == (0, left == 5), done.stderr
    assert "Aborted" not in done.stdout + done.stderr
    assert len(names(workspace / "repository" / "bundles")) == left


def test_removed_models_are_in_the_history(world: tuple[Path, list[str]]) -> None:
    workspace, ids = world
    done = rankline("gc", *KEEP, "--yes", "--json", "-w", workspace)
    assert done.returncode == 0, done.stderr
    payload = json.loads(done.stdout)
    assert (payload["removed"], payload["stayed"], payload["bytes_freed"] > 0) == (True, [], True)
    assert {each["name"] for each in payload["goes"] if each["kind"] == "bundle"} == {ids[0], ids[1], ids[4]}
    assert names(workspace / "repository" / "bundles") == sorted(ids[2:4])
    history = rankline("history", "-w", workspace)
    assert history.returncode == 0
    line = next(line for line in history.stdout.splitlines() if "removed" in line and ids[0] in line)
    assert "retention" in line
    champion = rankline("champion", "-w", workspace, "--json")
    assert json.loads(champion.stdout)["model_id"] == ids[3]
    again = rankline("gc", *KEEP, "--yes", "-w", workspace)
    assert (again.returncode, "nothing to remove" in again.stdout) == (0, True)
    assert ModelRegistry(workspace / "repository").champion() == ids[3]


def test_json_without_yes_removes_nothing(world: tuple[Path, list[str]]) -> None:
    workspace, _ = world
    payload = json.loads(rankline("gc", *KEEP, "--json", "-w", workspace).stdout)
    assert (payload["removed"], len(payload["goes"]) > 5) == (False, True)
    assert len(names(workspace / "repository" / "bundles")) == 5


def test_a_model_to_roll_back_to_is_always_kept(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    done = rankline("gc", "--keep-bundles", "1", "-w", tmp_path / "w")
    assert (done.returncode, "--keep-bundles" in done.stderr) == (2, True)


@pytest.mark.parametrize("days", ["inf", "nan"])
def test_days_have_to_be_finite(world: tuple[Path, list[str]], days: str) -> None:
    done = rankline("gc", "--keep-days", days, "--json", "-w", world[0])
    assert (done.returncode, "--keep-days" in done.stderr, done.stdout) == (2, True, "")


def test_a_folder_that_is_no_workspace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache" / "hub" / "model").mkdir(parents=True)
    done = rankline("gc", *KEEP, "--yes", "-w", tmp_path)
    assert (done.returncode, "no workspace of Rankline" in done.stderr) == (2, True)
    assert (tmp_path / "cache" / "hub" / "model").is_dir()


def test_models_of_another_repository_are_found_by_the_last_runs_settings(tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    ids = make(workspace)
    (workspace / "repository").rename(tmp_path / "models")
    run = sorted((workspace / "runs").iterdir())[-1]
    write_json(run / "recipe.json", {"name": "smoke", "storage": {"repository": str(tmp_path / "models")}})
    done = rankline("gc", *KEEP, "--yes", "-w", workspace)
    assert (done.returncode, f"models: {tmp_path / 'models'}" in done.stdout) == (0, True), done.stderr
    assert names(tmp_path / "models" / "bundles") == sorted(ids[2:4])
    assert not (workspace / "repository").exists()


@pytest.mark.integration
def test_a_schedule_has_limits_and_full_retrains(tmp_path: Path) -> None:
    workspace = tmp_path / "w"

    def schedule(verb: str, *options: str) -> Any:
        return rankline("schedule", verb, "nightly", *options, "-w", workspace, "--json")

    warm = ("--set", "finetune.warm_start=true")
    created = schedule("create", "-r", "smoke", "--cron", "0 0 3 * * *", "--keep", "runs=3,days=1", *warm)
    assert created.returncode == 0, created.stderr
    payload = json.loads(created.stdout)
    assert payload["keep"] == {"runs": 3, "bundles": 5, "catalogues": 5, "days": 1.0}
    assert payload["scratch_every"] == 0
    assert json.loads(schedule("update", "--scratch-every", "7").stdout)["scratch_every"] == 7
    assert json.loads(schedule("update", "--keep", "defaults").stdout)["keep"]["runs"] == 20
    assert json.loads(schedule("update", "--keep", "").stdout)["keep"] is None
    for options, word in (
        (("--keep", "bundles=1"), "bundles"),
        (("--keep", "runs"), "runs"),
        (("--keep", "years=1"), "years"),
        (("--set", "finetune.epochs=2"), "trains from scratch already"),
    ):
        done = schedule("update", *options)
        assert (done.returncode, word in done.stderr) == (2, True), done.stderr
    assert json.loads(schedule("show").stdout)["scratch_every"] == 7
