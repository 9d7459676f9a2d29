"""Bring a model's features online, then append the event that makes it serve.

A promotion by the gates and an approval by a reviewer share this: what can fail comes before the event.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.promote import online
from components.promote.config import PromoteConfig
from components.promote.store_lock import store_lock
from rankline.errors import UsageError
from rankline.io.storage import FeatureStoreConfig
from rankline.model.bundle import Bundle
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import Event
from rankline.runtime.bucket_workspace import BucketWorkspace


@dataclass(frozen=True, kw_only=True)
class OnlinePlace:
    """Where features are brought online: below a workspace, or with a ``bucket`` in the one there."""

    workspace: Path
    config: PromoteConfig
    stores: FeatureStoreConfig | None = None
    bucket: BucketWorkspace | None = None


def materialize_then_append(
    models: ModelRegistry,
    candidate: Bundle,
    features: Path,
    *,
    place: OnlinePlace,
    owner: dict[str, str],
    check: Callable[[], object],
    append: Callable[[dict[str, Any]], Event],
) -> tuple[Event, dict[str, Any]]:
    """Materialize the features that a model reads, then ``append`` its event; returns it and the store's watermark.

    The lock of the store covers everything from ``check``, which raises if the model may not serve (any more), to the
    event: of two promotions, one writes nothing. ``append`` receives what the event's details say of the store.
    ``owner`` is `who` and `run`, for the lock and the watermark.

    Raises:
        UsageError: the features belong to another service, or the champion reads other definitions under its name.
        RegistryError: the features could not be materialized; nothing was appended.
    """
    service = _check_service(candidate, features)
    store_folder = place.workspace / "online" / service
    with store_lock(store_folder, timeout_s=place.config.lock_timeout_s, **owner, bucket=place.bucket) as publish:
        check()
        champion = models.champion()
        watermark = online.materialize_online(
            features,
            store_folder,
            stores=place.stores,
            owner=dict(owner),
            champion_reads=champion not in ("", candidate.model_id) and service_of(models, champion) == service,
            replace_later=place.config.replace_later_features,
        )
        publish()
        event = append({"service": service, "online_until": watermark["until"]})
    return event, watermark


def service_of(models: ModelRegistry, model_id: str) -> str:
    """The feature service that a registered model reads."""
    return models.manifest(model_id).features.service


def _check_service(candidate: Bundle, features: Path) -> str:
    """The feature service that the model reads, which must be the one of these features."""
    expected_service = candidate.manifest.features.service
    run_service = online.feature_service(features)
    if run_service != expected_service:
        raise UsageError(
            "the model reads another feature service than these features have",
            expected=expected_service,
            found=run_service,
            where=str(features),
            hint="pass the features that this model was trained on",
        )
    return expected_service
