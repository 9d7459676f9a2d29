"""The lineage of finetune: the encoder and, for a warm start, the weights that training starts from."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from components.finetune import encoder
from components.finetune.config import FinetuneConfig
from rankline.registry.model_registry import ModelRegistry
from rankline.runtime import references
from rankline.runtime.lineage import LineageFacts
from rankline.runtime.run_context import RunContext
from rankline.runtime.step_cache import UNKNOWN
from rankline.train import champion_weights
from rankline.train.champion_weights import WarmStart


def lineage(config: FinetuneConfig, facts: LineageFacts) -> dict[str, Any]:
    """The digests of the encoder and of the weights to start from."""
    values: dict[str, Any] = {"encoder": UNKNOWN if facts.encoder_missing else encoder.encoder_digest(config.encoder)}
    if config.warm_start:
        start = warm_start(facts)
        values[champion_weights.LINEAGE_KEY] = UNKNOWN if start is None else start.digest
    return values


@functools.cache  # the weights that are digested are the weights that are loaded
def warm_start(facts: LineageFacts) -> WarmStart | None:
    """What training starts from; None where that depends on data that is not known yet."""
    models = ModelRegistry(facts.run.repository, repair_cache=False)
    if facts.data is UNKNOWN and facts.champion and champion_weights.read_metadata(models, facts.champion):
        return None
    return champion_weights.select_warm_start(models, facts.champion, facts.data)


class FinetuneLineage:
    """The lineage within a run: the weights are selected once, and loaded if the step executes."""

    def __init__(self, config: FinetuneConfig, run: RunContext, *, champion: str, features: Path) -> None:
        self._config, self._run, self._champion, self._features = config, run, champion, features

    @functools.cached_property
    def _facts(self) -> LineageFacts:
        data = UNKNOWN
        if self._config.warm_start:
            data = json.loads(references.read_file(self._features, "summary.json", self._run))["data_digest"]
        return LineageFacts(run=self._run, data=data, champion=self._champion)

    def digests(self) -> dict[str, Any]:
        """What decides the outcome besides settings, features and code."""
        return lineage(self._config, self._facts)

    def load(self) -> dict[str, WarmStart]:
        """The argument ``start`` of the step, with its files on this machine."""
        start = warm_start(self._facts) if self._config.warm_start else None
        if start is None:
            return {}
        return {"start": start.fetched(ModelRegistry(self._run.repository), self._run.workspace)}
