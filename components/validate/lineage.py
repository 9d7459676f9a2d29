"""The lineage of validate: the profile that the data is compared with, and the day where the age of the data counts."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.validate import profile
from components.validate.config import ValidateConfig
from rankline.io import digest
from rankline.runtime import references
from rankline.runtime.lineage import LineageFacts
from rankline.runtime.run_context import RunContext
from rankline.runtime.step_cache import UNKNOWN


def lineage(config: ValidateConfig, facts: LineageFacts) -> dict[str, Any]:
    """The digest of the earlier profile, which depends on the data itself, and the day."""
    decided_by = {"previous profile": UNKNOWN}
    if facts.data is not UNKNOWN:
        previous = profile.previous_profile_for(facts.run.workspace, config.profile_name, facts.data)
        decided_by["previous profile"] = digest.file_digest(previous) if previous else ""
    if config.max_age_days is not None and config.now is None:
        decided_by["day"] = datetime.now(UTC).date().isoformat()
    return decided_by


class ValidateLineage:
    """The lineage within a run: the profiles of earlier runs, and that of this one for later runs."""

    def __init__(self, config: ValidateConfig, run: RunContext, *, raw: Path) -> None:
        self._config, self._run, self._raw = config, run, raw

    @functools.cached_property
    def _data(self) -> str | None:
        """The digest of the data; None where its summary cannot be read."""
        self._run.download("profiles")
        try:
            return profile.data_digest(references.read_file(self._raw, "summary.json", self._run))
        except FileNotFoundError:
            return None

    def digests(self) -> dict[str, Any]:
        """What decides the outcome besides settings, inputs and code."""
        return lineage(self._config, LineageFacts(run=self._run, data=self._data))

    def load(self) -> dict[str, Path | None]:
        """The argument ``previous`` of the step."""
        return {"previous": profile.previous_profile_for(self._run.workspace, self._config.profile_name, self._data)}

    def save(self, clean: Path, *, flow: str) -> None:
        """Save the profile of the run for later ones."""
        content = references.read_file(clean, "profile.json", self._run)
        with self._run.writing("profiles", owner={"who": "validate", "run": self._run.run_id}):
            profile.save(self._run.workspace, self._config.profile_name, content, flow=flow)
