"""The schedules of a cluster, as `rankline schedule` sees them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from pipelines.kubeflow import recurring_runs
from pipelines.kubeflow.backfill import ClusterBackfill
from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.cluster_schedule import (
    TRIGGERS_ELSEWHERE,
    UNSUPPORTED_REASONS,
    ClusterSchedule,
    firing_record,
    from_recurring_run,
    load_recipe,
    recurring_run_spec,
    refuse_unsupported,
    revision_of,
)
from pipelines.kubeflow.orphans import Orphan, unlisted
from pipelines.kubeflow.packages import parse_pipeline_name
from pipelines.kubeflow.recurring_runs import RecurringRun
from pipelines.kubeflow.run_report import summarize_listed_runs
from pipelines.kubeflow.runs import DEFAULT_EXPERIMENT
from pipelines.kubeflow.waiting import WaitingRun, find_waiting
from pipelines.schedules import cron as crons
from pipelines.schedules.backfill import BackfillOptions, BackfillStatus
from pipelines.schedules.model import Schedule, validate_schedule
from pipelines.schedules.protocol import (
    BackfillInterrupted,
    FiringRecord,
    ScheduleChanges,
    ScheduleInfo,
    UnreadableSchedule,
)
from pipelines.schedules.triggers.held import Held
from pipelines.schedules.triggers.observation import Check
from rankline.errors import AccessError, UsageError


class ClusterSchedules:
    """The schedules of a cluster, see `Schedules`.

    Args:
        connect: opens the connection, once the settings of a command have been checked.
        zone: the time zone of the cluster's controller.
    """

    unsupported: Sequence[str] = tuple(UNSUPPORTED_REASONS)

    def __init__(self, connect: Callable[[], Cluster], *, zone: str, poll_s: float = 5.0) -> None:
        self._connect, self.zone, self.poll_s = connect, zone, poll_s
        self.zone_note = (
            f"the cluster fires in the time zone of its controller, assumed to be {zone}; the API does not report it. "
            "If CRON_SCHEDULE_TIMEZONE is set there, set RANKLINE_KFP_ZONE to its value"
        )

    @functools.cached_property
    def cluster(self) -> Cluster:
        """The cluster."""
        return self._connect()

    def list(self) -> list[ScheduleInfo | UnreadableSchedule]:
        """Every active recurring run of ours; one that stores no schedule, or that the API hides, is unreadable."""
        entries: list[ScheduleInfo | UnreadableSchedule] = []
        waiting = find_waiting(self.cluster)
        for recurring_run in recurring_runs.list_active(self.cluster):
            target = from_recurring_run(recurring_run)
            notes = [_waiting_note(each) for each in waiting if each.recurring_run == recurring_run.id]
            entries.append(_info(target, notes) if target else _unreadable(recurring_run))
        with contextlib.suppress(AccessError):  # `rankline doctor` says that Kubernetes cannot be asked
            entries += map(_unlisted, unlisted(self.cluster))
        return entries

    def get(self, name: str) -> ScheduleInfo:
        """One schedule."""
        return _info(self._find(name))

    def create(self, name: str, changes: ScheduleChanges, *, now: datetime) -> ScheduleInfo:
        """Create a schedule as a recurring run."""
        values, notes = self._checked(changes)
        created_at = now.astimezone(UTC).isoformat()
        schedule = validate_schedule({**values, "name": name, "created_at": created_at, "updated_at": created_at})
        spec = recurring_run_spec(
            schedule, experiment=changes.experiment or DEFAULT_EXPERIMENT, account=changes.account or ""
        )
        recurring_runs.create(self.cluster, spec, load_recipe(schedule))
        return _info(self._find(name), notes)

    def update(self, name: str, changes: ScheduleChanges, *, now: datetime) -> ScheduleInfo:
        """Change a schedule: no active run ends, and no fire time is missed or runs twice."""
        values, notes = self._checked(changes)
        before = self._find(name)
        revision = {"revision": before.schedule.revision + 1, "updated_at": now.astimezone(UTC).isoformat()}
        schedule = validate_schedule(before.schedule.model_dump() | values | revision)
        spec = recurring_run_spec(
            schedule,
            experiment=before.experiment if changes.experiment is None else changes.experiment,
            account=before.account if changes.account is None else changes.account,
        )
        recurring_runs.update(self.cluster, spec, load_recipe(schedule))
        return _info(self._find(name), notes)

    def set_paused(self, name: str, paused: bool, *, now: datetime) -> ScheduleInfo:
        """Disable or enable the recurring run."""
        before = self._find(name).schedule
        (recurring_runs.pause if paused else recurring_runs.resume)(self.cluster, name)
        catches_up = not paused and before.paused and before.catch_up == "all"
        notes = ["with --catch-up all a cluster also runs the fire times of the pause"] if catches_up else []
        return _info(self._find(name), notes)

    def delete(self, name: str, *, now: datetime, end_runs: bool = False) -> ScheduleInfo:
        """Delete a schedule with all that changes have left of it."""
        target = self._find(name)
        recurring_runs.delete(self.cluster, name, with_runs=end_runs)
        return ScheduleInfo(
            target.schedule.model_copy(update={"deleted": True}),
            revisions=target.schedule.revision,
            remaining=(f"its runs stay on the cluster, in experiment {target.experiment}",),
        )

    def earliest_start(self, schedule: Schedule, scheduled_at: datetime) -> datetime:
        """The fire time itself."""
        return scheduled_at

    def firings(self, name: str, *, limit: int = 10) -> Sequence[FiringRecord]:
        """The latest runs of a schedule, oldest first."""
        target = self._find(name)
        runs = recurring_runs.list_runs(self.cluster, name)[:limit]
        firings = [
            firing_record(target, summary, revision=revision_of(self.cluster, run))
            for run, summary in zip(runs, summarize_listed_runs(self.cluster, runs))
        ]
        return firings[::-1]

    def skipped(self, name: str, *, limit: int = 10) -> None:
        """Not known: a cluster does not record skipped fire times."""

    def check(self, name: str, *, now: datetime) -> Check:
        """A recurring run evaluates no triggers."""
        self._find(name)
        raise UsageError(
            "a schedule of a cluster has no triggers",
            expected="a schedule of a workspace",
            found=f"schedule {name!r} of a cluster",
            hint=TRIGGERS_ELSEWHERE,
        )

    def last_check(self, name: str) -> None:
        """Nothing is checked."""

    def held_back(self, name: str, *, limit: int = 10) -> Sequence[Held]:
        """Nothing is held back."""
        return []

    def backfill(
        self, name: str, options: BackfillOptions, *, now: datetime, say: Callable[[str], None]
    ) -> Sequence[tuple[FiringRecord, BackfillStatus]]:
        """Run past fire times on the cluster; interrupted, their runs go on."""
        backfill = ClusterBackfill(self.cluster, self._find(name), options, say=say, poll_s=self.poll_s)
        try:
            return backfill.run(now=now)
        except KeyboardInterrupt:
            runs = ", ".join(backfill.active_runs) or "none"
            raise BackfillInterrupted(
                f"interrupted; active runs go on ({runs}); repeat the command to join them"
            ) from None

    def _find(self, name: str) -> ClusterSchedule:
        newest, *older = recurring_runs.find_all(self.cluster, name)
        target = from_recurring_run(newest, tuple(older))
        if target is None:
            raise UsageError(
                f"recurring run {name!r} was not created by `rankline schedule`, or its package has been deleted",
                expected="a package whose description ends with the schedule",
                found=newest.description or "none",
                where=newest.url,
                hint="delete it on its page, and create it again",
            )
        return target

    def _checked(self, changes: ScheduleChanges) -> tuple[dict[str, Any], Sequence[str]]:
        """The values to store, after checking what a cluster supports; and notes for people."""
        values = dict(changes.values)
        notes = [self.zone_note]
        refuse_unsupported(values)
        zone = values.pop("zone", None)
        if zone and zone != self.zone:
            raise UsageError(
                "a cluster has one time zone for all its schedules",
                expected=f"{self.zone}, or the cron expression in it",
                found=f"--zone {zone}",
                hint=f"if that is the zone of the cluster's controller (CRON_SCHEDULE_TIMEZONE): --cluster-zone {zone}",
            )
        if "cron" in values:
            cron, cron_notes = crons.parse(values["cron"], self.zone, seconds_first=changes.seconds_first)
            notes = [*cron_notes, *notes]
            values["cron"] = cron.text
        if values.get("map"):
            notes.append("the map is read now; after you change it, run `rankline schedule update`")
        return values | {"zone": self.zone}, notes


def _info(target: ClusterSchedule, notes: Sequence[str] = ()) -> ScheduleInfo:
    recurring_run = target.recurring_run
    return ScheduleInfo(
        target.schedule,
        revisions=target.schedule.revision,
        details={
            "experiment": target.experiment,
            "account": target.account,
            "recurring_run": recurring_run.id,
            "url": recurring_run.url,
        },
        notes=tuple(notes),
        started_by=f"the cluster starts its runs: {recurring_run.url}",
        remaining=tuple(
            f"{each.id} stays, disabled, until its runs have ended; the next change or `delete` removes it"
            for each in target.superseded
        ),
    )


def _waiting_note(waiting: WaitingRun) -> str:
    what = f"{waiting.step} of run {waiting.run}" if waiting.step else f"run {waiting.run}"
    hours = f"{waiting.seconds / 3600:.1f} hours"
    return f"{what} has been pending for {hours}: {waiting.reason}; {waiting.remedy}"


def _unreadable(recurring_run: RecurringRun) -> UnreadableSchedule:
    return UnreadableSchedule(
        recurring_run.name,
        "not created by `rankline schedule`",
        {
            "flow": recurring_run.flow,
            "cron": recurring_run.cron,
            "recipe": recurring_run.recipe,
            "paused": not recurring_run.enabled,
            "max_runs": recurring_run.max_concurrency,
            "recurring_run": recurring_run.id,
            "url": recurring_run.url,
        },
    )


def _unlisted(orphan: Orphan) -> UnreadableSchedule:
    recipe, flow = parse_pipeline_name(orphan.pipeline)
    return UnreadableSchedule(
        orphan.name,
        "unknown to the API" if orphan.fires else "unknown to the API, disabled",
        {"flow": flow, "recipe": recipe, "paused": not orphan.fires, "remedy": orphan.remedy},
        error=f"{orphan.reason}; `{orphan.remedy}` ends it",
    )
