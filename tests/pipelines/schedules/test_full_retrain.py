"""Every N-th run of a schedule trains from scratch, whatever happens to its processes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.schedules.firing import Firing
from pipelines.schedules.full_retrain import full_retrain_due, record_full_retrain
from pipelines.schedules.store import ScheduleStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def firing(day: int, *, exit_code: int | None = 0, scratch: bool | None = False) -> Firing:
    at = (NOW + timedelta(days=day)).isoformat()
    return Firing(
        schedule="nightly", scheduled_at=at, window_start=None, window_end=at, kind="scheduled", revision=1,
        claimed_at=at, exit_code=exit_code, status="running" if exit_code is None else "ended",
        ended_at=at, scratch=scratch,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("every", "before", "expected"),
    [
        (0, [firing(day) for day in range(9)], False),
        (1, [], True),
        (3, [], False),
        (3, [firing(1)], False),
        (3, [firing(1), firing(2)], True),
        (3, [firing(1), firing(2), firing(3, scratch=True)], False),
        (3, [firing(1), firing(2), firing(3, scratch=True), firing(4), firing(5)], True),
        (3, [firing(1), firing(2, exit_code=1)], False),  # one that failed is no finished one
        (3, [firing(1), firing(2, exit_code=None)], False),
        (3, [firing(1), firing(2, exit_code=3)], True),  # a refusal is a verdict
        (3, [firing(1), firing(2), firing(3, exit_code=1, scratch=True)], True),  # a failed full retrain is repeated
        (3, [firing(1), firing(2), firing(3, exit_code=None, scratch=True)], False),  # one is active
        (1, [firing(1, exit_code=None, scratch=True)], True),
        (3, [firing(1, scratch=None), firing(2, scratch=None)], True),  # of a version without full retrains
    ],
)
def test_every_nth_is_from_scratch(every: int, before: list[Firing], expected: bool) -> None:
    assert full_retrain_due(before, every=every) is expected


def test_it_is_decided_once_and_recorded_in_the_firing(tmp_path: Path) -> None:
    store = ScheduleStore(tmp_path)
    store.create({"name": "nightly", "recipe": "smoke", "cron": "0 0 3 * * *", "scratch_every": 3}, now=NOW)
    firings = store.firings("nightly")
    decisions = []
    for day in range(1, 8):
        each = firing(day, exit_code=None, scratch=None)
        firings.create(each)
        record_full_retrain(store, "nightly", each.instant)
        record_full_retrain(store, "nightly", each.instant)  # it was killed, and begins again
        current = firings.read(each.instant)
        assert current is not None
        decisions.append(current.scratch)
        firings.write(current.replace(status="ended", exit_code=0, ended_at=current.scheduled_at))
        firings.archive(f"{each.instant:%Y%m%dT%H%M%SZ}")  # old ones count as well
    assert decisions == [False, False, True, False, False, True, False]


def test_of_three_begun_together_one_trains_from_scratch(tmp_path: Path) -> None:
    store = ScheduleStore(tmp_path)
    store.create({"name": "nightly", "recipe": "smoke", "cron": "0 0 3 * * *", "scratch_every": 3}, now=NOW)
    firings = store.firings("nightly")
    for day in (1, 2):
        firings.create(firing(day))
    together = [firing(day, exit_code=None, scratch=None) for day in (3, 4, 5)]
    for each in together:
        firings.create(each)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda each: record_full_retrain(store, "nightly", each.instant), together))
    recorded = [firings.read(each.instant) for each in together]
    assert sorted(each.scratch for each in recorded if each and each.scratch is not None) == [False, False, True]


def test_one_that_was_interrupted_for_good_stops_no_full_retrains() -> None:
    """It counts from its start: a backfill that nobody repeats does not end them."""
    lost = firing(3, exit_code=None, scratch=True).replace(started_at=(NOW + timedelta(days=3)).isoformat())
    assert not full_retrain_due([firing(1), firing(2), lost, firing(4)], every=3)
    assert full_retrain_due([firing(1), firing(2), lost, firing(4), firing(5)], every=3)


def test_a_schedule_without_full_retrains_records_none(tmp_path: Path) -> None:
    store = ScheduleStore(tmp_path)
    store.create({"name": "nightly", "recipe": "smoke", "cron": "0 0 3 * * *"}, now=NOW)
    store.firings("nightly").create(firing(1, exit_code=None, scratch=None))
    record_full_retrain(store, "nightly", firing(1).instant)
    assert store.firings("nightly").read(firing(1).instant) == firing(1, exit_code=None, scratch=None)
