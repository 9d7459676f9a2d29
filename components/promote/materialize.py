"""Keep what the champion reads fresh between promotions: newer rows of the very features that it was trained on.

`materialize` reads a run's features and brings them into the online store of the champion's feature service. What
the features *are* never changes here: another version, or other definitions under the same name, is for a promotion
to bring.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.promote import online
from components.promote.config import PromoteConfig
from rankline.errors import UsageError
from rankline.io.storage import FeatureStoreConfig
from rankline.registry.model_registry import ModelRegistry
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
    progress: Progress = Progress(),
) -> dict[str, Any]:
    """Bring a run's features online for the champion; ``trigger`` says who asked for it.

    Raises:
        UsageError: nobody serves, or the champion reads other features than these.
        RepositoryError: somebody else writes the store all the time, or it could not be written.
        StorageError: Postgres or Redis is away.
    """
    service = champion_feature_service(repository, run_service=_service_of(features), where=str(features))
    store_folder = workspace / "online" / service
    owner = {"who": triggered_by(trigger), "run": run_id}
    progress.phase("features online")
    with online.store_lock(store_folder, timeout_s=config.lock_timeout_s, who=owner["who"], run=run_id):
        started = time.monotonic()
        watermark = online.materialize_online(features, store_folder, stores=stores, owner=owner, champion_reads=True)
        online_s = time.monotonic() - started
    sentence = f"{service} knows everything up to {watermark['until']}"
    return {
        "service": service,
        "online": {**watermark, "seconds": round(online_s, 2)},
        "sentence": sentence if watermark["moved"] else f"{sentence}, which is later than this data: it stays as it is",
    }


def champion_feature_service(repository: str, *, run_service: str, where: str, repair_cache: bool = True) -> str:
    """The feature service that the champion reads, which has to be the one that is ``made`` here.

    Raises:
        UsageError: there is no champion, or it reads another one.
    """
    models = ModelRegistry(repository, repair_cache=repair_cache)
    champion = models.champion()
    if not champion:
        raise UsageError(
            "there is no champion whose features could be kept fresh",
            expected="a model that was promoted",
            found="none so far",
            where=repository,
            hint="`rankline run` promotes one, and brings its features online",
        )
    expected_service = models.manifest(champion).features.service
    if expected_service != run_service:
        raise UsageError(
            "these are the features of another service version than the champion reads",
            expected=f"{expected_service}, which champion {champion} was trained on",
            found=run_service,
            where=where,
            hint=f"promote a model that reads {run_service}, or materialize with the code that the champion was made with",
        )
    return expected_service


def triggered_by(trigger: Mapping[str, Any] | None) -> str:
    """Whose materialization it is: a schedule's, or that of whoever gave the command."""
    source = trigger or {}
    return (
        f"schedule {source['schedule']}"
        if source.get("schedule")
        else str(source.get("who") or "materialization by hand")
    )


def _service_of(features: Path) -> str:
    run_service: str = json.loads((features / "summary.json").read_text())["service"]
    return run_service
