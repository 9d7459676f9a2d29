"""The time up to which an online store is complete: a file beside it, and in Redis a key for other machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

FILE = "watermark.json"  # beside feature_store.yaml; written last, after all rows


def write_shared(store: Any, watermark: Mapping[str, Any]) -> None:
    """Write a watermark to a store (Feast's FeatureStore) that machines share; a store in a file is not shared."""
    if (client := _redis_client(store)) is not None:
        client.set(_key(store), json.dumps(watermark))


def read_shared(store: Any) -> dict[str, Any] | None:
    """The watermark of a store that machines share; None for a store in a file, or without a watermark yet."""
    if (client := _redis_client(store)) is None or (content := client.get(_key(store))) is None:
        return None
    watermark: dict[str, Any] = json.loads(content)
    return watermark


def _redis_client(store: Any) -> Any:
    """Feast's own connection to Redis, which handles secrets, clusters and certificates."""
    online = store.config.online_store
    return store._get_provider().online_store._get_client(online) if online.type == "redis" else None


def _key(store: Any) -> str:
    return f"{store.project}:watermark"
