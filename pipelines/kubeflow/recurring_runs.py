"""Recurring runs: how a Kubeflow cluster stores a schedule and fires it itself.

The cron expressions of a cluster have six fields, the second first, in the time zone of its controller, which is the
same for all of them: UTC unless somebody set another (CRON_SCHEDULE_TIMEZONE). The data window of each run ends at its
scheduled time (components/ingest/window.py).

The API can create, enable, disable and delete a recurring run, but not change one. So a change creates another one of
the same name: the newest is the active one. Older ones are disabled, and deleted as soon as none of their runs is
active, since deleting a recurring run ends its runs.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import Field, field_validator

from components.ingest.window import ScheduledWindow
from pipelines.kubeflow.client import Cluster, quiet_stdout
from pipelines.kubeflow.limits import check_limits, shorten
from pipelines.kubeflow.packages import list_own_runs, list_pipelines, paginate, parse_pipeline_name, upload
from pipelines.kubeflow.run_summary import is_running
from pipelines.kubeflow.runs import DEFAULT_EXPERIMENT
from pipelines.kubeflow.scheduled_workflows import unstored_schedule
from pipelines.kubeflow.triggers import (
    backfill_scheduled_at,
    format_metadata,
    read_summary,
    schedule_metadata,
    schedule_name,
)
from pipelines.recipes import Recipe
from pipelines.schedules import cron as crons
from rankline.contracts import FrozenModel
from rankline.errors import UsageError
from rankline.runtime.steps import Flow

SCHEDULED_TIME = "[[ScheduledTime]]"  # the cluster replaces it with the scheduled time
CLEAR_S = 10  # distance of a change from the fire times
SETTLE_S = 5.0  # until a run that has just started is listed


class RecurringRunSpec(FrozenModel):
    """What a recurring run is created from."""

    name: str = Field(pattern=r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$", description="Its name.")
    flow: Flow = Field("train", description="Flow of the recipe.")
    cron: str = Field(description="Six fields, the second first, in the time zone of the cluster's controller.")
    zone: str = Field("UTC", description="That time zone, which the API does not report.")
    window: str = Field("", description="Length of the data window, such as 30d; empty for all data.")
    lag: str = Field("0s", description="How long before the scheduled time the data window ends.")
    max_concurrency: int = Field(1, ge=1, le=10, description="Largest number of concurrent runs.")
    catch_up: bool = Field(False, description="Whether all missed fire times run, or the latest only.")
    experiment: str = Field(DEFAULT_EXPERIMENT, description="Experiment of its runs.")
    account: str = Field("", description="Service account of its pods; the namespace's own if empty.")
    paused: bool = Field(False, description="Whether it starts no runs.")
    metadata: dict[str, Any] = Field({}, description="Stored in the description of its package.")

    @field_validator("cron")
    @classmethod
    def _six_fields(cls, cron: str) -> str:
        try:
            return crons.parse(cron, seconds_first=True)[0].text
        except UsageError as error:
            raise ValueError(str(error)) from error

    def scheduled_window(self) -> dict[str, Any]:
        """The argument of the flow's package."""
        window = ScheduledWindow(name=self.name, cron=self.cron, zone=self.zone, window=self.window, lag=self.lag)
        return window.model_dump(exclude_defaults=True)


@dataclass(frozen=True)
class RecurringRun:
    """A recurring run of the cluster."""

    id: str
    name: str
    recipe: str
    flow: Flow
    cron: str
    enabled: bool
    max_concurrency: int
    catch_up: bool
    created_at: datetime
    description: str
    metadata: dict[str, Any]  # of its spec; empty where `rankline schedule` did not create it
    experiment_id: str
    pipeline: str  # its name
    pipeline_id: str
    pipeline_version: str
    url: str


def create(cluster: Cluster, recurring: RecurringRunSpec, recipe: Recipe) -> RecurringRun:
    """Create a recurring run.

    Raises:
        UsageError: the name is taken, or the recipe sets a data window itself.
    """
    if existing := _find_by_name(cluster, recurring.name):
        raise UsageError(
            f"there is already a recurring run {recurring.name!r}",
            found=existing[0].url,
            hint="update it, or delete it first",
        )
    return _create(cluster, recurring, recipe, enabled=not recurring.paused)


def list_active(cluster: Cluster) -> list[RecurringRun]:
    """The active recurring runs of Rankline, by name."""
    newest: dict[str, RecurringRun] = {}
    for recurring_run in _list_all(cluster):
        current = newest.setdefault(recurring_run.name, recurring_run)
        if (recurring_run.created_at, recurring_run.enabled) > (current.created_at, current.enabled):
            newest[recurring_run.name] = recurring_run
    return [newest[name] for name in sorted(newest)]


def pause(cluster: Cluster, name: str) -> RecurringRun:
    """Disable every recurring run of a name, those of an unfinished change included; active runs go on."""
    recurring_runs = find_all(cluster, name)
    for each in recurring_runs:
        cluster.client.disable_recurring_run(each.id)
    return _get(cluster, recurring_runs[0].id)


