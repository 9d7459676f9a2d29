"""The paths and URLs that the steps of one run share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankline.errors import UsageError
from rankline.io.files import restrict_permissions
from rankline.io.storage import StorageConfig

if TYPE_CHECKING:
    from rankline.model.bundle import Bundle


class RunContext:
    """The folder of a run, with its ledger, and what the workspace keeps from earlier runs."""

    def __init__(self, workspace: Path, run_id: str, storage: StorageConfig | None = None) -> None:
        run_dir = os.environ.get("RANKLINE_RUN_DIR")
        self.workspace, self.storage = workspace, storage or StorageConfig()
        self.folder = Path(run_dir) if run_dir else workspace / "runs" / run_id
        self.run_id = self.folder.name
        self.names: dict[str, str] = {}  # of the recipe and the flow

    @classmethod
    def from_parameters(cls, run: dict[str, Any], job: str) -> RunContext:
        """The run that a pipeline describes to its components, whose files are nobody else's from here on.

        ``job`` is Kubeflow's id of the run. It is a parameter of its own because Kubeflow fills in the placeholder
        only where it is a whole string, not within a dict.
        """
        storage = StorageConfig(**run.get("storage", {}))
        restrict_permissions(group_shared=storage.group_shared)
        context = cls(Path(run["workspace"]), job, storage)
        context.names = {name: run[name] for name in ("recipe", "flow") if "flow" in run}
        return context

    @property
    def repository(self) -> str:
        """The model registry: a folder or a URL."""
        return self.storage.repository or str(self.workspace / "repository")

    def bundle_folder(self, model_id: str) -> Path:
        """The folder of a registered model; one in a bucket is downloaded into the workspace.

        Raises:
            RanklineError: the model is missing, damaged or cannot be downloaded.
        """
        from rankline.registry.model_registry import ModelRegistry

        models = ModelRegistry(self.repository)
        if models.local:
            return Path(models.root) / "bundles" / model_id
        return models.bundle(model_id, revision="", into=self.workspace / "fetched").folder

    def champion_bundle(self, model_id: str) -> Bundle:
        """The champion with the catalogue that it serves.

        Raises:
            UsageError: there is no champion.
            RanklineError: it is damaged or cannot be downloaded.
        """
        from rankline.registry.model_registry import ModelRegistry

        if not model_id:
            raise UsageError(
                "there is no champion whose catalogue could be refreshed",
                expected="a champion",
                found="none",
                where=self.repository,
                hint="`rankline run` trains a model and promotes it",
            )
        return ModelRegistry(self.repository).bundle(model_id, into=self.workspace / "fetched")

    def cache_folder(self, step: str) -> Path:
        """The workspace's cache of a step."""
        return self.workspace / "cache" / step

    def checkpoint_folder(self, step: str, key: str) -> Path:
        """Where a step saves the checkpoints that a later attempt resumes from; it outlives the run."""
        return self.workspace / "checkpoints" / step / key[:16]
