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
from pipelines.kubeflow.packages import Version, every, named, pipelines, upload
from pipelines.kubeflow.runs import EXPERIMENT, backfilled, experiment_id, name_of, tell
from pipelines.recipes import Recipe
from pipelines.runs.runner import Flow
from pipelines.runs.store import RUNNING
from pipelines.schedules import cron as crons
from rankline.contracts import FrozenModel
from rankline.errors import UsageError

SCHEDULED_TIME = "[[ScheduledTime]]"  # the cluster puts the scheduled time in its place
CLEAR_S = 10  # a change keeps that far from the times at which the schedule fires
SETTLE_S = 5.0  # until a run that was begun a moment ago is on the list


class Recurring(FrozenModel):
    """What a recurring run is to be."""

    name: str = Field(pattern=r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$", description="Its name.")
    flow: Flow = Field("train", description="What of the recipe is run.")
    cron: str = Field(description="Six fields, the second first, in the time zone of the cluster's controller.")
    zone: str = Field("UTC", description="What that zone is; the API does not tell.")
    lag_s: float = Field(0, ge=0, description="The data window ends that many seconds before the scheduled time.")
    window_s: float | None = Field(None, gt=0, description="Length of the data window; none for all there is.")
    at_once: int = Field(1, ge=1, le=10, description="Runs of it that may be under way at once.")
    catch_up: bool = Field(False, description="Whether times that were missed are made up for, or the latest alone.")
    experiment: str = Field(EXPERIMENT, description="Experiment that its runs belong to.")
    account: str = Field("", description="Service account its pods run as; the namespace's own if empty.")
    paused: bool = Field(False, description="Whether nothing is started.")
    told: dict[str, Any] = Field({}, description="What it was made of; kept in its description.")

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
        told = ScheduledWindow(
            name=self.name,
            lag_s=self.lag_s,
            window_s=self.window_s,
            second=second if second.isdigit() else "",
        )
        return told.model_dump(exclude_defaults=True)


@dataclass(frozen=True)
class Kept:
    """A recurring run as the cluster keeps it."""

    id: str
    name: str
    recipe: str
    flow: Flow
    cron: str
    enabled: bool
    at_once: int
    catch_up: bool
    created_at: datetime
    description: str
    told: dict[str, Any]  # what it was made of; empty where somebody else made it
    experiment_id: str
    pipeline_id: str
    pipeline_version: str
    url: str


def create(cluster: Cluster, recurring: Recurring, recipe: Recipe) -> Kept:
    """Keep a new recurring run on the cluster.

    Raises:
        UsageError: there is one of that name, or the recipe sets the window itself.
    """
    if found := _named(cluster, recurring.name):
        raise UsageError(
            f"there is a recurring run {recurring.name!r} already",
            found=found[0].url,
            hint="update it, or delete it first",
        )
    return _create(cluster, recurring, recipe, enabled=not recurring.paused)


def listed(cluster: Cluster) -> list[Kept]:
    """Every recurring run of ours that is in force, by name."""
    newest: dict[str, Kept] = {}
    for kept in _all(cluster):
        known = newest.setdefault(kept.name, kept)
        if (kept.created_at, kept.enabled) > (known.created_at, known.enabled):
            newest[kept.name] = kept
    return [newest[name] for name in sorted(newest)]


def show(cluster: Cluster, name: str) -> tuple[Kept, list[dict[str, Any]]]:
    """The one in force of that name, and its runs, latest first, as far as the API knows them.

    Raises:
        UsageError: there is none of that name.
    """
    found = existing(cluster, name)
    return found[0], [tell(cluster, run) for kept in found for run in _runs(cluster, kept)]


def pause(cluster: Cluster, name: str) -> Kept:
    """Start nothing any more; runs under way go on. Every one of that name is paused, a change half made included."""
    for kept in (found := existing(cluster, name)):
        cluster.client.disable_recurring_run(kept.id)
    return _get(cluster, found[0].id)


def resume(cluster: Cluster, name: str) -> Kept:
    """Start runs again, from the next time on; those that were missed are made up for only with ``catch_up``."""
    newest = existing(cluster, name)[0]
    cluster.client.enable_recurring_run(newest.id)
    return _get(cluster, newest.id)


def update(
    cluster: Cluster,
    recurring: Recurring,
    recipe: Recipe,
    *,
    settle_s: float | None = None,
    clock: Callable[[], datetime] | None = None,
) -> tuple[Kept, list[Kept]]:
    """Put a changed one in force; returns it, and those that stay, disabled, until their runs have ended.

    The new one is created disabled; then, clear of the times at which either fires, it is enabled and the old one
    disabled. Stopped between the two, both are enabled: the same update again, or `pause`, puts that right.

    Raises:
        UsageError: there is none of that name, or the new one is refused; the old one is as it was.
    """
    old = existing(cluster, recurring.name)
    new = _create(cluster, recurring, recipe, enabled=False)
    if not recurring.paused:
        _wait_until_clear([recurring.cron, *(kept.cron for kept in old if kept.enabled)], recurring.zone, clock)
        cluster.client.enable_recurring_run(new.id)
    for kept in old:
        if kept.enabled:
            cluster.client.disable_recurring_run(kept.id)
    time.sleep(SETTLE_S if settle_s is None else settle_s)
    return _get(cluster, new.id), tidy(cluster, recurring.name, but=new.id)


def tidy(cluster: Cluster, name: str, *, but: str = "") -> list[Kept]:
    """Delete what changes have left of a name, where no run of it is under way; the rest is returned.

    ``but`` is the one in force; the newest if left out.
    """
    left = []
    found = existing(cluster, name)
    for kept in found:
        if kept.id == (but or found[0].id):
            continue
        if kept.enabled or _under_way(cluster, kept):
            left.append(kept)
        else:
            cluster.client.delete_recurring_run(kept.id)
    return left


def delete(cluster: Cluster, name: str, *, with_runs: bool = False) -> None:
    """Delete it and all that changes have left of its name.

    Raises:
        UsageError: runs of it are under way, which would end with it; ``with_runs`` says that they may. It is
            paused then, so that deleting it once they have ended needs no more than the same command.
    """
    found = existing(cluster, name)
    for kept in found:
        if kept.enabled:
            cluster.client.disable_recurring_run(kept.id)
    under_way = [run["run"] for kept in found for run in _under_way(cluster, kept)]
    if under_way and not with_runs:
        raise UsageError(
            f"runs of {name!r} are under way, and deleting it would end them",
            expected="their end, or leave to end them",
            found=", ".join(under_way),
            where=found[0].url,
            hint="it is paused now: delete it again when they have ended",
        )
    for kept in found:
        cluster.client.delete_recurring_run(kept.id)


def _create(cluster: Cluster, recurring: Recurring, recipe: Recipe, *, enabled: bool) -> Kept:
    if recipe.ingest.window_start or recipe.ingest.window_end:
        raise UsageError(
            "the recipe sets a data window of its own, and a schedule's comes from the scheduled time",
            found=f"ingest.window_start={recipe.ingest.window_start}, ingest.window_end={recipe.ingest.window_end}",
            hint="leave both out",
        )
    version: Version = upload(cluster, recipe, schedule=recurring.window(), flow=recurring.flow)
    window = f"{recurring.window_s:.0f} s" if recurring.window_s else "all there is"
    said = f"data window: {window}, up to {recurring.lag_s:.0f} s before the scheduled time"
    told = {**recurring.told, "lag_s": recurring.lag_s, "window_s": recurring.window_s} if recurring.told else {}
    with contextlib.redirect_stdout(io.StringIO()):
        made = cluster.client.create_recurring_run(
            experiment_id(cluster, recurring.experiment),
            recurring.name,
            description=description.write(said, told) if told else said,
            cron_expression=recurring.cron,
            max_concurrency=recurring.at_once,
            no_catchup=not recurring.catch_up,
            params={"scheduled_at": SCHEDULED_TIME},
            pipeline_id=version.pipeline_id,
            version_id=version.version_id,
            enabled=enabled,
            service_account=recurring.account or None,
        )
    return _get(cluster, made.recurring_run_id)


def _wait_until_clear(texts: list[str], zone: str, clock: Callable[[], datetime] | None) -> None:
    """Wait while one of them fires within the next or the last few seconds; not for ever, for one that always does."""
    now = clock or (lambda: datetime.now(UTC))
    deadline = time.monotonic() + 6 * CLEAR_S
    rules = []
    for text in texts:
        with contextlib.suppress(UsageError):  # one that somebody else wrote in words that we do not read
            rules.append(crons.parse(text, zone, seconds_first=True)[0])
    while time.monotonic() < deadline:
        here = now()
        begin, end = here - timedelta(seconds=CLEAR_S // 2, microseconds=1), here + timedelta(seconds=CLEAR_S)
        if all(next(rule.after(begin), end) >= end for rule in rules):
            return
        time.sleep(1)


def _all(cluster: Cluster) -> list[Kept]:
    ours = pipelines(cluster)
    listed = every(
        lambda **page: cluster.client.list_recurring_runs(namespace=cluster.of_all, **page), "recurring_runs"
    )
    return [
        _kept(cluster, each, ours)
        for each in listed
        if each.pipeline_version_reference and each.pipeline_version_reference.pipeline_id in ours
    ]


def _named(cluster: Cluster, name: str) -> list[Kept]:
    """All of a name, newest first: the first is in force."""
    found = [kept for kept in _all(cluster) if kept.name == name]
    return sorted(found, key=lambda kept: (kept.created_at, kept.enabled), reverse=True)  # to the second


def existing(cluster: Cluster, name: str) -> list[Kept]:
    """All of a name, the one in force first.

    Raises:
        UsageError: there is none.
    """
    if found := _named(cluster, name):
        return found
    raise UsageError(
        f"there is no recurring run {name!r}",
        expected="one that is on the cluster",
        found=", ".join(kept.name for kept in listed(cluster)) or "none",
        where=cluster.host,
    )


def _get(cluster: Cluster, id: str) -> Kept:
    found = cluster.client.get_recurring_run(id)
    return _kept(cluster, found, pipelines(cluster))


def _kept(cluster: Cluster, found: Any, ours: dict[str, str]) -> Kept:
    cron = found.trigger.cron_schedule.cron if found.trigger and found.trigger.cron_schedule else ""
    recipe, flow = named(ours.get(found.pipeline_version_reference.pipeline_id, ""))
    return Kept(
        id=found.recurring_run_id,
        name=found.display_name,
        recipe=recipe,
        flow=flow,
        cron=cron,
        enabled=found.status == "ENABLED",
        at_once=int(found.max_concurrency or 1),
        catch_up=not found.no_catchup,
        created_at=found.created_at,
        description=description.sentence(found.description or ""),
        told=description.read(found.description or ""),
        experiment_id=found.experiment_id or "",
        pipeline_id=found.pipeline_version_reference.pipeline_id or "",
        pipeline_version=found.pipeline_version_reference.pipeline_version_id or "",
        url=cluster.page("recurringrun", found.recurring_run_id),
    )


def runs(cluster: Cluster, name: str) -> list[Any]:
    """The runs that a schedule's fire times have had, its backfills included, latest first.

    Raises:
        UsageError: there is none of that name.
    """
    found = existing(cluster, name)
    ids, pipeline_ids = {kept.id for kept in found}, {kept.pipeline_id for kept in found}
    places = dict.fromkeys(kept.experiment_id for kept in found)
    ours = [
        run
        for place in places
        for run in _list(cluster, place)
        if run.recurring_run_id in ids
        or (
            name_of(run) == name
            and run.pipeline_version_reference
            and run.pipeline_version_reference.pipeline_id in pipeline_ids
            and backfilled(run)
        )
    ]
    return sorted(ours, key=lambda run: run.created_at, reverse=True)


def _list(cluster: Cluster, experiment: str) -> list[Any]:
    where = {"experiment_id": experiment} if experiment else {"namespace": cluster.of_all}
    return every(lambda **page: cluster.client.list_runs(**where, **page), "runs", sort_by="created_at desc")


def _runs(cluster: Cluster, kept: Kept) -> list[Any]:
    return [run for run in _list(cluster, kept.experiment_id) if run.recurring_run_id == kept.id]


def _under_way(cluster: Cluster, kept: Kept) -> list[dict[str, Any]]:
    return [told for run in _runs(cluster, kept) if (told := tell(cluster, run))["outcome"] == RUNNING]