def resume(cluster: Cluster, name: str) -> RecurringRun:
    """Enable the newest recurring run of a name; missed fire times run only with ``catch_up``."""
    newest = find_all(cluster, name)[0]
    cluster.client.enable_recurring_run(newest.id)
    return _get(cluster, newest.id)


def update(
    cluster: Cluster,
    recurring: RecurringRunSpec,
    recipe: Recipe,
    *,
    settle_s: float | None = None,
    clock: Callable[[], datetime] | None = None,
) -> tuple[RecurringRun, list[RecurringRun]]:
    """Replace a recurring run; returns the new one, and the disabled ones that stay until their runs have ended.

    The new one is created disabled. Then, at a distance from the fire times of both, it is enabled and the old one
    disabled. If the process is killed in between, both are enabled; repeat the update, or `pause`, to correct that.

    Raises:
        UsageError: there is none of that name, or the new one is refused; the old one is unchanged.
    """
    old = find_all(cluster, recurring.name)
    new = _create(cluster, recurring, recipe, enabled=False)
    if not recurring.paused:
        _wait_until_clear(
            [recurring.cron, *(each.cron for each in old if each.enabled)],
            recurring.zone,
            clock or (lambda: datetime.now(UTC)),
        )
        cluster.client.enable_recurring_run(new.id)
    for recurring_run in old:
        if recurring_run.enabled:
            cluster.client.disable_recurring_run(recurring_run.id)
    time.sleep(SETTLE_S if settle_s is None else settle_s)
    return _get(cluster, new.id), delete_superseded(cluster, recurring.name, except_id=new.id)


def delete_superseded(cluster: Cluster, name: str, *, except_id: str = "") -> list[RecurringRun]:
    """Delete what changes have left of a name, and return those with an active run, which stay.

    ``except_id`` is the active one; the newest if left out.
    """
    remaining = []
    recurring_runs = find_all(cluster, name)
    for each in recurring_runs:
        if each.id == (except_id or recurring_runs[0].id):
            continue
        if each.enabled or _active_runs(cluster, each):
            remaining.append(each)
        else:
            cluster.client.delete_recurring_run(each.id)
    return remaining


def delete(cluster: Cluster, name: str, *, with_runs: bool = False) -> None:
    """Delete a recurring run and all that changes have left of its name.

    Raises:
        UsageError: a run of it is active and would end with it, which ``with_runs`` allows. The recurring run is then
            paused: repeat the command when its runs have ended.
    """
    recurring_runs = find_all(cluster, name)
    for each in recurring_runs:
        if each.enabled:
            cluster.client.disable_recurring_run(each.id)
    active = [run for each in recurring_runs for run in _active_runs(cluster, each)]
    if active and not with_runs:
        raise UsageError(
            f"runs of {name!r} are active, and deleting it would end them",
            expected="their end, or --end-runs",
            found=", ".join(active),
            where=recurring_runs[0].url,
            hint="it is paused now: delete it again when they have ended",
        )
    for each in recurring_runs:
        cluster.client.delete_recurring_run(each.id)


def _create(cluster: Cluster, recurring: RecurringRunSpec, recipe: Recipe, *, enabled: bool) -> RecurringRun:
    if recipe.ingest.window_start or recipe.ingest.window_end:
        raise UsageError(
            "the recipe sets a data window of its own, and a schedule's comes from the scheduled time",
            expected="a recipe without ingest.window_start and ingest.window_end",
            found=f"ingest.window_start={recipe.ingest.window_start}, ingest.window_end={recipe.ingest.window_end}",
            hint="leave both out",
        )
    description = _description(recurring, recipe)
    check_limits(
        {
            "recurring run name": recurring.name,
            "description": description,
            "experiment name": recurring.experiment,
            "cron expression": recurring.cron,
            "service account": recurring.account,
        }
    )
    version = upload(
        cluster,
        recipe,
        schedule=recurring.scheduled_window(),
        flow=recurring.flow,
        metadata=format_metadata(recurring.metadata),
    )
    experiment_id = cluster.experiment_id(recurring.experiment)
    with quiet_stdout(), unstored_schedule(cluster, recurring.name, version.version_id):
        response = cluster.client.create_recurring_run(
            experiment_id,
            recurring.name,
            description=description,
            cron_expression=recurring.cron,
            max_concurrency=recurring.max_concurrency,
            no_catchup=not recurring.catch_up,
            params={"scheduled_at": SCHEDULED_TIME},
            pipeline_id=version.pipeline_id,
            version_id=version.version_id,
            enabled=enabled,
            service_account=recurring.account or None,
        )
    return _get(cluster, response.recurring_run_id)


def _description(recurring: RecurringRunSpec, recipe: Recipe) -> str:
    """What people read of it on its page."""
    data = f"data window: {recurring.window or 'all data'}, up to {recurring.lag} before the scheduled time"
    more = f"; `rankline schedule show {recurring.name}` has the rest" if recurring.metadata else ""
    return shorten(f"{data}; flow {recurring.flow} of recipe {recipe.name}{more}")


