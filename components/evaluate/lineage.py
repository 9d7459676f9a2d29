"""The lineage of evaluate: the champion that the candidate is compared with."""

from __future__ import annotations

from typing import Any

from components.evaluate.champion_for import champion_for
from components.evaluate.config import EvaluateConfig
from rankline.runtime.lineage import LineageFacts
from rankline.runtime.step_cache import UNKNOWN


def lineage(config: EvaluateConfig, facts: LineageFacts) -> dict[str, Any]:
    """The champion, unless the candidate is the champion itself."""
    if facts.model_id is UNKNOWN and facts.champion:
        return {"champion": UNKNOWN}
    return {"champion": champion_for(facts.model_id, facts.champion)}
