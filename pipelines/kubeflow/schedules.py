"""Schedules on a cluster, asked for in the words of those of a workspace (pipelines/schedules/store.py).

A schedule there is a recurring run (pipelines/kubeflow/recurring_runs.py) whose description keeps what it was made of. What a cluster
cannot heed is refused: a setting that nothing heeds would be a promise that nobody keeps.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from components.ingest.window import BACKFILL
from pipelines.kubeflow import description
from pipelines.kubeflow import recurring_runs as recurring_runs
from pipelines.kubeflow.client import Cluster, Unreachable
from pipelines.kubeflow.packages import upload
from pipelines.kubeflow.recurring_runs import RecurringRun, RecurringRunSpec
from pipelines.kubeflow.runs import (
    backfill_scheduled_at,
    get_recurring_run,
    summarize_listed_run,
    summarize_run,
    trigger_of,
)
from pipelines.recipes import Recipe, named
from pipelines.schedules.backfill import BackfillStatus, firing_times_of
from pipelines.schedules.store import Schedule, Window, validate_schedule
from rankline.errors import EXIT_REFUSED, UsageError
from rankline.runtime import outcomes
from rankline.runtime.outcomes import Outcome

SUPPORTED_FIELDS = {
    "name", "recipe", "flow", "source", "map", "settings", "cron", "zone", "window", "lag", "catch_up", "max_runs",
    "paused", "revision", "created_at", "updated_at", "deleted", "directory",
}  # fmt: skip
UNSUPPORTED_REASONS = {
    "runner": "on a cluster each step is a pod of its own",
    "jitter_s": "the cluster begins a run when its controller sees that it is due",
    "webhook": "the cluster calls nobody; `rankline runs list --host … --json` tells a monitor what failed",
    "catch_up_limit": "a cluster makes up for all of them, or for the latest alone",
}
MAX_CONCURRENCY = 10
SETTLE_S = 30.0  # until a run's tasks are reported beside its state
UNREACHABLE_TIMEOUT_S = 300.0
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


@dataclass(frozen=True)
class ClusterSchedule:
    """A schedule of a cluster: what it was made of, and what the cluster keeps."""

    schedule: Schedule
    recurring_run: RecurringRun
    experiment: str
    account: str
    superseded: tuple[RecurringRun, ...] = ()  # of changes: disabled, and gone once their runs have ended

    def window_of(self, scheduled_at: datetime) -> Window:
        """The data of the run of this time; days are of 24 hours there."""
        return window_of(self.schedule, scheduled_at)

    def spec(self) -> RecurringRunSpec:
        """What the cluster was asked for."""
        return recurring_run_spec(self.schedule, experiment=self.experiment, account=self.account)


def refuse_unsupported(given: dict[str, Any]) -> None:
    """Refuse settings that a cluster cannot heed.

    Raises:
        UsageError: naming the first of them.
    """
    for name, value in given.items():
        info = Schedule.model_fields.get(name)
        asks_for_none = info is not None and name not in ("runner", "catch_up_limit") and value in (info.default, "")
        if name in SUPPORTED_FIELDS or value is None or asks_for_none:
            continue
        option = "--" + name.removesuffix("_s").replace("_", "-")
        raise UsageError(
            f"a cluster cannot heed {option}",
            expected="the settings of a schedule that a cluster keeps",
            found=f"{option} {value}",
            hint=UNSUPPORTED_REASONS.get(name.removesuffix("_headers").removesuffix("_on_refusal"), "leave it out"),
        )


def recurring_run_spec(schedule: Schedule, *, experiment: str, account: str) -> RecurringRunSpec:
    """What the cluster is asked for.

    Raises:
        UsageError: it is more than a cluster can do.
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
            "a cluster lets a schedule have ten runs at once at most",
            expected=f"--max-runs of 1 to {MAX_CONCURRENCY}",
            found=str(schedule.max_runs),
        )
    if schedule.name.endswith("-"):
        raise UsageError(
            "a cluster's schedule is a name of Kubernetes",
            expected="a letter or a digit at its end",
            found=schedule.name,
        )
    return RecurringRunSpec(
        name=schedule.name,
        flow=schedule.flow,
        cron=schedule.cron,
        zone=schedule.zone,
        lag_s=_seconds(schedule.lag),
        window_s=_seconds(schedule.window) or None,
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


def _seconds(span: str) -> float:
    return int(span[:-1]) * _UNIT_S[span[-1]] if span else 0


def window_of(schedule: Schedule, scheduled_at: datetime) -> Window:
    """The data of the run of this time, as the flow computes it on a cluster."""
    end = scheduled_at.astimezone(UTC) - timedelta(seconds=_seconds(schedule.lag))
    return Window(end - timedelta(seconds=_seconds(schedule.window)) if schedule.window else None, end)


def recipe_of(schedule: Schedule, *more: str) -> Recipe:
    """The recipe of a schedule as it is here."""
    return named(schedule.recipe, [*schedule.settings, *more], source=schedule.source, map=schedule.map)


def get(cluster: Cluster, name: str) -> ClusterSchedule:
    """The schedule of this name.

    Raises:
        UsageError: there is none, or `rankline schedule` did not make it.
    """
    newest, *older = recurring_runs.find_all(cluster, name)
    cluster_schedule = from_recurring_run(newest, tuple(older))
    if cluster_schedule is None:
        raise UsageError(
            f"recurring run {name!r} was not made by `rankline schedule`, or its description was edited",
            expected="a description that ends with the schedule it was made of",
            found=newest.description or "none",
            where=newest.url,
            hint="delete it on its page, and create it again",
        )
    return cluster_schedule


def from_recurring_run(
    recurring_run: RecurringRun, superseded: tuple[RecurringRun, ...] = ()
) -> ClusterSchedule | None:
    """What a recurring run was made of; none where that is not known."""
    metadata = recurring_run.metadata
    if not isinstance(metadata.get("schedule"), dict):
        return None
    try:
        schedule = validate_schedule({**metadata["schedule"], "paused": not recurring_run.enabled})
    except UsageError:  # of a version with other settings, or somebody wrote into it
        return None
    return ClusterSchedule(
        schedule, recurring_run, str(metadata.get("experiment", "")), str(metadata.get("account", "")), superseded
    )


def list_schedules(cluster: Cluster) -> list[tuple[RecurringRun, ClusterSchedule | None]]:
    """Every recurring run of ours that is in force, by name, with what it was made of where that is known."""
    return [(recurring_run, from_recurring_run(recurring_run)) for recurring_run in recurring_runs.list_active(cluster)]


def create(
    cluster: Cluster, values: dict[str, Any], *, experiment: str, account: str, now: datetime
) -> ClusterSchedule:
    """Have the cluster keep a new schedule.

    Raises:
        UsageError: there is one of this name, a value is none, or a cluster cannot heed it.
    """
    created_at = now.astimezone(UTC).isoformat()
    schedule = validate_schedule({**values, "created_at": created_at, "updated_at": created_at})
    recurring = recurring_run_spec(schedule, experiment=experiment, account=account)
    recurring_runs.create(cluster, recurring, recipe_of(schedule))
    return get(cluster, schedule.name)


def update(
    cluster: Cluster,
    name: str,
    changes: dict[str, Any],
    *,
    experiment: str | None = None,
    account: str | None = None,
    now: datetime,
) -> ClusterSchedule:
    """Change what is named; runs under way go on, and no fire time is missed or doubled.

    Raises:
        UsageError: there is no such schedule, a value is none, or a cluster cannot heed it; the old one is as it was.
    """
    before = get(cluster, name)
    updated_at = now.astimezone(UTC).isoformat()
    revision_fields = {"revision": before.schedule.revision + 1, "updated_at": updated_at}
    schedule = validate_schedule(before.schedule.model_dump() | changes | revision_fields)
    recurring = recurring_run_spec(
        schedule,
        experiment=before.experiment if experiment is None else experiment,
        account=before.account if account is None else account,
    )
    recurring_runs.update(cluster, recurring, recipe_of(schedule))
    return get(cluster, name)


def list_firings(cluster: Cluster, cluster_schedule: ClusterSchedule, *, limit: int = 10) -> list[dict[str, Any]]:
    """What has been run of a schedule, oldest first, as a workspace's claims tell it."""
    latest = recurring_runs.list_runs(cluster, cluster_schedule.schedule.name)[:limit]
    return [
        _firing_record(cluster_schedule, summarize_listed_run(cluster, run), _revision(cluster, run))
        for run in reversed(latest)
    ]


def _revision(cluster: Cluster, run: Any) -> int | None:
    """Of the schedule, when it began a run; a backfill's is not known."""
    recurring = get_recurring_run(cluster, run.recurring_run_id) if run.recurring_run_id else None
    metadata = description.read_metadata((recurring and recurring.description) or "").get("schedule", {})
    return int(metadata.get("revision", 1)) if metadata else None


def _firing_record(cluster_schedule: ClusterSchedule, run: dict[str, Any], revision: int | None) -> dict[str, Any]:
    trigger = dict(run["trigger"])
    if trigger["scheduled_at"] and not trigger["window_end"]:
        window = cluster_schedule.window_of(datetime.fromisoformat(trigger["scheduled_at"]))
        trigger |= {"window_start": window.start.isoformat() if window.start else None,
                    "window_end": window.end.isoformat()}  # fmt: skip
    kind, ended = trigger.pop("kind"), run["outcome"] != Outcome.RUNNING
    return {
        **trigger,
        "kind": kind,
        "status": "ended" if ended else "running",
        "outcome": run["outcome"] if ended else "",
        "exit_code": outcomes.exit_code(run["outcome"]) if ended else None,
        "run": run["run"],
        "attempts": 1,
        "revision": revision,
        "error": run["error"],
        "notified": "",
    }


class ClusterBackfill:
    """The runs of past fire times, oldest first, a few at once; they are the cluster's, and go on without us.

    Given again it goes on: what has come to its end is left alone, what it began and is under way is joined, what
    failed or was cancelled runs again.
    """

    def __init__(
        self,
        cluster: Cluster,
        cluster_schedule: ClusterSchedule,
        *,
        concurrency: int,
        allow_older_window: bool,
        poll_s: float = 5.0,
    ) -> None:
        self.cluster, self.told, self.concurrency, self.poll_s = cluster, cluster_schedule, concurrency, poll_s
        self.allow_older_window = allow_older_window
        self.running: dict[datetime, str] = {}  # fire time -> run
        self._version_ids: tuple[str, str] | None = None

    def firing_times(self, *, start: datetime, end: datetime, now: datetime) -> list[datetime]:
        """The fire times from ``start`` up to, not including, ``end``.

        Raises:
            UsageError: there is none, there are too many, or they lie ahead.
        """
        return firing_times_of(self.told.schedule, start=start, end=end, now=now)

    def run(self, firing_times: list[datetime], *, say: Callable[[str], None] = print) -> list[dict[str, Any]]:
        """Run them; each as `fired` tells it, and ``what`` became of it.

        Raises:
            AccessError: the cluster cannot be watched any longer; what is under way goes on.
        """
        previous = self._previous_runs()
        waiting, results = list(firing_times), dict[datetime, dict[str, Any]]()
        settling: dict[datetime, float] = {}
        last_answer_s = time.monotonic()
        while waiting or self.running:
            while waiting and len(self.running) < self.concurrency:
                scheduled_at = waiting.pop(0)
                what, run = self._previous_outcome(previous.get(scheduled_at))
                if what:
                    results[scheduled_at] = {
                        **_firing_record(self.told, summarize_run(self.cluster, run), _revision(self.cluster, run)),
                        "what": what,
                    }
                    say(
                        f"{scheduled_at.isoformat()}: {what}, {results[scheduled_at]['outcome'] or results[scheduled_at]['status']}"
                    )
                elif run is not None:
                    self.running[scheduled_at] = run.run_id
                    say(f"{scheduled_at.isoformat()}: joined, run {run.run_id}")
                else:
                    self.running[scheduled_at] = self._start_run(scheduled_at)
                    say(
                        f"{scheduled_at.isoformat()}: begins, data to {self.told.window_of(scheduled_at).end.isoformat()}"
                    )
            for scheduled_at, id in list(self.running.items()):
                try:
                    run = summarize_run(self.cluster, self.cluster.client.get_run(id))
                    last_answer_s = time.monotonic()
                except Unreachable:
                    if time.monotonic() - last_answer_s > UNREACHABLE_TIMEOUT_S:
                        raise
                    continue
                if run["outcome"] == Outcome.RUNNING:
                    continue
                since = settling.setdefault(scheduled_at, time.monotonic())
                if run["outcome"] == Outcome.INCOMPLETE and time.monotonic() - since < SETTLE_S:
                    continue
                del self.running[scheduled_at]
                results[scheduled_at] = {**_firing_record(self.told, run, None), "what": "ran"}
                say(f"{scheduled_at.isoformat()}: {run['outcome']}" + (f"\n  {run['error']}" if run["error"] else ""))
            time.sleep(self.poll_s if self.running else 0)
        return [results[scheduled_at] for scheduled_at in sorted(results)]

    def _previous_runs(self) -> dict[datetime, Any]:
        """Fire time -> the latest run that it has had."""
        latest_runs: dict[datetime, Any] = {}
        for run in recurring_runs.list_runs(self.cluster, self.told.schedule.name):
            scheduled_at = (trigger_of(self.cluster, run) or {}).get("scheduled_at")
            if scheduled_at:
                latest_runs.setdefault(datetime.fromisoformat(scheduled_at).astimezone(UTC), run)
        return latest_runs

    def _previous_outcome(self, run: Any) -> tuple[BackfillStatus | None, Any]:
        """What became of a fire time before, and the run to join; neither where a run of it is to begin."""
        if run is None:
            return None, None
        run = self.cluster.client.get_run(run.run_id)
        summary = summarize_run(self.cluster, run)
        if summary["outcome"] == Outcome.RUNNING:
            return (None, run) if backfill_scheduled_at(run) else ("under way elsewhere", run)
        refused = outcomes.exit_code(summary["outcome"]) == EXIT_REFUSED
        if summary["outcome"] in (Outcome.FAILED, Outcome.CANCELLED, Outcome.INCOMPLETE) or (
            refused and self.allow_older_window and not _allows_older_windows(run)
        ):
            return None, None
        return "done before", run

    def _start_run(self, scheduled_at: datetime) -> str:
        pipeline_id, version_id = self._version()
        name = f"{self.told.schedule.name} {scheduled_at.strftime('%Y-%m-%dT%H:%M:%SZ')} backfill" + (
            OLDER_WINDOWS_SUFFIX * self.allow_older_window
        )
        with contextlib.redirect_stdout(io.StringIO()):
            run = self.cluster.client.run_pipeline(
                self.told.recurring_run.experiment_id,
                name,
                params={"scheduled_at": f"{BACKFILL}{scheduled_at.isoformat()}"},
                pipeline_id=pipeline_id,
                version_id=version_id,
                service_account=self.told.account or None,
            )
        return str(run.run_id)

    def _version(self) -> tuple[str, str]:
        """The package to run: the schedule's own, or one of its recipe as it is here that lets an older window pass."""
        if self._version_ids is None:
            if self.allow_older_window:
                recipe = recipe_of(self.told.schedule, "decide.allow_older_window=true")
                cluster_schedule = self.told.spec()
                version = upload(self.cluster, recipe, schedule=cluster_schedule.window(), flow=cluster_schedule.flow)
                self._version_ids = version.pipeline_id, version.version_id
            else:
                self._version_ids = self.told.recurring_run.pipeline_id, self.told.recurring_run.pipeline_version
        return self._version_ids


OLDER_WINDOWS_SUFFIX = ", older windows allowed"


def _allows_older_windows(run: Any) -> bool:
    return str(run.display_name).endswith(OLDER_WINDOWS_SUFFIX)