def _wait_until_clear(cron_expressions: list[str], zone: str, now: Callable[[], datetime]) -> None:
    """Wait while one of them fires within the next or the last few seconds, but no longer than a minute."""
    deadline = time.monotonic() + 6 * CLEAR_S
    rules = []
    for text in cron_expressions:
        with contextlib.suppress(UsageError):  # somebody else wrote one that we cannot parse
            rules.append(crons.parse(text, zone, seconds_first=True)[0])
    while time.monotonic() < deadline:
        instant = now()
        start = instant - timedelta(seconds=CLEAR_S // 2, microseconds=1)
        end = instant + timedelta(seconds=CLEAR_S)
        if all(next(rule.after(start), end) >= end for rule in rules):
            return
        time.sleep(1)


def list_ids(cluster: Cluster) -> set[str]:
    """The ids of all recurring runs that the API lists, whosever they are."""
    return {each.recurring_run_id for each in _list_raw(cluster)}


def _list_raw(cluster: Cluster) -> list[Any]:
    return paginate(
        lambda **page: cluster.client.list_recurring_runs(namespace=cluster.namespace_or_none, **page), "recurring_runs"
    )


def _list_all(cluster: Cluster) -> list[RecurringRun]:
    ours = list_pipelines(cluster)
    return [
        _from_api(cluster, each, ours)
        for each in _list_raw(cluster)
        if each.pipeline_version_reference and each.pipeline_version_reference.pipeline_id in ours
    ]


def _find_by_name(cluster: Cluster, name: str) -> list[RecurringRun]:
    """All of a name, newest first; times have a resolution of a second, so of two the enabled one counts as newer."""
    recurring_runs = [each for each in _list_all(cluster) if each.name == name]
    return sorted(recurring_runs, key=lambda each: (each.created_at, each.enabled), reverse=True)


def find_all(cluster: Cluster, name: str) -> list[RecurringRun]:
    """All of a name, the active one first.

    Raises:
        UsageError: there is none.
    """
    if recurring_runs := _find_by_name(cluster, name):
        return recurring_runs
    raise UsageError(
        f"there is no recurring run {name!r}",
        expected="the name of a recurring run of the cluster",
        found=", ".join(each.name for each in list_active(cluster)) or "none",
        where=cluster.host,
        hint="`rankline schedule list` lists them",
    )


def _get(cluster: Cluster, id: str) -> RecurringRun:
    response = cluster.client.get_recurring_run(id)
    return _from_api(cluster, response, list_pipelines(cluster))


def _from_api(cluster: Cluster, response: Any, ours: dict[str, str]) -> RecurringRun:
    cron = response.trigger.cron_schedule.cron if response.trigger and response.trigger.cron_schedule else ""
    pipeline = ours.get(response.pipeline_version_reference.pipeline_id, "")
    recipe, flow = parse_pipeline_name(pipeline)
    return RecurringRun(
        id=response.recurring_run_id,
        name=response.display_name,
        recipe=recipe,
        flow=flow,
        cron=cron,
        enabled=response.status == "ENABLED",
        max_concurrency=int(response.max_concurrency or 1),
        catch_up=not response.no_catchup,
        created_at=response.created_at,
        description=read_summary(response.description or ""),
        metadata=schedule_metadata(cluster, response, response.pipeline_version_reference),
        experiment_id=response.experiment_id or "",
        pipeline=pipeline,
        pipeline_id=response.pipeline_version_reference.pipeline_id or "",
        pipeline_version=response.pipeline_version_reference.pipeline_version_id or "",
        url=cluster.ui_url("recurringrun", response.recurring_run_id),
    )


def list_runs(cluster: Cluster, name: str) -> list[Any]:
    """The runs of a schedule, its backfills included, latest first.

    Raises:
        UsageError: there is no recurring run of that name.
    """
    recurring_runs = find_all(cluster, name)
    ids, pipeline_ids = {each.id for each in recurring_runs}, {each.pipeline_id for each in recurring_runs}
    runs = [
        run
        for experiment in dict.fromkeys(each.experiment_id for each in recurring_runs)
        for run in list_own_runs(cluster, pipeline_ids, limit=None, experiment_id=experiment)
        if run.recurring_run_id in ids or (schedule_name(run) == name and backfill_scheduled_at(run) is not None)
    ]
    return sorted(runs, key=lambda run: run.created_at, reverse=True)


def _active_runs(cluster: Cluster, recurring_run: RecurringRun) -> list[str]:
    """The ids of the runs that have not ended."""
    experiment, pipelines = recurring_run.experiment_id, (recurring_run.pipeline_id,)
    runs = list_own_runs(cluster, pipelines, limit=None, experiment_id=experiment)
    return [run.run_id for run in runs if run.recurring_run_id == recurring_run.id and is_running(run)]
