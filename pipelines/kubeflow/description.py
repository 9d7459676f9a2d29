"""The description of a recurring run: a sentence for people, and below it the schedule that it was made of, as JSON.

The API keeps no settings of a schedule but the cron and two numbers; what else was asked for (recipe, settings, the
data window) would be lost, and with it what a change has to leave as it is.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

MARK = "\n\nrankline schedule: "


def write(sentence: str, told: dict[str, Any]) -> str:
    """The description that says both."""
    return sentence + MARK + json.dumps(told, sort_keys=True)


def sentence(description: str) -> str:
    """What is meant for people."""
    return description.partition(MARK)[0]


def read(description: str) -> dict[str, Any]:
    """What was told of the schedule; empty where it was not made by `rankline schedule`, or somebody edited it."""
    try:
        told = json.loads(description.partition(MARK)[2] or "{}")
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def window(told: dict[str, Any], scheduled_at: datetime) -> dict[str, str | None]:
    """The data window of a scheduled time, as the flow computes it; unknown where the schedule is."""
    if "lag_s" not in told:
        return {"window_start": None, "window_end": None}
    end = scheduled_at - timedelta(seconds=told["lag_s"])
    start = end - timedelta(seconds=told["window_s"]) if told["window_s"] else None
    return {"window_start": start.isoformat() if start else None, "window_end": end.isoformat()}
