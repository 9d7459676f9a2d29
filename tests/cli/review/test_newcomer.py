"""The path of a newcomer with decide.mode=review: run, review, approve, serve; and a candidate measured again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rankline.model.bundle import MANIFEST, Bundle, open_bundle, write_bundle_manifest
from rankline.registry.model_registry import ModelRegistry
from rankline.runtime import ledger
from tests.cli.in_process import rankline, refused
from tests.conftest import SmokeRun, once


@pytest.fixture(scope="module")
def pending(smoke: SmokeRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose only run ended with a candidate that waits."""

    def create(folder: Path) -> None:
        workspace = smoke.copy(folder / "workspace")
        for name in ("repository", "online", "runs"):
            shutil.rmtree(workspace / name)
        done = rankline("run", "--recipe", "smoke", "--set", "decide.mode=review", "-w", workspace)
        assert done.returncode == 0, done.stderr + done.stdout
        (folder / "printed.txt").write_text(done.stdout)

    return once(tmp_path_factory, "pending", create)


@pytest.fixture
def workspace(pending: Path, tmp_path: Path) -> Path:
    """A copy of that workspace, to change."""
    return Path(shutil.copytree(pending / "workspace", tmp_path / "workspace"))


def listed(*arguments: object) -> list[dict[str, object]]:
    return list(json.loads(rankline("review", "list", *arguments, "--json").stdout))


def command_in(text: str) -> list[str]:
    """The command that approves, as a text prints it."""
    command = text.split("rankline review approve", 1)[1].splitlines()[0].split("`")[0]
    return ["review", "approve", *command.split()]


@pytest.mark.integration
def test_a_run_waits_for_a_review_and_serves_once_it_is_approved(pending: Path, workspace: Path) -> None:
    (waiting,) = listed("-w", workspace)
    assert waiting["status"] == "pending"
    shown = rankline("review", "show", str(waiting["model_id"])[:6], "-w", workspace).stdout
    run = rankline("runs", "show", "-w", workspace).stdout
    commands = [command_in(text) for text in ((pending / "printed.txt").read_text(), run, shown)]
    assert commands[0] == commands[1] == commands[2][:-2]
    assert commands[2][-2:] == ["-w", str(workspace)]
    assert "beats popularity" in shown
    before = rankline("status", "-w", workspace).stdout
    assert before.startswith("no model serves yet")
    assert str(waiting["model_id"]) in before

    approved = rankline(*commands[0], "-w", workspace)
    assert approved.returncode == 0, approved.stderr
    assert ModelRegistry(workspace / "repository").champion() == waiting["model_id"]
    event = json.loads(rankline("champion", "-w", workspace, "--json").stdout)
    assert event["kind"] == "promoted"
    assert event["details"]["review"]["verdict"] == waiting["verdict"]
    watermark = json.loads((workspace / "online" / event["details"]["service"] / "watermark.json").read_text())
    assert watermark["until"] == event["details"]["online_until"]
    assert listed("-w", workspace) == []
    assert [each["status"] for each in listed("-w", workspace, "--all")] == ["promoted"]
    assert event["who"] in refused(*commands[0], "-w", workspace, code=4)
    after = json.loads(rankline("status", "-w", workspace, "--json").stdout)
    assert after["serving"]["event"] == event["n"]
    assert (after["waiting"], after["runs"][0]["outcome"]) == ([], "waiting for review")


def another_champion(workspace: Path, folder: Path) -> str:
    """A real model that serves: the candidate's bundle with a policy file that is spaced differently."""
    models = ModelRegistry(workspace / "repository")
    (candidate,) = (event.model_id for event in models.history() if event.kind == "pending")
    shutil.copytree(Path(models.root) / "bundles" / candidate, folder)
    policy = folder / "policy.json"
    policy.write_text(policy.read_text() + "\n")
    manifest = open_bundle(Path(models.root) / "bundles" / candidate).manifest
    (folder / MANIFEST).unlink()
    bundle: Bundle = write_bundle_manifest(folder, manifest.model_copy(update={"files": {}}))
    models.add(folder)
    for kind in ("registered", "promoted"):
        models.append(kind, bundle.model_id, who="the flow", why="because")
    return bundle.model_id


@pytest.mark.integration
def test_a_stale_candidate_is_measured_again_without_training(workspace: Path, tmp_path: Path) -> None:
    (waiting,) = listed("-w", workspace)
    champion = another_champion(workspace, tmp_path / "bundle")
    message = refused(
        "review", "approve", waiting["model_id"], "--evidence", waiting["verdict"], "-w", workspace, code=4
    )
    assert champion in message
    assert f"rankline evaluate --candidate {str(waiting['model_id'])[:12]}" in message

    done = rankline(
        "evaluate", "--candidate", str(waiting["model_id"])[:6], "--set", "decide.margin=1.0",
        "--set", "decide.loss_budget=null", "-w", workspace, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    summary = json.loads(done.stdout[done.stdout.index("{") :])
    assert [step["step"] for step in summary["steps"]] == ["evaluate", "decide"]
    assert summary["outcome"] == "waiting for review"
    again, before = listed("-w", workspace, "--all")
    assert (again["status"], again["champion"], before["status"]) == ("pending", champion, "superseded")
    assert again["started_by"] == waiting["started_by"] != ""
    report = json.loads(rankline("review", "show", again["model_id"], "-w", workspace, "--json").stdout)
    assert {"candidate", "champion"} <= set(report["systems"])
    approved = rankline("review", "approve", again["model_id"], "--evidence", again["verdict"], "-w", workspace)
    assert approved.returncode == 0, approved.stderr
    assert ModelRegistry(workspace / "repository").champion() == waiting["model_id"]


def test_what_is_gone_of_the_run_is_named(workspace: Path) -> None:
    (waiting,) = listed("-w", workspace)
    (run,) = (workspace / "runs").iterdir()
    for entry in ledger.read_entries(run).values():
        ledger.write_entry(run, entry.model_copy(update={"paths": {}}))  # these are in another workspace
    shutil.rmtree(workspace / "cache" / "finetune")
    message = refused("evaluate", "--candidate", waiting["model_id"], "-w", workspace, code=2)
    assert "found: no teacher of finetune" in message
    assert "rankline run --recipe smoke" in message
    shutil.rmtree(run)
    message = refused("evaluate", "--candidate", waiting["model_id"], "-w", workspace, code=2)
    assert run.name in message
    assert "--recipe" in message
