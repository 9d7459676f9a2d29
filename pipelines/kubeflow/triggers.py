"""What started a run of a cluster: a schedule, a backfill of one, or a person.

The API stores of a schedule no more than its cron expression and two numbers, and a description of 255 characters. So
the rest is in the package of its version, whose description ends with JSON: the recipe, the settings and the data
window. Earlier versions wrote it into the description of the recurring run.
"""

from __future__ import annotations

import contextlib
import json
from datetime import datetime
from typing import Any

from components.ingest.window import BACKFILL
from pipelines.kubeflow.client import Cluster
from pipelines.schedules.model import Schedule
from rankline.io.files import json_object

METADATA_MARK = "\n\nrankline schedule: "
_UNSET_BEFORE_S = 86_400.0  # the API gives a time that is not set as 1970


def format_metadata(metadata: dict[str, Any]) -> str:
    """What is added to the description of a package."""
    return METADATA_MARK + json.dumps(metadata, sort_keys=True) if metadata else ""


def read_summary(description: str) -> str:
    """The sentence for people."""
    return description.partition(METADATA_MARK)[0]


def schedule_metadata(cluster: Cluster, recurring_run: Any, version: Any) -> dict[str, Any]:
    """What is stored of a schedule with a recurring run (None where it is gone) or the version of its package.

    Empty where `rankline schedule` did not create it, or somebody edited it.
    """
    metadata = _read_metadata((recurring_run and recurring_run.description) or "")
    if metadata or not (version and version.pipeline_id and version.pipeline_version_id):
        return metadata
    package = cluster.package(version.pipeline_id, version.pipeline_version_id)
    info = package.get("pipeline_spec", package).get("pipelineInfo", {})
    return _read_metadata(info.get("description", ""))


def _read_metadata(description: str) -> dict[str, Any]:
    return json_object(description.partition(METADATA_MARK)[2])


def trigger_of(cluster: Cluster, run: Any) -> dict[str, Any] | None:
    """What started a run, as in trigger.json of a local run; None where a person did."""
    if run.recurring_run_id:
        recurring_run = cluster.recurring_run(run.recurring_run_id)
        scheduled_at = run.scheduled_at if unix_seconds(run.scheduled_at) else None
        metadata = schedule_metadata(cluster, recurring_run, run.pipeline_version_reference)
        stored = metadata.get("schedule")
        name = stored.get("name") if isinstance(stored, dict) else None
        schedule = recurring_run.display_name if recurring_run else name or run.recurring_run_id
        return _trigger("scheduled", schedule, scheduled_at, metadata)
    scheduled_at = backfill_scheduled_at(run)
    return _trigger("backfill", schedule_name(run), scheduled_at, {}) if scheduled_at else None


def _trigger(kind: str, schedule: str, scheduled_at: datetime | None, metadata: dict[str, Any]) -> dict[str, Any]:
    window = None
    if scheduled_at is not None:
        with contextlib.suppress(KeyError, TypeError, ValueError):  # somebody edited the description
            window = Schedule(**metadata["schedule"]).window_of(scheduled_at)
    return {
        "kind": kind,
        "schedule": schedule,
        "scheduled_at": scheduled_at.isoformat() if scheduled_at else "",
        "window_start": window.start.isoformat() if window and window.start else None,
        "window_end": window.end.isoformat() if window else None,
    }


def backfill_scheduled_at(run: Any) -> datetime | None:
    """The past fire time that `rankline schedule backfill` started a run for; None for any other run."""
    parameters = (run.runtime_config and run.runtime_config.parameters) or {}
    scheduled_at = str(parameters.get("scheduled_at", ""))
    return datetime.fromisoformat(scheduled_at.removeprefix(BACKFILL)) if scheduled_at.startswith(BACKFILL) else None


def schedule_name(run: Any) -> str:
    """The schedule of a backfill's run: the first word of the run's name."""
    return str(run.display_name).partition(" ")[0]


def unix_seconds(timestamp: datetime | None) -> float | None:
    """A time of the API; None where it is not set."""
    seconds = timestamp.timestamp() if timestamp else 0.0
    return seconds if seconds > _UNSET_BEFORE_S else None
