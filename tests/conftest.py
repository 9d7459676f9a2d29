"""What many tests share: one real run of the smoke recipe, made once for a whole test session."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.cli.command import rankline


@dataclass(frozen=True)
class SmokeRun:
    """A finished run of the smoke recipe. Read it; whoever wants to change something takes a `copy`."""

    workspace: Path
    summary: dict[str, Any]

    def artifact(self, step: str, name: str) -> Path:
        """The folder that a step wrote under this name."""
        return next(Path(s["paths"][name]) for s in self.summary["steps"] if s["step"] == step)

    def copy(self, folder: Path) -> Path:
        """A workspace of one's own with everything this run left."""
        shutil.copytree(self.workspace, folder)
        return folder


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> SmokeRun:
    """The smoke recipe run for real; parallel test workers share one run."""
    root = tmp_path_factory.getbasetemp()
    if root.parent.name.startswith("pytest-") and root.name.startswith("popen-"):
        root = root.parent
    workspace = root / "smoke-workspace"
    told = root / "smoke-summary.json"
    with FileLock(root / "smoke.lock"):
        if not told.is_file():
            done = rankline("run", "--recipe", "smoke", "-w", workspace, "--json", timeout_s=600)
            assert done.returncode == 0, done.stderr
            told.write_text(done.stdout)
    return SmokeRun(workspace, json.loads(told.read_text()))
