"""A real run, then `rankline gc`, then the same run again: what was kept is reused, and what serves goes on serving."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rankline.registry.model_registry import ModelRegistry
from serving.engine import BundleEngine
from tests.cli.command import rankline
from tests.conftest import SmokeRun
from tests.pipelines.retention.sweep_workspace import aged

pytestmark = pytest.mark.slow


def test_after_gc_the_next_run_reuses_what_was_kept_and_the_champion_serves(smoke: SmokeRun, tmp_path: Path) -> None:
    workspace = smoke.copy(tmp_path / "w")
    first = smoke.summary["run"]
    for _ in range(2):  # each is reused as a whole
        assert rankline("run", "-r", "smoke", "-w", workspace, timeout_s=600).returncode == 0
    aged(workspace / "runs")
    aged(workspace / "cache")
    done = rankline("gc", "--keep-runs", "1", "--keep-days", "0", "--yes", "--json", "-w", workspace)
    result = json.loads(done.stdout)
    assert [each["kind"] for each in result["goes"]] == ["run"]  # the one in the middle
    assert (workspace / "runs" / first).is_dir()  # it made what serves
    again = rankline("run", "-r", "smoke", "-w", workspace, "--json", timeout_s=600)
    steps = {step["step"]: step["status"] for step in json.loads(again.stdout)["steps"]}
    assert {step for step, status in steps.items() if status == "reused"} == {
        "ingest", "validate", "featurize", "finetune", "distill", "export", "evaluate"
    }  # fmt: skip
    models = ModelRegistry(workspace / "repository")
    champion = models.bundle(models.champion())
    assert champion.model_id == smoke.summary["model_id"]
    BundleEngine.load(champion, precision="fp32", provider="cpu", threads=1)  # which answers once before anybody asks
