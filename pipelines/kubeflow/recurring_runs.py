"""Recurring runs: schedules that a Kubeflow cluster keeps and fires itself.

A cluster's cron has six fields, the second first, and its time zone is that of its controller of schedules, for all
of them alike: UTC unless somebody set another (CRON_SCHEDULE_TIMEZONE). The data window of each run ends at the time
it was scheduled for (components/ingest/window.py).

The API can create, enable, disable and delete a recurring run, not change one. So a change is another of the same
name: the newest of a name is the one in force, older ones are disabled and go as soon as no run of theirs is under
way, since deleting one takes its runs with it.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import Field, field_validator

from components.ingest.window import ScheduledWindow
from pipelines.kubeflow import description
from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.packages import Version, list_pipelines, paginate, parse_pipeline_name, upload
from pipelines.kubeflow.runs import (
    DEFAULT_EXPERIMENT,
    backfill_scheduled_at,
    experiment_id,
    schedule_name,
    summarize_run,
)
from pipelines.recipes import Recipe
from pipelines.runs.folder import Flow
from pipelines.schedules import cron as crons
from rankline.contracts import FrozenModel
from rankline.errors import UsageError
from rankline.runtime.outcomes import Outcome

SCHEDULED_TIME = "[[ScheduledTime]]"  # the cluster puts the scheduled time in its place
CLEAR_S = 10  # a change keeps that far from the times at which the schedule fires
SETTLE_S = 5.0  # until a run that was begun a moment ago is on the list


class RecurringRunSpec(FrozenModel):
    """What a recurring run is to be."""

    name: str = Field(pattern=r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$", description="Its name.")
    flow: Flow = Field("train", description="What of the recipe is run.")
    cron: str = Field(description="Six fields, the second first, in the time zone of the cluster's controller.")
    zone: str = Field("UTC", description="What that zone is; the API does not tell.")
    lag_s: float = Field(0, ge=0, description="The data window ends that many seconds before the scheduled time.")
    window_s: float | None = Field(None, gt=0, description="Length of the data window; none for all there is.")
    max_concurrency: int = Field(1, ge=1, le=10, description="Runs of it that may be under way at once.")
    catch_up: bool = Field(False, description="Whether times that were missed are made up for, or the latest alone.")
    experiment: str = Field(DEFAULT_EXPERIMENT, description="Experiment that its runs belong to.")
    account: str = Field("", description="Service account its pods run as; the namespace's own if empty.")
    paused: bool = Field(False, description="Whether nothing is started.")
    metadata: dict[str, Any] = Field({}, description="What it was made of; kept in its description.")

    @field_validator("cron")
    @classmethod
    def _six_fields(cls, cron: str) -> str:
        try:
            return crons.parse(cron, seconds_first=True)[0].text
        except UsageError as error:
            raise ValueError(str(error)) from error

    def window(self) -> dict[str, Any]:
        """What the flow is told of it."""
        second = self.cron.split()[0]
        window = ScheduledWindow(
            name=self.name,
            lag_s=self.lag_s,
            window_s=self.window_s,
            second=second if second.isdigit() else "",
        )
        return window.model_dump(exclude_defaults=True)


@dataclass(frozen=True)
class RecurringRun:
    """A recurring run as the cluster keeps it."""

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
    metadata: dict[str, Any]  # what it was made of; empty where somebody else made it
    experiment_id: str
    pipeline_id: str
    pipeline_version: str
    url: str


def create(cluster: Cluster, recurring: RecurringRunSpec, recipe: Recipe) -> RecurringRun:
    """Keep a new recurring run on the cluster.

    Raises:
        UsageError: there is one of that name, or the recipe sets the window itself.
    """
    if found := _find_by_name(cluster, recurring.name):
        raise UsageError(
            f"there is a recurring run {recurring.name!r} already",
            found=found[0].url,
            hint="update it, or delete it first",
        )
    return _create(cluster, recurring, recipe, enabled=not recurring.paused)


def list_active(cluster: Cluster) -> list[RecurringRun]:
    """Every recurring run of ours that is in force, by name."""
    newest: dict[str, RecurringRun] = {}
    for recurring_run in _list_all(cluster):
        current = newest.setdefault(recurring_run.name, recurring_run)
        if (recurring_run.created_at, recurring_run.enabled) > (current.created_at, current.enabled):
            newest[recurring_run.name] = recurring_run
    return [newest[name] for name in sorted(newest)]


def show(cluster: Cluster, name: str) -> tuple[RecurringRun, list[dict[str, Any]]]:
    """The one in force of that name, and its runs, latest first, as far as the API knows them.

    Raises:
        UsageError: there is none of that name.
    """
    found = find_all(cluster, name)
    return found[0], [
        summarize_run(cluster, run) for recurring_run in found for run in _own_runs(cluster, recurring_run)
    ]


def pause(cluster: Cluster, name: str) -> RecurringRun:
    """Start nothing any more; runs under way go on. Every one of that name is paused, a change half made included."""
    for recurring_run in (found := find_all(cluster, name)):
        cluster.client.disable_recurring_run(recurring_run.id)
    return _get(cluster, found[0].id)


def resume(cluster: Cluster, name: str) -> RecurringRun:
    """Start runs again, from the next time on; those that were missed are made up for only with ``catch_up``."""
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
    """Put a changed one in force; returns it, and those that stay, disabled, until their runs have ended.

    The new one is created disabled; then, clear of the times at which either fires, it is enabled and the old one
    disabled. Stopped between the two, both are enabled: the same update again, or `pause`, puts that right.

    Raises:
        UsageError: there is none of that name, or the new one is refused; the old one is as it was.
    """
    old = find_all(cluster, recurring.name)
    new = _create(cluster, recurring, recipe, enabled=False)
    if not recurring.paused:
        _wait_until_clear(
            [recurring.cron, *(recurring_run.cron for recurring_run in old if recurring_run.enabled)],
            recurring.zone,
            clock,
        )
        cluster.client.enable_recurring_run(new.id)
    for recurring_run in old:
        if recurring_run.enabled:
            cluster.client.disable_recurring_run(recurring_run.id)
    time.sleep(SETTLE_S if settle_s is None else settle_s)
    return _get(cluster, new.id), delete_superseded(cluster, recurring.name, except_id=new.id)


def delete_superseded(cluster: Cluster, name: str, *, except_id: str = "") -> list[RecurringRun]:
    """Delete what changes have left of a name, where no run of it is under way; the rest is returned.

    ``but`` is the one in force; the newest if left out.
    """
    remaining = []
    found = find_all(cluster, name)
    for recurring_run in found:
        if recurring_run.id == (except_id or found[0].id):
            continue
        if recurring_run.enabled or _running(cluster, recurring_run):
            remaining.append(recurring_run)
        else:
            cluster.client.delete_recurring_run(recurring_run.id)
    return remaining


def delete(cluster: Cluster, name: str, *, with_runs: bool = False) -> None:
    """Delete it and all that changes have left of its name.

    Raises:
        UsageError: runs of it are under way, which would end with it; ``with_runs`` says that they may. It is
            paused then, so that deleting it once they have ended needs no more than the same command.
    """
    found = find_all(cluster, name)
    for recurring_run in found:
        if recurring_run.enabled:
            cluster.client.disable_recurring_run(recurring_run.id)
    under_way = [run["run"] for recurring_run in found for run in _running(cluster, recurring_run)]
    if under_way and not with_runs:
        raise UsageError(
            f"runs of {name!r} are under way, and deleting it would end them",
            expected="their end, or leave to end them",
            found=", ".join(under_way),
            where=found[0].url,
            hint="it is paused now: delete it again when they have ended",
        )
    for recurring_run in found:
        cluster.client.delete_recurring_run(recurring_run.id)


def _create(cluster: Cluster, recurring: RecurringRunSpec, recipe: Recipe, *, enabled: bool) -> RecurringRun:
    if recipe.ingest.window_start or recipe.ingest.window_end:
        raise UsageError(
            "the recipe sets a data window of its own, and a schedule's comes from the scheduled time",
            found=f"ingest.window_start={recipe.ingest.window_start}, ingest.window_end={recipe.ingest.window_end}",
            hint="leave both out",
        )
    version: Version = upload(cluster, recipe, schedule=recurring.window(), flow=recurring.flow)
    window = f"{recurring.window_s:.0f} s" if recurring.window_s else "all there is"
    summary = f"data window: {window}, up to {recurring.lag_s:.0f} s before the scheduled time"
    metadata = (
        {**recurring.metadata, "lag_s": recurring.lag_s, "window_s": recurring.window_s} if recurring.metadata else {}
    )
    with contextlib.redirect_stdout(io.StringIO()):
        response = cluster.client.create_recurring_run(
            experiment_id(cluster, recurring.experiment),
            recurring.name,
            description=description.format_description(summary, metadata) if metadata else summary,
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


def _wait_until_clear(cron_expressions: list[str], zone: str, clock: Callable[[], datetime] | None) -> None:
    """Wait while one of them fires within the next or the last few seconds; not for ever, for one that always does."""
    now = clock or (lambda: datetime.now(UTC))
    deadline = time.monotonic() + 6 * CLEAR_S
    rules = []
    for text in cron_expressions:
        with contextlib.suppress(UsageError):  # one that somebody else wrote in words that we do not read
            rules.append(crons.parse(text, zone, seconds_first=True)[0])
    while time.monotonic() < deadline:
        current_time = now()
        begin, end = (
            current_time - timedelta(seconds=CLEAR_S // 2, microseconds=1),
            current_time + timedelta(seconds=CLEAR_S),
        )
        if all(next(rule.after(begin), end) >= end for rule in rules):
            return
        time.sleep(1)


def _list_all(cluster: Cluster) -> list[RecurringRun]:
    ours = list_pipelines(cluster)
    listed = paginate(
        lambda **page: cluster.client.list_recurring_runs(namespace=cluster.namespace_or_none, **page), "recurring_runs"
    )
    return [
        _from_api(cluster, each, ours)
        for each in listed
        if each.pipeline_version_reference and each.pipeline_version_reference.pipeline_id in ours
    ]


def _find_by_name(cluster: Cluster, name: str) -> list[RecurringRun]:
    """All of a name, newest first: the first is in force."""
    found = [recurring_run for recurring_run in _list_all(cluster) if recurring_run.name == name]
    return sorted(
        found, key=lambda recurring_run: (recurring_run.created_at, recurring_run.enabled), reverse=True
    )  # to the second


def find_all(cluster: Cluster, name: str) -> list[RecurringRun]:
    """All of a name, the one in force first.

    Raises:
        UsageError: there is none.
    """
    if found := _find_by_name(cluster, name):
        return found
    raise UsageError(
        f"there is no recurring run {name!r}",
        expected="one that is on the cluster",
        found=", ".join(recurring_run.name for recurring_run in list_active(cluster)) or "none",
        where=cluster.host,
    )


def _get(cluster: Cluster, id: str) -> RecurringRun:
    response = cluster.client.get_recurring_run(id)
    return _from_api(cluster, response, list_pipelines(cluster))


def _from_api(cluster: Cluster, response: Any, ours: dict[str, str]) -> RecurringRun:
    cron = response.trigger.cron_schedule.cron if response.trigger and response.trigger.cron_schedule else ""
    recipe, flow = parse_pipeline_name(ours.get(response.pipeline_version_reference.pipeline_id, ""))
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
        description=description.sentence(response.description or ""),
        metadata=description.read_metadata(response.description or ""),
        experiment_id=response.experiment_id or "",
        pipeline_id=response.pipeline_version_reference.pipeline_id or "",
        pipeline_version=response.pipeline_version_reference.pipeline_version_id or "",
        url=cluster.ui_url("recurringrun", response.recurring_run_id),
    )


def list_runs(cluster: Cluster, name: str) -> list[Any]:
    """The runs that a schedule's fire times have had, its backfills included, latest first.

    Raises:
        UsageError: there is none of that name.
    """
    found = find_all(cluster, name)
    ids, pipeline_ids = (
        {recurring_run.id for recurring_run in found},
        {recurring_run.pipeline_id for recurring_run in found},
    )
    experiments = dict.fromkeys(recurring_run.experiment_id for recurring_run in found)
    ours = [
        run
        for experiment in experiments
        for run in _list_experiment_runs(cluster, experiment)
        if run.recurring_run_id in ids
        or (
            schedule_name(run) == name
            and run.pipeline_version_reference
            and run.pipeline_version_reference.pipeline_id in pipeline_ids
            and backfill_scheduled_at(run)
        )
    ]
    return sorted(ours, key=lambda run: run.created_at, reverse=True)


def _list_experiment_runs(cluster: Cluster, experiment: str) -> list[Any]:
    filters = {"experiment_id": experiment} if experiment else {"namespace": cluster.namespace_or_none}
    return paginate(lambda **page: cluster.client.list_runs(**filters, **page), "runs", sort_by="created_at desc")


def _own_runs(cluster: Cluster, recurring_run: RecurringRun) -> list[Any]:
    return [
        run
        for run in _list_experiment_runs(cluster, recurring_run.experiment_id)
        if run.recurring_run_id == recurring_run.id
    ]


def _running(cluster: Cluster, recurring_run: RecurringRun) -> list[dict[str, Any]]:
    return [
        run_summary
        for run in _own_runs(cluster, recurring_run)
        if (run_summary := summarize_run(cluster, run))["outcome"] == Outcome.RUNNING
    ]
