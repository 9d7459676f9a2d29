"""The tasks that do the work of several steps, run with real data in one process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kfp.dsl import HTML, Metrics

from components.promote import step as promote_step
from pipelines.package import compile_flow
from pipelines.packed import conclude, prepare
from pipelines.recipe import run_parameters, step_settings
from pipelines.recipes import load_for_display
from rankline.io.artifacts import verify_artifact
from rankline.registry.model_registry import ModelRegistry
from rankline.runtime import ledger
from tests.conftest import SmokeRun
from tests.pipelines import golden
from tests.pipelines.test_from_yaml import run as run_package


class Packed:
    """A run in a workspace, as the pods of a cluster have it."""

    def __init__(self, workspace: Path, folder: Path, smoke: SmokeRun) -> None:
        recipe = load_for_display("smoke", [])
        self.workspace, self.folder, self.smoke = workspace, folder, smoke
        self.settings = step_settings(recipe, str(workspace))
        self.run = {**run_parameters(recipe, str(workspace)), "flow": "train"}

    def artifact(self, step: str, name: str) -> SimpleNamespace:
        return SimpleNamespace(path=str(self.smoke.artifact(step, name)))

    def prepare(self, job: str) -> str:
        names = ("raw", "clean", "report")
        outputs = {name: SimpleNamespace(path=str(self.folder / job / name)) for name in names}
        configs = {f"{name}_config": self.settings[name] for name in ("ingest", "validate")}
        champion: str = prepare.python_func(
            **configs, **outputs, prices=self.settings["summary"], run=self.run, job=job
        )
        return champion

    def conclude(self, job: str) -> str:
        configs = {f"{name}_config": self.settings[name] for name in ("decide", "promote")}
        artifacts: dict[str, Any] = {
            "bundle": self.artifact("export", "bundle"),
            "evaluation": self.artifact("evaluate", "report"),
            "teacher": self.artifact("finetune", "teacher"),
            "features": self.artifact("featurize", "features"),
            "checks": self.artifact("validate", "report"),
            "verdict": SimpleNamespace(path=str(self.folder / job / "verdict")),
            "metrics": Metrics(uri=str(self.folder / job / "metrics")),
            "page": HTML(uri=str(self.folder / job / "page")),
        }
        self.metrics, self.page = artifacts["metrics"].metadata, Path(artifacts["page"].path)
        prices = self.settings["summary"]
        branch: str = conclude.python_func(**artifacts, **configs, prices=prices, run=self.run, job=job)
        return branch

    def entries(self, job: str) -> dict[str, ledger.Entry]:
        return ledger.read_entries(self.workspace / "runs" / job)

    def summary(self, job: str) -> dict[str, Any]:
        summary: dict[str, Any] = json.loads((self.workspace / "runs" / job / "summary.json").read_text())
        return summary

    def promotions(self) -> int:
        repository = ModelRegistry(str(self.workspace / "repository"), repair_cache=False)
        return sum(event.kind == "promoted" for event in repository.history())


@pytest.fixture
def packed(smoke: SmokeRun, tmp_path: Path) -> Packed:
    """In a copy of a workspace in which the same recipe has run, step by step."""
    return Packed(smoke.copy(tmp_path / "ws"), tmp_path / "pods", smoke)


@pytest.fixture
def fresh(packed: Packed) -> Packed:
    """The same without a champion."""
    for name in ("repository", "online"):
        shutil.rmtree(packed.workspace / name)
    return packed


def test_what_single_steps_made_is_reused(packed: Packed, capfd: pytest.CaptureFixture[str]) -> None:
    champion = packed.prepare("r1")
    assert champion == packed.smoke.summary["model_id"]
    entries = packed.entries("r1")
    assert {step: entry.status for step, entry in entries.items()} == {
        "resolve_inputs": "done", "ingest": "reused", "validate": "reused",
    }  # fmt: skip
    for name in ("raw", "clean", "report"):
        step = "ingest" if name == "raw" else "validate"
        assert verify_artifact(packed.folder / "r1" / name) == verify_artifact(packed.smoke.artifact(step, name))
    assert all((packed.workspace / "runs" / "r1" / f"{step}.log").is_file() for step in entries)
    assert not (packed.workspace / "runs" / "r1" / "summary.json").exists()  # it has not ended


@pytest.mark.integration
def test_what_it_makes_has_the_keys_of_single_steps(packed: Packed) -> None:
    before = {entry.parent.name for entry in (packed.workspace / "cache").glob("*/*/entry.json")}
    for step in ("ingest", "validate"):
        shutil.rmtree(packed.workspace / "cache" / step)
    packed.prepare("r1")
    assert {packed.entries("r1")[step].status for step in ("ingest", "validate")} == {"done"}
    assert {entry.parent.name for entry in (packed.workspace / "cache").glob("*/*/entry.json")} == before
    packed.prepare("r1")  # begun again
    assert {packed.entries("r1")[step].status for step in ("ingest", "validate")} == {"reused"}
    assert all(packed.entries("r1")[step].core_s < 60 for step in ("ingest", "validate"))


@pytest.mark.integration
def test_it_promotes_and_writes_the_summary_and_twice_changes_nothing(fresh: Packed) -> None:
    fresh.prepare("r1")
    assert fresh.conclude("r1") == "promote"
    summary = fresh.summary("r1")
    assert (summary["outcome"], summary["model_id"]) == ("promoted", fresh.smoke.summary["model_id"])
    assert fresh.promotions() == 1
    assert fresh.conclude("r1") == "promote"
    assert fresh.promotions() == 1
    assert fresh.summary("r1")["outcome"] == "promoted"


@pytest.mark.integration
def test_ended_within_promote_it_goes_on_with_the_verdict(fresh: Packed, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh.prepare("r1")

    announce = promote_step._announce

    def stop(announcer: Any, models: Any, model_id: str, events: list[Any]) -> Any:
        if events:  # decide has none to announce
            raise OSError("the node is gone")
        return announce(announcer, models, model_id, events)

    with monkeypatch.context() as patch:
        patch.setattr(promote_step, "_announce", stop)
        with pytest.raises(SystemExit):
            fresh.conclude("r1")
    assert fresh.promotions() == 1
    assert fresh.summary("r1")["failed_step"] == "promote"
    before, page = fresh.metrics, fresh.page.read_bytes()
    fresh.page.unlink()
    shutil.rmtree(fresh.folder / "r1" / "verdict")
    assert fresh.conclude("r1") == "promote"
    assert (fresh.metrics, fresh.page.read_bytes()) == (before, page)
    assert before["outcome"] == "promote"
    event = ModelRegistry(str(fresh.workspace / "repository"), repair_cache=False).history()[-1]
    assert event.digests["verdict"] == ModelRegistry(str(fresh.workspace / "repository")).add_evidence(
        fresh.folder / "r1" / "verdict"
    )
    assert fresh.promotions() == 1
    assert fresh.summary("r1")["outcome"] == "promoted"
    assert fresh.entries("r1")["promote"].attempts == 2


def test_a_step_that_fails_ends_the_run_with_a_summary(packed: Packed) -> None:
    packed.settings["ingest"]["source"] = "/nowhere"
    with pytest.raises(SystemExit):
        packed.prepare("r1")
    summary = packed.summary("r1")
    assert (summary["outcome"], summary["failed_step"]) == ("failed", "resolve_inputs")


@pytest.mark.integration
def test_where_the_champion_is_the_candidate_there_is_nothing_to_promote(packed: Packed) -> None:
    packed.prepare("r1")
    assert packed.conclude("r1") == "already_serving"
    assert packed.summary("r1")["outcome"] == "already serving"
    assert "promote" not in packed.entries("r1")


@pytest.mark.slow
def test_a_packed_package_runs_from_its_own_yaml(packed: Packed, tmp_path: Path) -> None:
    settings = [f"cluster.workspace={packed.workspace}", "cluster.volume=", "cluster.pack=true"]
    package = compile_flow(golden.pinned("smoke", *settings), tmp_path / "flow.yaml")
    before = set((packed.workspace / "runs").iterdir())
    tasks = {"prepare", "featurize", "finetune", "distill", "export", "evaluate", "conclude"}
    assert run_package(package, tmp_path / "root") == tasks
    (folder,) = set((packed.workspace / "runs").iterdir()) - before
    summary = packed.summary(folder.name)
    assert summary["outcome"] == "already serving"
    assert {step["status"] for step in summary["steps"] if step["step"] not in ("resolve_inputs", "decide")} == {
        "reused"
    }
