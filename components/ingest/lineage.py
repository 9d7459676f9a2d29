"""The lineage of ingest: the source."""

from __future__ import annotations

from typing import Any

from components.ingest.config import IngestConfig
from rankline.runtime.lineage import LineageFacts


def lineage(config: IngestConfig, facts: LineageFacts) -> dict[str, Any]:
    """The digest of the source."""
    return {"source": facts.source}
