"""What many tests share: real runs, of users' events and of queries, each made once for a whole test session."""

from __future__ import annotations

import functools
import inspect
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.cli.command import rankline
from tests.pipelines.asked_recipe import write_beir
from tests.servers.fixtures import (  # noqa: F401
    bucket,
    mlflow_server,
    postgres,
    postgres_for_all,
    redis,
    redis_for_all,
    s3,
    url,
)

SHARED = {"smoke", "answers"}


@pytest.fixture(autouse=True, scope="session")
def _stacks_without_source() -> Iterator[None]:
    """Kubeflow looks at the whole stack for every setting of a task; below pytest, reading its source takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspect, "stack", functools.partial(inspect.stack, 0))
        yield


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One file makes what many share, while other workers do the files that need nothing of it and not wait."""
    needs: dict[Path, set[str]] = {}
    for item in items:
        needs.setdefault(item.path, set()).update(SHARED.intersection(getattr(item, "fixturenames", ())))
    first = max(needs, key=lambda path: len(needs[path]), default=None)
    items.sort(key=lambda item: (item.path != first, bool(needs[item.path])))


@dataclass(frozen=True)
class SmokeRun:
    """A finished run. Read it; whoever wants to change something takes a `copy`."""

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
    """The smoke recipe run for real."""
    return _once(tmp_path_factory, "smoke", lambda folder: ("--recipe", "smoke"))


@pytest.fixture(scope="session")
def answers(tmp_path_factory: pytest.TempPathFactory) -> SmokeRun:
    """A recipe of queries without users run for real, on a BEIR folder."""

    def arguments(folder: Path) -> tuple[str, ...]:
        return "--recipe", "tests.pipelines.asked_recipe:answers", "--source", str(write_beir(folder))

    return _once(tmp_path_factory, "answers", arguments)


def _once(
    tmp_path_factory: pytest.TempPathFactory, name: str, arguments: Callable[[Path], tuple[str, ...]]
) -> SmokeRun:
    """A run that parallel test workers share; ``arguments`` may lay its data into the folder it is given."""
    root = tmp_path_factory.getbasetemp()
    if root.parent.name.startswith("pytest-") and root.name.startswith("popen-"):
        root = root.parent
    workspace = root / f"{name}-workspace"
    told = root / f"{name}-summary.json"
    with FileLock(root / f"{name}.lock"):
        if not told.is_file():
            command = arguments(root / f"{name}-source")
            done = rankline("run", *command, "-w", workspace, "--json", timeout_s=600)
            assert done.returncode == 0, done.stderr + done.stdout
            told.write_text(done.stdout)
    return SmokeRun(workspace, json.loads(told.read_text()))
