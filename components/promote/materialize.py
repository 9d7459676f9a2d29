"""Keep the champion's features fresh between promotions.

`materialize` writes newer rows of a run's features to the online store of the champion's feature service, and removes
what the sources no longer hold or what has outlived its lifetime. It never changes definitions: only a promotion brings
another version of the service, or other definitions under its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.promote import online
from components.promote.config import PromoteConfig
from components.promote.store_lock import store_lock
from rankline.errors import UsageError
from rankline.io.storage import FeatureStoreConfig
from rankline.registry.model_registry import ModelRegistry
from rankline.runtime.bucket_workspace import BucketWorkspace
from rankline.runtime.progress import Progress


def materialize(
    features: Path,
    *,
    config: PromoteConfig,
    repository: str,
    workspace: Path,
    run_id: str,
    trigger: Mapping[str, Any] | None = None,
    stores: FeatureStoreConfig | None = None,
    bucket: BucketWorkspace | None = None,
    progress: Progress = Progress(),
) -> dict[str, Any]:
    """Materialize a run's features for the champion; ``trigger`` is what started the run.

    With a ``bucket`` the online store is the one there.

    Raises:
        UsageError: there is no champion, or it reads other features than these.
        RegistryError: another process holds the store's lock for too long, or the store could not be written.
        StorageError: Postgres or Redis does not answer.
    """
    service = champion_feature_service(repository, run_service=online.feature_service(features), where=str(features))
    store_folder = workspace / "online" / service
    owner = {"who": triggered_by(trigger), "run": run_id}
    progress.phase("features online")
    with store_lock(store_folder, timeout_s=config.lock_timeout_s, **owner, bucket=bucket) as publish:
        watermark = online.materialize_online(
            features,
            store_folder,
            stores=stores,
            owner=owner,
            champion_reads=True,
            replace_later=config.replace_later_features,
        )
        publish()
    sentence = f"{service} is complete up to {watermark['until']}"
    if not watermark["moved"]:
        sentence += ", which is later than this data: the store stays as it is"
        sentence += " (--set promote.replace_later_features=true replaces it, after a correction of the newest events)"
    return {"service": service, "online": watermark, "sentence": sentence}


def champion_feature_service(repository: str, *, run_service: str, where: str, repair_cache: bool = True) -> str:
    """The feature service that the champion reads, which must be ``run_service``.

    Raises:
        UsageError: there is no champion, or it reads another service.
    """
    models = ModelRegistry(repository, repair_cache=repair_cache)
    champion = models.champion()
    if not champion:
        raise UsageError(
            "there is no champion to materialize features for",
            expected="a promoted model",
            found="none",
            where=repository,
            hint="`rankline run` promotes one and materializes its features",
        )
    expected_service = models.manifest(champion).features.service
    if expected_service != run_service:
        raise UsageError(
            "these features have another service version than the champion reads",
            expected=f"{expected_service}, which champion {champion} was trained on",
            found=run_service,
            where=where,
            hint=f"promote a model that reads {run_service}, or materialize with the code that trained the champion",
        )
    return expected_service


def triggered_by(trigger: Mapping[str, Any] | None) -> str:
    """What started a materialization, as the watermark shows it: a schedule, or the actor of a command."""
    trigger = trigger or {}
    if trigger.get("schedule"):
        return f"schedule {trigger['schedule']}"
    return str(trigger.get("who") or "materialization by hand")
