"""The models of a run's registry, in the files of its workspace."""

from __future__ import annotations

from pathlib import Path

from rankline.errors import UsageError
from rankline.model.bundle import Bundle
from rankline.registry.model_registry import ModelRegistry
from rankline.runtime.run_context import RunContext


def bundle_folder(run: RunContext, model_id: str) -> Path:
    """The folder of a registered model; one in a bucket is downloaded into the workspace."""
    models = ModelRegistry(run.repository)
    if models.local:
        return Path(models.root) / "bundles" / model_id
    return models.bundle(model_id, revision="", into=run.workspace / "fetched").folder


def champion_bundle(run: RunContext, model_id: str) -> Bundle:
    """The champion with the catalogue that it serves.

    Raises:
        UsageError: there is no champion.
    """
    if not model_id:
        raise UsageError(
            "there is no champion whose catalogue could be refreshed",
            expected="a champion",
            found="none",
            where=run.repository,
            hint="`rankline run` trains a model and promotes it",
        )
    return ModelRegistry(run.repository).bundle(model_id, into=run.workspace / "fetched")
