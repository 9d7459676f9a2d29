"""The lineage of finetune: the encoder, and the champion's weights where training starts from them."""

from __future__ import annotations

import functools
from typing import Any

from components.finetune import encoder
from components.finetune.config import FinetuneConfig
from rankline.registry.model_registry import ModelRegistry
from rankline.runtime.lineage import LineageFacts
from rankline.runtime.step_cache import UNKNOWN
from rankline.train import champion_weights
from rankline.train.champion_weights import WarmStart


def lineage(config: FinetuneConfig, facts: LineageFacts) -> dict[str, Any]:
    """The digests of the encoder and of the weights to start from."""
    values = {"encoder": UNKNOWN if facts.encoder_missing else encoder.encoder_digest(config.encoder)}
    if config.warm_start:
        start = warm_start(facts)
        values[champion_weights.LINEAGE_KEY] = UNKNOWN if start is None else start.digest
    return values


@functools.cache  # the weights that are digested are the weights that are fetched
def warm_start(facts: LineageFacts) -> WarmStart | None:
    """What training starts from; None where that depends on data that is not known yet."""
    models = ModelRegistry(facts.run.repository, repair_cache=False)
    if facts.data is UNKNOWN and facts.champion and champion_weights.read_metadata(models, facts.champion):
        return None
    return champion_weights.select_warm_start(models, facts.champion, facts.data)
