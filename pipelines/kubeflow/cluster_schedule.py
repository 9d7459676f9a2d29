"""A schedule of a cluster: a `Schedule` that is stored with the package of a recurring run.

A setting that a cluster cannot honour is refused, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.recurring_runs import RecurringRun, RecurringRunSpec
from pipelines.kubeflow.triggers import schedule_metadata
from pipelines.recipes import Recipe, named
from pipelines.schedules.model import Schedule, validate_schedule
from pipelines.schedules.protocol import FiringRecord
from rankline.errors import UsageError
from rankline.runtime import outcomes
from rankline.runtime.outcomes import Outcome

SUPPORTED_FIELDS = {
    "name", "recipe", "flow", "source", "map", "settings", "cron", "zone", "window", "lag", "catch_up", "max_runs",
    "paused", "revision", "created_at", "updated_at", "deleted", "directory",
}  # fmt: skip
TRIGGERS_ELSEWHERE = (
    "a recurring run evaluates no triggers: create the schedule in a workspace (without --host), whose `rankline "
    "scheduler` checks them and runs the steps there; or give the cluster a --cron"
)
UNSUPPORTED_REASONS = {
    "when": TRIGGERS_ELSEWHERE,
    "check_every": TRIGGERS_ELSEWHERE,
    "cooldown": TRIGGERS_ELSEWHERE,
    "budget": TRIGGERS_ELSEWHERE,
    "false_alarms": TRIGGERS_ELSEWHERE,
    "runner": "on a cluster each step is a pod",
    "jitter_s": "the cluster starts a run when its controller sees that it is due",
    "webhook": "a cluster calls no webhooks; `rankline runs list --host … --json` tells a monitor what failed",
    "catch_up_limit": "a cluster runs all missed fire times, or the latest only",
}
MAX_CONCURRENCY = 10


@dataclass(frozen=True)
class ClusterSchedule:
    """A schedule, and the recurring run that stores it."""

    schedule: Schedule
    recurring_run: RecurringRun
    experiment: str
    account: str
    superseded: tuple[RecurringRun, ...] = ()  # left by changes: disabled, and deleted once their runs have ended

    def spec(self) -> RecurringRunSpec:
        """What the recurring run was created from."""
        return recurring_run_spec(self.schedule, experiment=self.experiment, account=self.account)


def load_recipe(schedule: Schedule, *more_settings: str) -> Recipe:
    """The recipe of a schedule as it is on this machine."""
    return named(schedule.recipe, [*schedule.settings, *more_settings], source=schedule.source, map=schedule.map)


def refuse_unsupported(values: Mapping[str, Any]) -> None:
    """Refuse settings that a cluster cannot honour.

    Raises:
        UsageError: naming the first of them.
    """
    for name, value in values.items():
        info = Schedule.model_fields.get(name)
        is_default = info is not None and name not in ("runner", "catch_up_limit") and value in (info.default, "")
        if name in SUPPORTED_FIELDS or value is None or is_default:
            continue
        option = "--" + name.removesuffix("_s").replace("_", "-")
        raise UsageError(
            f"a cluster does not support {option}",
            expected="the settings of a cluster's schedule",
            found=option if isinstance(value, dict | tuple) else f"{option} {value}",
            hint=UNSUPPORTED_REASONS.get(name.removesuffix("_headers").removesuffix("_on_refusal"), "leave it out"),
        )


def recurring_run_spec(schedule: Schedule, *, experiment: str, account: str) -> RecurringRunSpec:
    """What a schedule's recurring run is created from.

    Raises:
        UsageError: a cluster does not support the schedule.
    """
    refuse_unsupported(
        {
            name: getattr(schedule, name)
            for name, info in Schedule.model_fields.items()
            if getattr(schedule, name) != info.default
        }
    )
    if schedule.max_runs > MAX_CONCURRENCY:
        raise UsageError(
            "a cluster allows a schedule ten runs at once",
            expected=f"--max-runs of 1 to {MAX_CONCURRENCY}",
            found=str(schedule.max_runs),
        )
    if schedule.name.endswith("-"):
        raise UsageError(
            "this is not a valid Kubernetes name",
            expected="a letter or a digit at its end",
            found=schedule.name,
        )
    return RecurringRunSpec(
        name=schedule.name,
        flow=schedule.flow,
        cron=schedule.cron,
        zone=schedule.zone,
        window=schedule.window,
        lag=schedule.lag,
        max_concurrency=schedule.max_runs,
        catch_up=schedule.catch_up == "all",
        experiment=experiment,
        account=account,
        paused=schedule.paused,
        metadata={
            "schedule": schedule.model_dump(mode="json", exclude_defaults=True, exclude={"paused", "directory"}),
            "experiment": experiment,
            "account": account,
        },
    )


def from_recurring_run(
    recurring_run: RecurringRun, superseded: tuple[RecurringRun, ...] = ()
) -> ClusterSchedule | None:
    """The schedule that a recurring run stores; None where it stores none that this version can read."""
    metadata = recurring_run.metadata
    if not isinstance(metadata.get("schedule"), dict):
        return None
    try:
        schedule = validate_schedule({**metadata["schedule"], "paused": not recurring_run.enabled})
    except UsageError:
        return None
    return ClusterSchedule(
        schedule, recurring_run, str(metadata.get("experiment", "")), str(metadata.get("account", "")), superseded
    )


def revision_of(cluster: Cluster, run: Any) -> int | None:
    """The revision of the schedule that started a run; None where it is not known."""
    recurring_run = cluster.recurring_run(run.recurring_run_id) if run.recurring_run_id else None
    if recurring_run is None:
        return None
    stored = schedule_metadata(cluster, recurring_run, run.pipeline_version_reference).get("schedule", {})
    return int(stored.get("revision", 1)) if stored else None


def firing_record(target: ClusterSchedule, summary: dict[str, Any], *, revision: int | None) -> FiringRecord:
    """A run of a schedule by its summary, as a firing."""
    trigger, ended = dict(summary["trigger"]), summary["outcome"] != Outcome.RUNNING
    if trigger["scheduled_at"] and not trigger["window_end"]:
        window = target.schedule.window_of(datetime.fromisoformat(trigger["scheduled_at"]))
        trigger["window_start"] = window.start.isoformat() if window.start else None
        trigger["window_end"] = window.end.isoformat()
    return FiringRecord(
        **trigger,
        status="ended" if ended else "running",
        outcome=summary["outcome"] if ended else "",
        exit_code=outcomes.exit_code(summary["outcome"]) if ended else None,
        run=summary["run"],
        attempts=1,
        revision=revision,
        error=summary["error"],
        notified="",
    )
