"""The lineage of validate: the profile that the data is compared with, and the day where the age of the data counts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from components.validate import profile
from components.validate.config import ValidateConfig
from rankline.io import digest
from rankline.runtime.lineage import LineageFacts
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
