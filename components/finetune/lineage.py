"""The lineage of finetune: the encoder and, for a warm start, the weights that training starts from."""

from __future__ import annotations

import json
from pathlib import Path

from components.finetune import encoder
from components.finetune.config import FinetuneConfig
from rankline.registry.model_registry import ModelRegistry
from rankline.runtime.run_context import RunContext
from rankline.train import champion_weights
from rankline.train.champion_weights import WarmStart


class FinetuneLineage:
    """Selects the weights for a warm start once, and loads them if the step executes."""

    def __init__(self, config: FinetuneConfig, run: RunContext, *, champion: str, features: Path) -> None:
        self._config, self._run, self._champion, self._features = config, run, champion, features
        self._warm_start: WarmStart | None = None

    def digests(self) -> dict[str, str]:
        """What decides the outcome besides settings, features and code."""
        digests = {"encoder": encoder.encoder_digest(self._config.encoder)}
        if self._config.warm_start:
            data_digest = json.loads((self._features / "summary.json").read_text())["data_digest"]
            registry = ModelRegistry(self._run.repository)
            self._warm_start = champion_weights.select_warm_start(registry, self._champion, data_digest)
            digests[champion_weights.LINEAGE_KEY] = self._warm_start.digest
        return digests

    def load(self) -> dict[str, WarmStart]:
        """The argument ``start`` of the step, with its files on this machine."""
        if self._warm_start is None:
            return {}
        return {"start": self._warm_start.fetched(ModelRegistry(self._run.repository), self._run.workspace)}
