"""Backfill on a cluster: run past fire times of a schedule, oldest first, a few at once.

The runs are the cluster's and go on if this process ends. Repeat the command to continue: a run that reached a verdict
is left alone, an active run of an earlier backfill is joined, a failed or cancelled one runs again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from components.ingest.window import BACKFILL
from pipelines.kubeflow.client import Cluster, quiet_stdout
from pipelines.kubeflow.cluster_schedule import ClusterSchedule, firing_record, load_recipe, revision_of
from pipelines.kubeflow.limits import check_limits
from pipelines.kubeflow.packages import upload
from pipelines.kubeflow.recurring_runs import list_runs
from pipelines.kubeflow.run_report import summarize_listed_runs
from pipelines.kubeflow.runs import RunWatch
from pipelines.kubeflow.scheduled_workflows import unstored_run
from pipelines.kubeflow.triggers import backfill_scheduled_at, trigger_of
from pipelines.schedules.backfill import BackfillOptions, BackfillStatus, firing_times
from pipelines.schedules.protocol import FiringRecord
from rankline.errors import EXIT_REFUSED
from rankline.runtime import outcomes
from rankline.runtime.outcomes import Outcome

OLDER_WINDOWS_SUFFIX = ", older windows allowed"  # of the name of such a run
Result = tuple[FiringRecord, BackfillStatus]


@dataclass
class ClusterBackfill:
    """The backfill of one schedule of a cluster."""

    cluster: Cluster
    target: ClusterSchedule
    options: BackfillOptions
    say: Callable[[str], None] = print
    poll_s: float = 5.0

    def __post_init__(self) -> None:
        self._watches: dict[datetime, RunWatch] = {}  # of the active runs
        self._results: dict[datetime, Result] = {}
        self._version_ids: tuple[str, str] | None = None

    @property
    def active_runs(self) -> list[str]:
        """The ids of the runs that have not ended."""
        return [watch.run for watch in self._watches.values()]

    def run(self, *, now: datetime) -> list[Result]:
        """Run the fire times to their end.

        Raises:
            UsageError: the period has no fire times.
            AccessError: the cluster does not answer any more; active runs go on.
        """
        waiting = firing_times(self.target.schedule, self.options, now=now)
        previous = self._previous_runs()
        while waiting or self._watches:
            while waiting and len(self._watches) < self.options.concurrency:
                scheduled_at = waiting.pop(0)
                self._begin(scheduled_at, previous.get(scheduled_at))
            self._poll()
            time.sleep(self.poll_s if self._watches else 0)
        return [self._results[scheduled_at] for scheduled_at in sorted(self._results)]

    def _previous_runs(self) -> dict[datetime, Any]:
        """Fire time -> its latest run."""
        latest_runs: dict[datetime, Any] = {}
        for run in list_runs(self.cluster, self.target.schedule.name):
            scheduled_at = (trigger_of(self.cluster, run) or {}).get("scheduled_at")
            if scheduled_at:
                latest_runs.setdefault(datetime.fromisoformat(scheduled_at).astimezone(UTC), run)
        return latest_runs

    def _begin(self, scheduled_at: datetime, previous: Any) -> None:
        """Start or join the run of a fire time, or record why it does not run."""
        run = previous and self.cluster.run(previous.run_id)
        summary = summarize_listed_runs(self.cluster, [run])[0] if run else None
        active = summary is not None and summary["outcome"] == Outcome.RUNNING
        when = scheduled_at.isoformat()
        if summary and active and backfill_scheduled_at(run):
            self._watches[scheduled_at] = RunWatch(self.cluster, run.run_id)
            self.say(f"{when}: joined, run {run.run_id}")
        elif summary and (active or not self._runs_again(run, summary["outcome"])):
            status: BackfillStatus = "under way elsewhere" if active else "done before"
            record = firing_record(self.target, summary, revision=revision_of(self.cluster, run))
            self._results[scheduled_at] = record, status
            self.say(f"{when}: {status}, {record.outcome or record.status}")
        else:
            self._watches[scheduled_at] = RunWatch(self.cluster, self._start_run(scheduled_at))
            self.say(f"{when}: started, data to {self.target.schedule.window_of(scheduled_at).end.isoformat()}")

    def _runs_again(self, run: Any, outcome: str) -> bool:
        refused = outcomes.exit_code(outcome) == EXIT_REFUSED
        older_allowed = self.options.allow_older_window and not str(run.display_name).endswith(OLDER_WINDOWS_SUFFIX)
        return outcome in (Outcome.FAILED, Outcome.CANCELLED, Outcome.INCOMPLETE) or (refused and older_allowed)

    def _poll(self) -> None:
        for scheduled_at, watch in list(self._watches.items()):
            summary = watch.poll()
            if summary is None or not watch.ended:
                continue
            del self._watches[scheduled_at]
            self._results[scheduled_at] = firing_record(self.target, summary, revision=None), "ran"
            error = f"\n  {summary['error']}" if summary["error"] else ""
            self.say(f"{scheduled_at.isoformat()}: {summary['outcome']}{error}")

    def _start_run(self, scheduled_at: datetime) -> str:
        pipeline_id, version_id = self._version()
        suffix = OLDER_WINDOWS_SUFFIX if self.options.allow_older_window else ""
        name = f"{self.target.schedule.name} {scheduled_at.strftime('%Y-%m-%dT%H:%M:%SZ')} backfill{suffix}"
        check_limits({"run name": name})
        with quiet_stdout(), unstored_run(self.cluster, name, self.target.recurring_run.pipeline):
            run = self.cluster.client.run_pipeline(
                self.target.recurring_run.experiment_id,
                name,
                params={"scheduled_at": f"{BACKFILL}{scheduled_at.isoformat()}"},
                pipeline_id=pipeline_id,
                version_id=version_id,
                service_account=self.target.account or None,
            )
        return str(run.run_id)

    def _version(self) -> tuple[str, str]:
        """The ids of the package to run: the schedule's own, or one of its current recipe that allows older windows."""
        if not self.options.allow_older_window:
            recurring_run = self.target.recurring_run
            return recurring_run.pipeline_id, recurring_run.pipeline_version
        if self._version_ids is None:
            recipe, spec = load_recipe(self.target.schedule, "decide.allow_older_window=true"), self.target.spec()
            version = upload(self.cluster, recipe, schedule=spec.scheduled_window(), flow=spec.flow)
            self._version_ids = version.pipeline_id, version.version_id
        return self._version_ids
