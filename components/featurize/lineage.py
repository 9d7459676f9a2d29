"""The lineage of featurize: the feature stores outside of the workspace."""

from __future__ import annotations

from typing import Any

from components.featurize.config import FeaturizeConfig
from rankline.runtime.lineage import LineageFacts


def lineage(config: FeaturizeConfig, facts: LineageFacts) -> dict[str, Any]:
    """What the stores say of themselves; empty for those in the workspace."""
    return facts.run.storage.features.lineage
