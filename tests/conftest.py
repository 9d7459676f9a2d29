"""Fixtures that many tests share: finished runs, each made once per test session."""

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

from tests.cli.in_process import rankline
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

SHARED_RUNS = {"smoke", "answers"}
LONGEST = "test_runner.py"


@pytest.fixture(autouse=True, scope="session")
def _stacks_without_source() -> Iterator[None]:
    """Keep `inspect.stack` from reading source files: Kubeflow calls it for every setting of a task, and under pytest's
    deep stacks that takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspect, "stack", functools.partial(inspect.stack, 0))
        yield


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with a file that makes the shared runs, so that other workers do files without them and need not wait.

    The longest of the files that wait for a run comes before the others, so that none is left to a single worker.
    """
    shared: dict[Path, set[str]] = {}
    for item in items:
        shared.setdefault(item.path, set()).update(SHARED_RUNS.intersection(getattr(item, "fixturenames", ())))
    first = max(shared, key=lambda path: len(shared[path]), default=None)
    items.sort(key=lambda item: (item.path != first, bool(shared[item.path]), item.path.name != LONGEST))


@dataclass(frozen=True)
class SmokeRun:
    """A finished run, to be read only: a test that changes something takes a `copy`."""

    workspace: Path
    summary: dict[str, Any]

    def artifact(self, step: str, name: str) -> Path:
        """The folder that a step wrote under this name."""
        return next(Path(entry["paths"][name]) for entry in self.summary["steps"] if entry["step"] == step)

    def copy(self, folder: Path) -> Path:
        """The workspace, copied to ``folder``."""
        shutil.copytree(self.workspace, folder)
        return folder


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> SmokeRun:
    """A real run of the smoke recipe."""
    return _run_once(tmp_path_factory, "smoke", lambda folder: ("--recipe", "smoke"))


@pytest.fixture(scope="session")
def answers(tmp_path_factory: pytest.TempPathFactory) -> SmokeRun:
    """A real run of a recipe of queries without users, on a BEIR folder."""

    def arguments(folder: Path) -> tuple[str, ...]:
        return "--recipe", "tests.pipelines.asked_recipe:answers", "--source", str(write_beir(folder))

    return _run_once(tmp_path_factory, "answers", arguments)


def _run_once(
    tmp_path_factory: pytest.TempPathFactory, name: str, arguments: Callable[[Path], tuple[str, ...]]
) -> SmokeRun:
    """A run that parallel workers share; ``arguments`` may write source data to the folder that it receives."""

    def run(folder: Path) -> None:
        done = rankline("run", *arguments(folder / "source"), "-w", folder / "workspace", "--json")
        assert done.returncode == 0, done.stderr + done.stdout
        (folder / "summary.json").write_text(done.stdout)

    folder = once(tmp_path_factory, name, run)
    return SmokeRun(folder / "workspace", json.loads((folder / "summary.json").read_text()))


def once(tmp_path_factory: pytest.TempPathFactory, name: str, create: Callable[[Path], object]) -> Path:
    """A folder that parallel workers share: the first one to need it calls ``create``."""
    root = tmp_path_factory.getbasetemp()
    if root.parent.name.startswith("pytest-") and root.name.startswith("popen-"):
        root = root.parent
    folder, complete = root / f"shared-{name}", root / f"shared-{name}.complete"
    with FileLock(root / f"shared-{name}.lock"):
        if not complete.is_file():
            shutil.rmtree(folder, ignore_errors=True)  # of an attempt that failed
            folder.mkdir()
            create(folder)
            complete.touch()
    return folder
