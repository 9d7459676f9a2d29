"""The lineage of evaluate: the champion that the candidate is compared with."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from components.evaluate.champion_for import champion_for, is_champion
from components.evaluate.config import EvaluateConfig
from rankline.model.bundle import MANIFEST, unverified_model_id
from rankline.runtime import references
from rankline.runtime.lineage import LineageFacts
from rankline.runtime.run_context import RunContext
from rankline.runtime.step_cache import UNKNOWN


def lineage(config: EvaluateConfig, facts: LineageFacts) -> dict[str, Any]:
    """The champion, unless the candidate is the champion itself."""
    if facts.model_id is UNKNOWN and facts.champion:
        return {"champion": UNKNOWN}
    return {"champion": champion_for(facts.model_id, facts.champion)}


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

    def digests(self) -> dict[str, Any]:
        """What decides the outcome besides settings, inputs and code."""
        return lineage(self._config, LineageFacts(run=self._run, model_id=self._model_id, champion=self._champion))

    def is_ignored(self) -> bool:
        """Whether an evaluation beside any other model is as good."""
        return is_champion(self._model_id, self._champion)

    def load(self) -> dict[str, Path | None]:
        """The argument ``champion`` of the step, with its files on this machine."""
        opponent = champion_for(self._model_id, self._champion)
        return {"champion": self._run.bundle_folder(opponent) if opponent else None}
