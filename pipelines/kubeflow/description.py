"""The description of a recurring run: a sentence for people, and below it the schedule that it was made of, as JSON.

The API keeps no settings of a schedule but the cron and two numbers; what else was asked for (recipe, settings, the
data window) would be lost, and with it what a change has to leave as it is.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

METADATA_MARK = "\n\nrankline schedule: "


def format_description(sentence: str, metadata: dict[str, Any]) -> str:
    """The description that says both."""
    return sentence + METADATA_MARK + json.dumps(metadata, sort_keys=True)


def sentence(description: str) -> str:
    """What is meant for people."""
    return description.partition(METADATA_MARK)[0]


def read_metadata(description: str) -> dict[str, Any]:
    """What was told of the schedule; empty where it was not made by `rankline schedule`, or somebody edited it."""
    try:
        metadata = json.loads(description.partition(METADATA_MARK)[2] or "{}")
    except ValueError:
        return {}
    return metadata if isinstance(metadata, dict) else {}


def data_window(metadata: dict[str, Any], scheduled_at: datetime) -> dict[str, str | None]:
    """The data window of a scheduled time, as the flow computes it; unknown where the schedule is."""
    if "lag_s" not in metadata:
        return {"window_start": None, "window_end": None}
    end = scheduled_at - timedelta(seconds=metadata["lag_s"])
    start = end - timedelta(seconds=metadata["window_s"]) if metadata["window_s"] else None
    return {"window_start": start.isoformat() if start else None, "window_end": end.isoformat()}
