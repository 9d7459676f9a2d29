"""A workspace with a registry of tiny candidates, and an MLflow database that has its tables."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from rankline.errors import RegistryError
from rankline.mirror.config import TrackingConfig
from rankline.mirror.sync import Synced, sync
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import Event, Kind
from tests.components.test_promote import evaluation_of
from tests.conftest import once
from tests.rankline.registry.test_model_registry import tiny_bundle


class Gallery:
    """A workspace whose candidates are registered and judged by writing the events."""

    def __init__(self, workspace: Path) -> None:
        self.workspace, self.config = workspace, TrackingConfig()
        self.models = ModelRegistry(workspace / "repository")

    def candidate(self, name: str, kind: Kind | None = None, *, outcome: str = "", run: str = "", **more: Any) -> str:
        """Register a candidate and give it a verdict; returns its model id."""
        bundle = tiny_bundle(self.workspace.parent / name / "bundle", weights=name.encode())
        self.models.add(bundle.folder)
        fields: dict[str, Any] = {"who": "the flow", "run_id": run or f"run-{name}"}
        origin = {"began_from": "m0"}
        self.models.append("registered", bundle.model_id, why="made by recipe smoke", details=origin, **fields)
        self.evaluate(bundle, name, **fields)
        if kind:
            self.judge(bundle.model_id, kind, details={"outcome": outcome} if outcome else {}, **more)
        return bundle.model_id

    def evaluate(self, bundle: Any, name: str, *, lift: float = 0.1, **fields: Any) -> None:
        """Add evidence of an evaluation."""
        folder = self.workspace.parent / name / f"evaluation-{lift}"
        evaluation = evaluation_of(bundle, folder, lift=lift, requests=10)
        digests = {"evaluation": self.models.add_evidence(evaluation)}
        self.models.append("evaluated", bundle.model_id, why="ndcg@10 0.4", digests=digests, **fields)

    def judge(self, model_id: str, kind: Kind, *, who: str = "the flow", why: str = "because", **more: Any) -> Event:
        """Write a verdict, with its page as evidence."""
        folder = self.workspace.parent / "verdicts" / f"{len(self.models.history())}"
        folder.mkdir(parents=True)
        (folder / "verdict.md").write_text(f"# {kind} {model_id}\n")
        evaluated = [event for event in self.models.history() if event.model_id == model_id and event.digests]
        digests = {**evaluated[-1].digests, "verdict": self.models.add_evidence(folder)}
        return self.models.append(kind, model_id, who=who, why=why, digests=digests, **more)

    def remove(self, model_id: str) -> None:
        """Remove a model as `rankline gc` does: the event, then the files."""
        from rankline.registry.removal import delete_from_registry, remove

        assert remove(self.models, model_id, skipped=lambda history: False, who="gc", why="old")
        delete_from_registry(self.models, f"bundles/{model_id}")
        with pytest.raises(RegistryError):
            self.models.manifest(model_id)

    def sync(self, **options: Any) -> Synced:
        """Sync it with MLflow."""
        return sync(self.models, config=self.config, workspace=self.workspace, **options)

    @property
    def client(self) -> Any:
        """MLflow's own client of the database."""
        from mlflow import MlflowClient

        uri = self.config.uri_in(str(self.workspace))
        return MlflowClient(tracking_uri=uri, registry_uri=uri)

    def version(self, model_id: str) -> Any:
        """The version of a model."""
        name = self.config.registered_model
        (version,) = self.client.search_model_versions(f"name = '{name}' and tags.model_id = '{model_id}'")
        return version

    @property
    def aliases(self) -> dict[str, str]:
        """Alias -> model id."""
        name = self.config.registered_model
        named = self.client.get_registered_model(name).aliases
        return {alias: self.client.get_model_version(name, n).tags["model_id"] for alias, n in named.items()}


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without rows."""

    def create(folder: Path) -> None:
        sync(ModelRegistry(folder / "repository"), config=TrackingConfig(), workspace=folder)

    return once(tmp_path_factory, "mlflow-tables", create) / "mlflow.db"


@pytest.fixture
def gallery(tmp_path: Path, tables: Path) -> Gallery:
    (tmp_path / "workspace").mkdir()
    shutil.copy(tables, tmp_path / "workspace" / "mlflow.db")
    return Gallery(tmp_path / "workspace")
