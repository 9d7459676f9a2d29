"""The data window of a scheduled run: it ends at the time the run was scheduled for, however late it began."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import Field

from components.ingest.config import IngestConfig
from rankline.contracts import FrozenModel
from rankline.errors import UsageError
from rankline.runtime import ledger

TRIGGER_FILE = "trigger.json"
BACKFILL = "backfill "  # goes before the scheduled time of a run that makes up for a past one
_COMPACT = re.compile(r"^[0-9]{14}$")  # how Kubeflow writes [[ScheduledTime]]


class ScheduledWindow(FrozenModel):
    """What a schedule says of the data window of its runs."""

    name: str = Field(description="The schedule's name.")
    lag_s: float = Field(0, ge=0, description="The window ends that many seconds before the scheduled time.")
    window_s: float | None = Field(None, gt=0, description="Length of the window in seconds; none for all there is.")
    second: str = Field(
        "", pattern=r"^[0-9]*$", description="Second of the minute at which the schedule fires, if one."
    )


def with_scheduled_window(
    config: IngestConfig, schedule: dict[str, Any] | None, scheduled_times: tuple[str, ...], folder: Path
) -> IngestConfig:
    """The settings with the window of the scheduled time; as they are for a run that no schedule started.

    ``told`` is the scheduled time as a cluster says it, in several ways since none of them is filled in by every
    version: the run's parameter first, then the placeholder, which some versions fill with the time the run began.
    A backfill says the time itself, with its word before it.
    Leaves ``trigger.json`` in the run's folder.

    Raises:
        UsageError: nobody filled in the time, or what was filled in is not the schedule's.
    """
    if schedule is None:
        return config
    window_settings = ScheduledWindow(**schedule)
    if scheduled_times[0].startswith(BACKFILL):
        scheduled_times = scheduled_times[:1]  # what a cluster says beside is when it began
    instants = [instant for instant in map(_parse_time, scheduled_times) if instant is not None]
    matching = [
        instant for instant in instants if not window_settings.second or instant.second == int(window_settings.second)
    ]
    if not matching:
        raise UsageError(
            "this cluster does not say for which time the run was scheduled",
            expected="the scheduled time" + (f", at second {window_settings.second} of a minute" if instants else ""),
            found=" and ".join(each or "nothing" for each in scheduled_times),
            hint="a newer Kubeflow Pipelines fills it in; until then `rankline submit` with --set ingest.window_end=…",
        )
    end = matching[0] - timedelta(seconds=window_settings.lag_s)
    start = end - timedelta(seconds=window_settings.window_s) if window_settings.window_s else None
    window = {"window_start": start and start.isoformat(), "window_end": end.isoformat()}
    kind = "backfill" if scheduled_times[0].startswith(BACKFILL) else "scheduled"
    trigger = {"schedule": window_settings.name, "scheduled_at": matching[0].isoformat(), **window, "kind": kind}
    ledger.write_json(folder / TRIGGER_FILE, trigger)
    return IngestConfig(**{**config.model_dump(), **window})


def _parse_time(text: str) -> datetime | None:
    """The moment (UTC) in what a cluster says; none where it left the placeholder as it was."""
    if _COMPACT.match(text):
        return datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    try:
        instant = datetime.fromisoformat(text.removeprefix(BACKFILL))
    except ValueError:
        return None
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).astimezone(UTC)
