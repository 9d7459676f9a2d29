"""Up to what an online store knows everything: a file beside it, and in Redis a key for who reads it from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

FILE = "watermark.json"  # beside feature_store.yaml; written last, when all rows are there


def write_shared(store: Any, watermark: Mapping[str, Any]) -> None:
    """Put a watermark into a store (Feast's FeatureStore) that machines share; nothing where it is a file."""
    if (client := _redis_client(store)) is not None:
        client.set(_key(store), json.dumps(watermark))


def read_shared(store: Any) -> dict[str, Any] | None:
    """The watermark in a store that machines share; None where it is a file, or nobody has told yet."""
    if (client := _redis_client(store)) is None or (content := client.get(_key(store))) is None:
        return None
    watermark: dict[str, Any] = json.loads(content)
    return watermark


def _redis_client(store: Any) -> Any:
    """Feast's own connection to Redis, with what it knows of secrets, clusters and certificates."""
    online = store.config.online_store
    return store._get_provider().online_store._get_client(online) if online.type == "redis" else None


def _key(store: Any) -> str:
    return f"{store.project}:watermark"
