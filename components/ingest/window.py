"""The data window of a scheduled run, which ends at the scheduled time, however late the run starts."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from components.ingest.config import IngestConfig
from rankline.contracts import FrozenModel
from rankline.errors import UsageError
from rankline.io.files import write_json
from rankline.schedules.data_window import SPAN, data_window
from rankline.schedules.fire_times import Cron

TRIGGER_FILE = "trigger.json"
BACKFILL = "backfill "  # precedes the scheduled time of a backfill's run
_COMPACT = re.compile(r"^[0-9]{14}$")  # the format of Kubeflow's [[ScheduledTime]]


class ScheduledWindow(FrozenModel):
    """The data window of a schedule's runs."""

    name: str = Field(description="The schedule's name.")
    cron: str = Field(description="Six fields: second, minute, hour, day of the month, month, day of the week.")
    zone: str = Field("UTC", description="IANA time zone of the cron expression and of the window's days.")
    window: str = Field("", pattern=f"^({SPAN.pattern})?$", description="Length, such as 30d; empty for no start.")
    lag: str = Field("0s", pattern=f"^{SPAN.pattern}$", description="How long before the scheduled time it ends.")


def with_scheduled_window(
    config: IngestConfig, schedule: dict[str, Any] | None, scheduled_times: tuple[str, ...], folder: Path
) -> IngestConfig:
    """The settings with the window of the scheduled time; unchanged without a schedule.

    ``scheduled_times`` are the scheduled time as the cluster passes it: the run's parameter, then the placeholder. No
    version of Kubeflow fills in both, and some fill the placeholder with the time at which the run started. A backfill
    passes its time after BACKFILL. Writes ``trigger.json`` to the run's folder.

    Raises:
        UsageError: no time was filled in, or none that the schedule fires at.
    """
    if schedule is None:
        return config
    rule = ScheduledWindow(**schedule)
    second = rule.cron.split()[0]
    if scheduled_times[0].startswith(BACKFILL):
        scheduled_times = scheduled_times[:1]  # the placeholder has the time at which the run started
    instants = [instant for instant in map(_parse_time, scheduled_times) if instant is not None]
    matching = [instant for instant in instants if not second.isdigit() or instant.second == int(second)]
    if not matching:
        raise UsageError(
            "this cluster does not pass the scheduled time of the run",
            expected="the scheduled time" + (f", at second {second} of a minute" if instants else ""),
            found=" and ".join(each or "nothing" for each in scheduled_times),
            hint="upgrade Kubeflow Pipelines, or use `rankline submit` with --set ingest.window_end=…",
        )
    start, end = data_window(Cron(rule.cron, rule.zone), matching[0], window=rule.window, lag=rule.lag)
    window = {"window_start": start and start.isoformat(), "window_end": end.isoformat()}
    kind = "backfill" if scheduled_times[0].startswith(BACKFILL) else "scheduled"
    trigger = {"schedule": rule.name, "scheduled_at": matching[0].isoformat(), **window, "kind": kind}
    write_json(folder / TRIGGER_FILE, trigger)
    return IngestConfig(**{**config.model_dump(), **window})


def _parse_time(text: str) -> datetime | None:
    """The time (UTC) that a cluster passed; None if it left the placeholder unfilled."""
    if _COMPACT.match(text):
        return datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    try:
        instant = datetime.fromisoformat(text.removeprefix(BACKFILL))
    except ValueError:
        return None
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).astimezone(UTC)
