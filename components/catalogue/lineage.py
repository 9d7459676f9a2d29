"""The lineage of catalogue: the champion, and the catalogue revision that it serves over."""

from __future__ import annotations

from typing import Any

from components.catalogue.config import CatalogueConfig
from components.catalogue.step import served_revision
from rankline.runtime.lineage import LineageFacts


def lineage(config: CatalogueConfig, facts: LineageFacts) -> dict[str, Any]:
    """The champion and its published revision."""
    serves_over = served_revision(facts.champion, repository=facts.run.repository)
    return {"champion": facts.champion, "serves over": serves_over}
