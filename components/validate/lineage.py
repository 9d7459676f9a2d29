"""The lineage of validate: the profile that the data is compared with, and the day where the age of the data counts."""

from __future__ import annotations

from typing import Any

from components.validate import profile
from components.validate.config import ValidateConfig
from rankline.runtime.lineage import LineageFacts
from rankline.runtime.step_cache import UNKNOWN


def lineage(config: ValidateConfig, facts: LineageFacts) -> dict[str, Any]:
    """The digest of the earlier profile, which depends on the data itself."""
    if facts.data is UNKNOWN:
        return profile.lineage(None, config) | {"previous profile": UNKNOWN}
    return dict(
        profile.lineage(profile.previous_profile_for(facts.run.workspace, config.profile_name, facts.data), config)
    )
