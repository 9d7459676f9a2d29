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
from pipelines.kubeflow import recurring_runs as kept_there
from pipelines.kubeflow.client import Cluster, Unreachable
from pipelines.kubeflow.packages import upload
from pipelines.kubeflow.recurring_runs import Kept, Recurring
from pipelines.kubeflow.runs import (
    CANCELLED,
    FAILED,
    INCOMPLETE,
    backfilled,
    recurring_run,
    tell,
    tell_listed,
    trigger_of,
)
from pipelines.recipes import Recipe, named
from pipelines.runs.runner import EXIT_CODES
from pipelines.runs.store import RUNNING
from pipelines.schedules.backfill import What, moments_of
from pipelines.schedules.store import Schedule, Window, checked
from rankline.errors import EXIT_FAILED, EXIT_REFUSED, UsageError

HEEDED = {
    "name", "recipe", "flow", "source", "map", "settings", "cron", "zone", "window", "lag", "catch_up", "max_runs",
    "paused", "revision", "created_at", "updated_at", "deleted", "directory",
}  # fmt: skip
WHY = {
    "runner": "on a cluster each step is a pod of its own",
    "jitter_s": "the cluster begins a run when its controller sees that it is due",
    "webhook": "the cluster calls nobody; `rankline runs list --host … --json` tells a monitor what failed",
    "catch_up_limit": "a cluster makes up for all of them, or for the latest alone",
}
MOST_AT_ONCE = 10
SETTLE_S = 30.0  # until a run's tasks are reported beside its state
PATIENCE_S = 300.0
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


@dataclass(frozen=True)
class Told:
    """A schedule of a cluster: what it was made of, and what the cluster keeps."""

    schedule: Schedule
    kept: Kept
    experiment: str
    account: str
    left: tuple[Kept, ...] = ()  # of changes: disabled, and gone once their runs have ended

    def window_of(self, scheduled_at: datetime) -> Window:
        """The data of the run of this time; days are of 24 hours there."""
        return window_of(self.schedule, scheduled_at)

    def recurring(self) -> Recurring:
        """What the cluster was asked for."""
        return recurring_of(self.schedule, experiment=self.experiment, account=self.account)


def refuse_unheeded(given: dict[str, Any]) -> None:
    """Refuse settings that a cluster cannot heed.

    Raises:
        UsageError: naming the first of them.
    """
    for name, value in given.items():
        info = Schedule.model_fields.get(name)
        asks_for_none = info is not None and name not in ("runner", "catch_up_limit") and value in (info.default, "")
        if name in HEEDED or value is None or asks_for_none:
            continue
        option = "--" + name.removesuffix("_s").replace("_", "-")
        raise UsageError(
            f"a cluster cannot heed {option}",
            expected="the settings of a schedule that a cluster keeps",
            found=f"{option} {value}",
            hint=WHY.get(name.removesuffix("_headers").removesuffix("_on_refusal"), "leave it out"),
        )


