"""The data window of a scheduled run: it ends at the time the run was scheduled for, however late it began."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import Field

from components.ingest.config import IngestConfig
from rankline.contracts import Frozen
from rankline.errors import UsageError
from rankline.runtime import ledger

TRIGGER = "trigger.json"
BACKFILL = "backfill "  # goes before the scheduled time of a run that makes up for a past one
_COMPACT = re.compile(r"^[0-9]{14}$")  # how Kubeflow writes [[ScheduledTime]]


class ScheduledWindow(Frozen):
    """What a schedule says of the data window of its runs."""

    name: str = Field(description="The schedule's name.")
    lag_s: float = Field(0, ge=0, description="The window ends that many seconds before the scheduled time.")
    window_s: float | None = Field(None, gt=0, description="Length of the window in seconds; none for all there is.")
    second: str = Field(
        "", pattern=r"^[0-9]*$", description="Second of the minute at which the schedule fires, if one."
    )


def scheduled(
    config: IngestConfig, schedule: dict[str, Any] | None, told: tuple[str, ...], folder: Path
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
    wanted = ScheduledWindow(**schedule)
    if told[0].startswith(BACKFILL):
        told = told[:1]  # what a cluster says beside is when it began
    moments = [moment for moment in map(_moment, told) if moment is not None]
    fitting = [moment for moment in moments if not wanted.second or moment.second == int(wanted.second)]
    if not fitting:
        raise UsageError(
            "this cluster does not say for which time the run was scheduled",
            expected="the scheduled time" + (f", at second {wanted.second} of a minute" if moments else ""),
            found=" and ".join(each or "nothing" for each in told),
            hint="a newer Kubeflow Pipelines fills it in; until then `rankline submit` with --set ingest.window_end=…",
        )
    end = fitting[0] - timedelta(seconds=wanted.lag_s)
    start = end - timedelta(seconds=wanted.window_s) if wanted.window_s else None
    window = {"window_start": start and start.isoformat(), "window_end": end.isoformat()}
    kind = "backfill" if told[0].startswith(BACKFILL) else "scheduled"
    trigger = {"schedule": wanted.name, "scheduled_at": fitting[0].isoformat(), **window, "kind": kind}
    ledger.write_json(folder / TRIGGER, trigger)
    return IngestConfig(**{**config.model_dump(), **window})


def _moment(told: str) -> datetime | None:
    """The moment (UTC) in what a cluster says; none where it left the placeholder as it was."""
    if _COMPACT.match(told):
        return datetime.strptime(told, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    try:
        moment = datetime.fromisoformat(told.removeprefix(BACKFILL))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
