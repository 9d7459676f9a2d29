"""The compiled package runs from its own YAML, and what `rankline submit --plan` predicts is what happens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from pipelines.package import compile_flow
from pipelines.steps import CACHED_TRAINING_STEPS
from tests.conftest import SmokeRun
from tests.pipelines import golden

ROOT = Path(__file__).resolve().parents[2]


def run(package: Path, root: Path) -> set[str]:
    """The tasks that a package ran."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.pipelines.from_yaml", str(package), str(root)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (folder,) = root.iterdir()
    return {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_the_package_runs_from_its_own_yaml_as_planned(smoke: SmokeRun, tmp_path: Path) -> None:
    workspace = smoke.copy(tmp_path / "ws")
    settings = [f"cluster.workspace={workspace}", "cluster.volume="]
    package = compile_flow(golden.pinned("smoke", *settings), tmp_path / "flow.yaml")
    words = ["submit", "--recipe", "smoke", "--plan", "--json"]
    words += [each for setting in (*golden.PINNED, *settings) for each in ("--set", setting)]
    plan = json.loads(CliRunner().invoke(app, words).stdout)  # the volume lies here, where it lies there
    assert plan["cluster"]["workspace"] == str(workspace)
    planned: dict[str, Any] = {step["step"]: step for step in plan["steps"]}
    before = set((workspace / "runs").iterdir())
    # there was nothing to do, so no branch has run
    assert run(package, tmp_path / "root") == {"resolve-inputs", *CACHED_TRAINING_STEPS, "decide", "summary"}
    (folder,) = set((workspace / "runs").iterdir()) - before
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["outcome"] == "already serving"
    happened = {step["step"]: step for step in summary["steps"]}
    assert {step: planned[step]["state"] for step in CACHED_TRAINING_STEPS} == dict.fromkeys(
        CACHED_TRAINING_STEPS, "reused"
    )
    for step in CACHED_TRAINING_STEPS:
        assert (happened[step]["status"], happened[step]["why"]) == ("reused", planned[step]["why"])
    assert planned["promote"]["state"] == "skipped"
    assert "promote" not in happened