def recurring_of(schedule: Schedule, *, experiment: str, account: str) -> Recurring:
    """What the cluster is asked for.

    Raises:
        UsageError: it is more than a cluster can do.
    """
    refuse_unheeded(
        {
            name: getattr(schedule, name)
            for name, info in Schedule.model_fields.items()
            if getattr(schedule, name) != info.default
        }
    )
    if schedule.max_runs > MOST_AT_ONCE:
        raise UsageError(
            "a cluster lets a schedule have ten runs at once at most",
            expected=f"--max-runs of 1 to {MOST_AT_ONCE}",
            found=str(schedule.max_runs),
        )
    if schedule.name.endswith("-"):
        raise UsageError(
            "a cluster's schedule is a name of Kubernetes",
            expected="a letter or a digit at its end",
            found=schedule.name,
        )
    return Recurring(
        name=schedule.name,
        flow=schedule.flow,
        cron=schedule.cron,
        zone=schedule.zone,
        lag_s=_seconds(schedule.lag),
        window_s=_seconds(schedule.window) or None,
        at_once=schedule.max_runs,
        catch_up=schedule.catch_up == "all",
        experiment=experiment,
        account=account,
        paused=schedule.paused,
        told={
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


def get(cluster: Cluster, name: str) -> Told:
    """The schedule of this name.

    Raises:
        UsageError: there is none, or `rankline schedule` did not make it.
    """
    newest, *older = kept_there.existing(cluster, name)
    told = told_of(newest, tuple(older))
    if told is None:
        raise UsageError(
            f"recurring run {name!r} was not made by `rankline schedule`, or its description was edited",
            expected="a description that ends with the schedule it was made of",
            found=newest.description or "none",
            where=newest.url,
            hint="delete it on its page, and create it again",
        )
    return told


def told_of(kept: Kept, left: tuple[Kept, ...] = ()) -> Told | None:
    """What a recurring run was made of; none where that is not known."""
    told = kept.told
    if not isinstance(told.get("schedule"), dict):
        return None
    try:
        schedule = checked({**told["schedule"], "paused": not kept.enabled})
    except UsageError:  # of a version with other settings, or somebody wrote into it
        return None
    return Told(schedule, kept, str(told.get("experiment", "")), str(told.get("account", "")), left)


def all_of(cluster: Cluster) -> list[tuple[Kept, Told | None]]:
    """Every recurring run of ours that is in force, by name, with what it was made of where that is known."""
    return [(kept, told_of(kept)) for kept in kept_there.listed(cluster)]


def create(cluster: Cluster, values: dict[str, Any], *, experiment: str, account: str, now: datetime) -> Told:
    """Have the cluster keep a new schedule.

    Raises:
        UsageError: there is one of this name, a value is none, or a cluster cannot heed it.
    """
    at = now.astimezone(UTC).isoformat()
    schedule = checked({**values, "created_at": at, "updated_at": at})
    recurring = recurring_of(schedule, experiment=experiment, account=account)
    kept_there.create(cluster, recurring, recipe_of(schedule))
    return get(cluster, schedule.name)


def update(
    cluster: Cluster,
    name: str,
    changes: dict[str, Any],
    *,
    experiment: str | None = None,
    account: str | None = None,
    now: datetime,
) -> Told:
    """Change what is named; runs under way go on, and no fire time is missed or doubled.

    Raises:
        UsageError: there is no such schedule, a value is none, or a cluster cannot heed it; the old one is as it was.
    """
    before = get(cluster, name)
    at = now.astimezone(UTC).isoformat()
    new = {"revision": before.schedule.revision + 1, "updated_at": at}
    schedule = checked(before.schedule.model_dump() | changes | new)
    recurring = recurring_of(
        schedule,
        experiment=before.experiment if experiment is None else experiment,
        account=before.account if account is None else account,
    )
    kept_there.update(cluster, recurring, recipe_of(schedule))
    return get(cluster, name)


def fired(cluster: Cluster, told: Told, *, most: int = 10) -> list[dict[str, Any]]:
    """What has been run of a schedule, oldest first, as a workspace's claims tell it."""
    latest = kept_there.runs(cluster, told.schedule.name)[:most]
    return [_fired(told, tell_listed(cluster, run), _revision(cluster, run)) for run in reversed(latest)]


def _revision(cluster: Cluster, run: Any) -> int | None:
    """Of the schedule, when it began a run; a backfill's is not known."""
    kept = recurring_run(cluster, run.recurring_run_id) if run.recurring_run_id else None
    told = description.read((kept and kept.description) or "").get("schedule", {})
    return int(told.get("revision", 1)) if told else None


def _fired(told: Told, run: dict[str, Any], revision: int | None) -> dict[str, Any]:
    trigger = dict(run["trigger"])
    if trigger["scheduled_at"] and not trigger["window_end"]:
        window = told.window_of(datetime.fromisoformat(trigger["scheduled_at"]))
        trigger |= {"window_start": window.start.isoformat() if window.start else None,
                    "window_end": window.end.isoformat()}  # fmt: skip
    kind, over = trigger.pop("kind"), run["outcome"] != RUNNING
    return {
        **trigger,
        "kind": kind,
        "status": "ended" if over else "running",
        "outcome": run["outcome"] if over else "",
        "exit_code": EXIT_CODES.get(run["outcome"], EXIT_FAILED) if over else None,
        "run": run["run"],
        "attempts": 1,
        "revision": revision,
        "error": run["error"],
        "notified": "",
    }


class Backfill:
    """The runs of past fire times, oldest first, a few at once; they are the cluster's, and go on without us.

    Given again it goes on: what has come to its end is left alone, what it began and is under way is joined, what
    failed or was cancelled runs again.
    """

    def __init__(
        self, cluster: Cluster, told: Told, *, concurrency: int, allow_older_window: bool, poll_s: float = 5.0
    ) -> None:
        self.cluster, self.told, self.concurrency, self.poll_s = cluster, told, concurrency, poll_s
        self.allow_older = allow_older_window
        self.under_way: dict[datetime, str] = {}  # fire time -> run
        self._versions: tuple[str, str] | None = None

    def moments(self, *, start: datetime, end: datetime, now: datetime) -> list[datetime]:
        """The fire times from ``start`` up to, not including, ``end``.

        Raises:
            UsageError: there is none, there are too many, or they lie ahead.
        """
        return moments_of(self.told.schedule, start=start, end=end, now=now)

    def fill(self, moments: list[datetime], *, say: Callable[[str], None] = print) -> list[dict[str, Any]]:
        """Run them; each as `fired` tells it, and ``what`` became of it.

        Raises:
            AccessError: the cluster cannot be watched any longer; what is under way goes on.
        """
        before = self._before()
        waiting, filled = list(moments), dict[datetime, dict[str, Any]]()
        settling: dict[datetime, float] = {}
        answered = time.monotonic()
        while waiting or self.under_way:
            while waiting and len(self.under_way) < self.concurrency:
                at = waiting.pop(0)
                what, run = self._fate(before.get(at))
                if what:
                    filled[at] = {
                        **_fired(self.told, tell(self.cluster, run), _revision(self.cluster, run)),
                        "what": what,
                    }
                    say(f"{at.isoformat()}: {what}, {filled[at]['outcome'] or filled[at]['status']}")
                elif run is not None:
                    self.under_way[at] = run.run_id
                    say(f"{at.isoformat()}: joined, run {run.run_id}")
                else:
                    self.under_way[at] = self._begin(at)
                    say(f"{at.isoformat()}: begins, data to {self.told.window_of(at).end.isoformat()}")
            for at, id in list(self.under_way.items()):
                try:
                    run = tell(self.cluster, self.cluster.client.get_run(id))
                    answered = time.monotonic()
                except Unreachable:
                    if time.monotonic() - answered > PATIENCE_S:
                        raise
                    continue
                if run["outcome"] == RUNNING:
                    continue
                since = settling.setdefault(at, time.monotonic())
                if run["outcome"] == INCOMPLETE and time.monotonic() - since < SETTLE_S:
                    continue
                del self.under_way[at]
                filled[at] = {**_fired(self.told, run, None), "what": "ran"}
                say(f"{at.isoformat()}: {run['outcome']}" + (f"\n  {run['error']}" if run["error"] else ""))
            time.sleep(self.poll_s if self.under_way else 0)
        return [filled[at] for at in sorted(filled)]

    def _before(self) -> dict[datetime, Any]:
        """Fire time -> the latest run that it has had."""
        found: dict[datetime, Any] = {}
        for run in kept_there.runs(self.cluster, self.told.schedule.name):
            at = (trigger_of(self.cluster, run) or {}).get("scheduled_at")
            if at:
                found.setdefault(datetime.fromisoformat(at).astimezone(UTC), run)
        return found

    def _fate(self, run: Any) -> tuple[What | None, Any]:
        """What became of a fire time before, and the run to join; neither where a run of it is to begin."""
        if run is None:
            return None, None
        run = self.cluster.client.get_run(run.run_id)
        told = tell(self.cluster, run)
        if told["outcome"] == RUNNING:
            return (None, run) if backfilled(run) else ("under way elsewhere", run)
        refused = EXIT_CODES.get(told["outcome"]) == EXIT_REFUSED
        if told["outcome"] in (FAILED, CANCELLED, INCOMPLETE) or (refused and self.allow_older and not _older(run)):
            return None, None
        return "done before", run

    def _begin(self, at: datetime) -> str:
        pipeline_id, version_id = self._version()
        name = f"{self.told.schedule.name} {at.strftime('%Y-%m-%dT%H:%M:%SZ')} backfill" + (OLDER * self.allow_older)
        with contextlib.redirect_stdout(io.StringIO()):
            run = self.cluster.client.run_pipeline(
                self.told.kept.experiment_id,
                name,
                params={"scheduled_at": f"{BACKFILL}{at.isoformat()}"},
                pipeline_id=pipeline_id,
                version_id=version_id,
                service_account=self.told.account or None,
            )
        return str(run.run_id)

    def _version(self) -> tuple[str, str]:
        """The package to run: the schedule's own, or one of its recipe as it is here that lets an older window pass."""
        if self._versions is None:
            if self.allow_older:
                recipe = recipe_of(self.told.schedule, "decide.allow_older_window=true")
                told = self.told.recurring()
                version = upload(self.cluster, recipe, schedule=told.window(), flow=told.flow)
                self._versions = version.pipeline_id, version.version_id
            else:
                self._versions = self.told.kept.pipeline_id, self.told.kept.pipeline_version
        return self._versions


OLDER = ", older windows allowed"


def _older(run: Any) -> bool:
    return str(run.display_name).endswith(OLDER)
