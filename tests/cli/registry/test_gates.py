"""`rankline gates` and `rankline promote`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from components.promote.config import DecideConfig
from rankline.gates.measures import MEASURES
from rankline.registry.model_registry import ModelRegistry
from tests.cli.in_process import rankline, refused
from tests.conftest import SmokeRun
from tests.rankline.registry.test_model_registry import tiny_bundle

REASON = "the champion recommends recalled items"


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    """A champion, and a model that no gate has passed."""
    models = ModelRegistry(tmp_path / "repository")
    for name in ("champion", "refused"):
        bundle = tiny_bundle(tmp_path / name, weights=name.encode())
        models.add(bundle.folder)
        models.append("registered", bundle.model_id, who="t", why="t")
        if name == "champion":
            models.append("promoted", bundle.model_id, who="t", why="t")
    return models


def unpromoted(models: ModelRegistry) -> str:
    return models.history()[-1].model_id


def test_a_run_is_checked_and_a_changed_score_is_seen(smoke: SmokeRun, tmp_path: Path) -> None:
    assert "the stored verdict" in rankline("gates", "check", "-w", smoke.workspace).stdout
    copy = tmp_path / "workspace"  # its ledger leads nowhere at first: the registry's evidence is there
    shutil.copytree(smoke.workspace, copy, symlinks=True)
    for path in (copy / "runs" / smoke.summary["run"]).glob("*.json"):
        path.write_text(path.read_text().replace(str(smoke.workspace), str(tmp_path / "gone")))
    assert "the stored verdict" in rankline("gates", "check", "-w", copy).stdout
    paths = sorted((copy / "runs" / smoke.summary["run"]).glob("*.json"))
    stored = smoke.summary["model_id"]
    for path in paths:  # the copy's ledger leads to the copy's verdict
        path.write_text(path.read_text().replace(str(tmp_path / "gone"), str(copy)))
    verdict = next((copy / "runs" / smoke.summary["run"]).rglob("verdict.json"))
    verdict.write_text(verdict.read_text().replace('"outcome": "promote"', '"outcome": "refused"'))
    done = rankline("gates", "check", "last", "-w", copy)
    assert done.returncode == 3
    assert f"model {stored}: promote" in done.stdout
    assert "outcome: refused stored, promote recomputed" in done.stdout


@pytest.mark.integration
def test_scores_that_left_with_erased_users_are_named(smoke: SmokeRun, tmp_path: Path) -> None:
    workspace = smoke.copy(tmp_path / "workspace")
    for path in (workspace / "runs" / smoke.summary["run"]).glob("*.json"):
        path.write_text(path.read_text().replace(str(smoke.workspace), str(workspace)))
    assert rankline("users", "erase", "u5", "-w", workspace).returncode == 0
    for command in (
        ("gates", "check", "last"),
        ("gates", "plan", "--run", "last"),
        ("gates", "simulate", "--run", "last"),
    ):
        printed = refused(*command, "-w", workspace, code=2)
        assert "were removed when users were erased" in printed
        assert "run the recipe again" in printed


def test_a_run_without_a_verdict_is_said_to_have_none(smoke: SmokeRun) -> None:
    assert "there is no run" in refused("gates", "check", "nosuch", "-w", smoke.workspace, code=2)


@pytest.mark.integration
def test_a_simulation_and_a_plan_in_small() -> None:
    result = json.loads(rankline("gates", "simulate", "--trials", 100, "--nights", 5, "--json").stdout)
    assert {row["rule"] for row in result["rows"]} == {"budget", "margin"}
    printed = rankline("gates", "plan", "--effect", 0.02).stdout.splitlines()
    assert printed[-1].split()[0] == "+2.0%"
    assert printed[0] == "scores of the MovieLens demo; --run last takes yours"
    assert "(one standard error)" in printed[1]
    needs = json.loads(rankline("gates", "plan", "--effect", 0.02, "--json").stdout)
    assert [need["effect"] for need in needs] == [0.02]


def test_a_plan_of_a_runs_own_scores(smoke: SmokeRun) -> None:
    needs = json.loads(rankline("gates", "plan", "--run", "last", "-w", smoke.workspace, "--json").stdout)
    assert needs[-1]["requests_one_night"] > 0


def test_the_anchor_is_shown_and_moved(registry: ModelRegistry) -> None:
    champion = registry.champion()
    assert rankline("gates", "anchor", "--repository", registry.root).stdout.startswith(champion)
    moved = rankline("gates", "anchor", champion[:8], "--why", "a fresh start", "--repository", registry.root, "--json")
    assert json.loads(moved.stdout)["why"] == "a fresh start"
    assert registry.history()[-1].kind == "anchored"
    assert "no such model" in refused(
        "gates", "anchor", unpromoted(registry)[:8] + "x", "--repository", registry.root, code=2
    )


def test_the_schema_is_that_of_the_settings_with_examples_of_measures() -> None:
    schema = json.loads(rankline("gates", "schema").stdout)
    gates = [each["properties"] for each in schema["$defs"].values() if "metric" in each["properties"]]
    assert len(gates) == 4
    assert all(each["metric"].pop("examples") == list(MEASURES) for each in gates)
    assert schema == json.loads(json.dumps(DecideConfig.model_json_schema()))


def test_a_model_is_promoted_past_the_gates_and_that_stays_in_sight(registry: ModelRegistry) -> None:
    where = ("--repository", registry.root)
    model = unpromoted(registry)
    assert "--break-glass" in refused("promote", model, "--reason", REASON, *where, code=2)
    assert "needs a reason" in refused("promote", model, "--break-glass", *where, code=2)
    assert "past the gates" in rankline("promote", model[:8], "--break-glass", "--reason", REASON, *where).stdout
    assert registry.champion() == model
    assert "warning: promoted past the gates by" in rankline("champion", *where).stdout
    assert REASON in json.loads(rankline("champion", *where, "--json").stdout)["warning"]
    assert f"{model}  PAST THE GATES by" in rankline("history", *where).stdout
    rankline("rollback", *where)
    assert "past the gates" not in rankline("champion", *where).stdout
