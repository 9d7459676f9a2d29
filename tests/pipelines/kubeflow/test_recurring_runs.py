"""Recurring runs of a cluster: cron, the scheduled time on its way into ingest, and a change without harm."""

# ruff: noqa: F811 (fixtures are asked for by their name)
from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from components.ingest.config import IngestConfig
from components.ingest.window import with_scheduled_window
from pipelines.kubeflow import recurring_runs as module
from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.recurring_runs import (
    RecurringRunSpec,
    create,
    delete,
    delete_superseded,
    find_all,
    list_active,
    list_runs,
    pause,
    resume,
    update,
)
from pipelines.kubeflow.runs import ClusterRuns, follow
from pipelines.schedules import cron as crons
from rankline.errors import UsageError
from tests.pipelines import golden
from tests.pipelines.kubeflow.kubeflow_world import cluster, compiled_once, kubeflow, nothing_of_ours  # noqa: F401
from tests.servers.kubeflow import Kubeflow, cron

MORNING = datetime(2026, 11, 2, 3, 0, 0, tzinfo=UTC)
NOON = datetime(2026, 11, 2, 12, 0, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def recipe() -> Any:
    return golden.pinned("smoke")


def nightly(**settings: Any) -> RecurringRunSpec:
    return RecurringRunSpec(**{"name": "nightly", "cron": "0 0 3 * * *", "window": "1d", **settings})


def change(cluster: Cluster, recipe: Any, **settings: Any) -> Any:
    return update(cluster, nightly(**settings), recipe, settle_s=0, clock=lambda: NOON)


# cron


@pytest.mark.parametrize(
    "text",
    ["0 3 * * 1", "0 3 * *", "0 0 3 * * * *", "@daily", "60 0 3 * * *", "0 0 24 * * *", "0 0 3 0 * *", "0 0 3 * 13 *",
     "0 0 3 * * 7", "0 0 5-3 * * *", "0 */0 * * * *", "0 0 3 * * MONDAY", "0 0 3 L * *", "0 0 -1 * * *", "", "x y z"],
)  # fmt: skip
def test_a_cron_that_is_not_six_sound_fields_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        nightly(cron=text)


def test_five_fields_are_refused_with_the_six_to_write() -> None:
    with pytest.raises(ValidationError, match="write '0 0 3 \\* \\* 1'"):
        nightly(cron="0 3 * * 1")
    cron("0 3 * * 1")  # the server takes it, and means something else


def test_what_is_taken_here_is_taken_there() -> None:
    draw = random.Random(4)

    def one(low: int, high: int) -> str:
        a, b = sorted((draw.randint(low, high), draw.randint(low, high)))
        forms = ["*", f"{a}", f"{a}-{b}", f"{a},{b}", f"*/{draw.randint(1, 20)}", f"{a}/{draw.randint(1, 20)}", "?"]
        return draw.choice([*forms, f"{high + 1}", f"{b + 1}-{a}", "x", f"{a}/0"] if draw.random() < 0.3 else forms)

    taken = refused = 0
    for _ in range(400):
        text = " ".join(one(low, high) for low, high in crons._BOUNDS)
        try:
            parsed = RecurringRunSpec(name="a", cron=text).cron
        except ValidationError:
            refused += 1
        else:
            cron(text)
            cron(parsed)
            taken += 1
    assert taken > 50
    assert refused > 50


# the scheduled time


@pytest.mark.slow
@pytest.mark.parametrize("macros", [True, False])
def test_the_scheduled_time_reaches_ingest(
    kubeflow: Kubeflow, cluster: Cluster, recipe: Any, tmp_path: Path, macros: bool
) -> None:
    kubeflow.api.macros = macros
    create(cluster, nightly(), recipe)
    (run,) = kubeflow.api.tick(MORNING)
    body = kubeflow.api.runs[run]
    version = kubeflow.api.versions[body["pipeline_version_reference"]["pipeline_version_id"]]["pipeline_spec"]
    inputs = version["pipeline_spec"]["components"]["comp-exit-handler-1"]["dag"]["tasks"]["ingest"]["inputs"][
        "parameters"
    ]
    assert inputs["scheduled_at"] == {"componentInputParameter": "pipelinechannel--scheduled_at"}
    assert inputs["schedule_time"]["runtimeValue"]["constant"] == "{{$.pipeline_job_schedule_time_utc}}"
    # the arguments of the component, with the placeholder as a driver fills it in
    assert body["runtime_config"]["parameters"]["scheduled_at"] == "[[ScheduledTime]]"  # the API shows what was given
    scheduled_times = (kubeflow.api.arguments[run]["scheduled_at"], MORNING.strftime("%Y-%m-%dT%H:%M:%SZ"))
    assert (scheduled_times[0] == "20261102030000") is macros
    schedule = inputs["run"]["runtimeValue"]["constant"]["schedule"]
    config = with_scheduled_window(IngestConfig(source="/data"), schedule, scheduled_times, tmp_path)
    assert (config.window_start, config.window_end) == ("2026-11-01T03:00:00+00:00", "2026-11-02T03:00:00+00:00")
    assert ClusterRuns(cluster).show(run)["trigger"]["scheduled_at"] == "2026-11-02T03:00:00+00:00"
    assert follow(cluster, run, poll_s=0)["outcome"] == "promoted"


def test_a_run_begun_by_hand_has_no_such_parameter(kubeflow: Kubeflow, cluster: Cluster, recipe: Any) -> None:
    from pipelines.kubeflow.packages import upload
    from pipelines.kubeflow.runs import submit

    created = create(cluster, nightly(), recipe)
    by_hand = upload(cluster, recipe)
    assert by_hand.version_id != created.pipeline_version
    assert "scheduled_at" not in str(
        kubeflow.api.versions[by_hand.version_id]["pipeline_spec"]["pipeline_spec"]["root"]
    )
    submit(cluster, by_hand)


def test_a_recipe_with_a_window_of_its_own_is_refused(cluster: Cluster) -> None:
    with pytest.raises(UsageError, match="sets a data window of its own"):
        create(cluster, nightly(), golden.pinned("smoke", "ingest.window_end=2026-01-01"))


# recurring runs of the cluster


def test_create_list_show_pause_resume_delete(kubeflow: Kubeflow, cluster: Cluster, recipe: Any) -> None:
    created = create(cluster, nightly(max_concurrency=2), recipe)
    assert (created.name, created.recipe, created.cron, created.enabled, created.max_concurrency) == (
        "nightly",
        "smoke",
        "0 0 3 * * *",
        True,
        2,
    )
    assert not created.catch_up
    with pytest.raises(UsageError, match="already a recurring run 'nightly'"):
        create(cluster, nightly(), recipe)
    assert list_active(cluster) == [created]
    assert not pause(cluster, "nightly").enabled
    assert kubeflow.api.tick(MORNING) == []
    assert resume(cluster, "nightly").enabled
    runs = kubeflow.api.tick(MORNING) + kubeflow.api.tick(MORNING.replace(day=3))
    assert kubeflow.api.tick(MORNING.replace(day=4)) == []  # two are under way
    assert [each.id for each in find_all(cluster, "nightly")] == [created.id]
    assert [run.run_id for run in list_runs(cluster, "nightly")] == runs[::-1]
    for run in runs:
        follow(cluster, run, poll_s=0)
    delete(cluster, "nightly")
    assert list_active(cluster) == []
    with pytest.raises(UsageError, match="there is no recurring run 'nightly'"):
        find_all(cluster, "nightly")


def test_delete_does_not_end_a_run_unasked(kubeflow: Kubeflow, cluster: Cluster, recipe: Any) -> None:
    create(cluster, nightly(), recipe)
    (run,) = kubeflow.api.tick(MORNING)
    with pytest.raises(UsageError, match=run):
        delete(cluster, "nightly")
    assert kubeflow.api.runs[run]["state"] not in ("FAILED", "CANCELED")
    assert [created.enabled for created in list_active(cluster)] == [False]
    delete(cluster, "nightly", with_runs=True)
    assert kubeflow.api.runs[run]["state"] == "FAILED"


def test_a_change_ends_no_run_and_misses_no_time(kubeflow: Kubeflow, cluster: Cluster, recipe: Any) -> None:
    old = create(cluster, nightly(), recipe)
    (run,) = kubeflow.api.tick(MORNING)
    new, remaining = change(cluster, recipe, cron="0 0 4 * * *")
    assert [created.id for created in remaining] == [old.id]
    assert kubeflow.api.recurring[old.id]["status"] == "DISABLED"
    assert new.enabled
    assert new.cron == "0 0 4 * * *"
    assert list_active(cluster) == [new]
    (second,) = kubeflow.api.tick(MORNING.replace(hour=4))
    assert kubeflow.api.runs[second]["recurring_run_id"] == new.id
    assert follow(cluster, run, poll_s=0)["outcome"] == "promoted"
    assert delete_superseded(cluster, "nightly") == []
    assert set(kubeflow.api.recurring) == {new.id}
    # enabled before the old one was disabled: there is no moment at which neither is
    asked = [
        each.split("/")[-1].split(":")[-1] for each in kubeflow.api.asked if each.endswith((":enable", ":disable"))
    ]
    assert asked == ["enable", "disable"]


def test_a_change_with_nothing_under_way_leaves_one(kubeflow: Kubeflow, cluster: Cluster, recipe: Any) -> None:
    create(cluster, nightly(), recipe)
    new, remaining = change(cluster, recipe, max_concurrency=3)
    assert remaining == []
    assert set(kubeflow.api.recurring) == {new.id}
    assert new.max_concurrency == 3
    assert "data window: 1d," in new.description
    assert new.metadata == {}  # `rankline schedule` did not make it


def test_a_change_that_is_refused_leaves_the_old_one(kubeflow: Kubeflow, cluster: Cluster, recipe: Any) -> None:
    old = create(cluster, nightly(), recipe)
    with pytest.raises(UsageError):
        update(cluster, nightly(), golden.pinned("smoke", "ingest.window_end=2026-01-01"), settle_s=0)
    assert list_active(cluster) == [old]
    with pytest.raises(UsageError, match="there is no recurring run 'weekly'"):
        update(cluster, nightly(name="weekly"), recipe, settle_s=0)


def test_a_change_keeps_clear_of_the_times_at_which_it_fires(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    instants = iter([MORNING.replace(second=second) for second in (0, 1, 2, 3, 4, 5, 6, 7)])
    monkeypatch.setattr(module.time, "sleep", slept.append)
    module._wait_until_clear(["0 0 3 * * *"], "UTC", lambda: next(instants))
    assert len(slept) == 6  # until the time has been past for more than five seconds
    before = iter([MORNING.replace(hour=2, minute=59, second=55), NOON])
    module._wait_until_clear(["0 0 3 * * *"], "UTC", lambda: next(before))
    assert len(slept) == 7


def test_a_change_that_stopped_half_way_is_put_right_by_the_next(
    kubeflow: Kubeflow, cluster: Cluster, recipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(cluster, nightly(), recipe)

    def killed(*given: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(cluster.client, "disable_recurring_run", killed)
        with pytest.raises(KeyboardInterrupt):
            change(cluster, recipe, max_concurrency=3)
    assert [created["status"] for created in kubeflow.api.recurring.values()] == ["ENABLED", "ENABLED"]
    new, remaining = change(cluster, recipe, max_concurrency=3)
    assert remaining == []
    assert set(kubeflow.api.recurring) == {new.id}
