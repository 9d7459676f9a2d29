"""The lineage of evaluate: the champion and the anchor that the candidate is compared with."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from components.evaluate.champion_for import anchor_for, champion_for, is_champion
from components.evaluate.config import EvaluateConfig
from rankline.model.bundle import MANIFEST, unverified_model_id
from rankline.registry.run_models import bundle_folder
from rankline.runtime import references
from rankline.runtime.lineage import LineageFacts
from rankline.runtime.run_context import RunContext
from rankline.runtime.step_cache import UNKNOWN


def lineage(config: EvaluateConfig, facts: LineageFacts) -> dict[str, Any]:
    """The champion, unless the candidate is the champion itself, and the anchor, where it is another model."""
    if facts.model_id is UNKNOWN and facts.champion:
        return {"champion": UNKNOWN}
    anchor = anchor_for(facts.model_id, facts.champion, facts.anchor)
    return {"champion": champion_for(facts.model_id, facts.champion), **({"anchor": anchor} if anchor else {})}


class EvaluateLineage:
    """The lineage within a run: the candidate is identified once, and the champion loaded if the step executes."""

    def __init__(self, config: EvaluateConfig, run: RunContext, *, champion: str, bundle: Path) -> None:
        self._config, self._run, self._champion, self._bundle = config, run, champion, bundle

    @functools.cached_property
    def _model_id(self) -> str:
        try:
            return unverified_model_id(references.read_file(self._bundle, MANIFEST, self._run))
        except FileNotFoundError:  # the step says what is wrong with the bundle
            return ""

    @functools.cached_property
    def _anchor(self) -> str:
        """The anchor at the time of this step."""
        from rankline.registry.anchor import anchor
        from rankline.registry.model_registry import ModelRegistry

        return anchor(ModelRegistry(self._run.repository, repair_cache=False).history()) if self._champion else ""

    def digests(self) -> dict[str, Any]:
        """What decides the outcome besides settings, inputs and code."""
        facts = LineageFacts(run=self._run, model_id=self._model_id, champion=self._champion, anchor=self._anchor)
        return lineage(self._config, facts)

    def is_ignored(self) -> bool:
        """Whether an evaluation beside any other model is as good."""
        return is_champion(self._model_id, self._champion)

    def load(self) -> dict[str, Path | None]:
        """The arguments ``champion`` and ``anchor`` of the step, with their files on this machine."""
        models = {
            "champion": champion_for(self._model_id, self._champion),
            "anchor": anchor_for(self._model_id, self._champion, self._anchor),
        }
        return {name: bundle_folder(self._run, model) if model else None for name, model in models.items()}
