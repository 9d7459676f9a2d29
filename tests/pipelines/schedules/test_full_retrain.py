"""Every N-th run of a schedule trains from scratch, whatever happens to its processes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.schedules.firings import Claim
from pipelines.schedules.full_retrain import from_scratch, take_turn
from pipelines.schedules.store import Schedules

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def claim(day: int, *, exit_code: int | None = 0, scratch: bool | None = False) -> Claim:
    at = (NOW + timedelta(days=day)).isoformat()
    return Claim(
        schedule="nightly", scheduled_at=at, window_start=None, window_end=at, kind="scheduled", revision=1,
        claimed_at=at, exit_code=exit_code, status="running" if exit_code is None else "ended",
        ended_at=at, scratch=scratch,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("every", "before", "expected"),
    [
        (0, [claim(day) for day in range(9)], False),
        (1, [], True),
        (3, [], False),
        (3, [claim(1)], False),
        (3, [claim(1), claim(2)], True),
        (3, [claim(1), claim(2), claim(3, scratch=True)], False),
        (3, [claim(1), claim(2), claim(3, scratch=True), claim(4), claim(5)], True),
        (3, [claim(1), claim(2, exit_code=1)], False),  # one that failed is no finished one
        (3, [claim(1), claim(2, exit_code=None)], False),
        (3, [claim(1), claim(2, exit_code=3)], True),  # a refusal is a verdict
        (3, [claim(1), claim(2), claim(3, exit_code=1, scratch=True)], True),  # a failed turn is made up for
        (3, [claim(1), claim(2), claim(3, exit_code=None, scratch=True)], False),  # somebody is taking the turn
        (1, [claim(1, exit_code=None, scratch=True)], True),
        (3, [claim(1, scratch=None), claim(2, scratch=None)], True),  # of a time when nobody took turns
    ],
)
def test_every_nth_is_from_scratch(every: int, before: list[Claim], expected: bool) -> None:
    assert from_scratch(before, every=every) is expected


def test_turns_are_taken_once_and_kept_in_the_claim(tmp_path: Path) -> None:
    store = Schedules(tmp_path)
    store.create({"name": "nightly", "recipe": "smoke", "cron": "0 0 3 * * *", "scratch_every": 3}, now=NOW)
    claims = store.claims("nightly")
    told = []
    for day in range(1, 8):
        each = claim(day, exit_code=None, scratch=None)
        claims.make(each)
        take_turn(store, "nightly", each.moment)
        take_turn(store, "nightly", each.moment)  # it was killed, and begins again
        kept = claims.read(each.moment)
        assert kept is not None
        told.append(kept.scratch)
        claims.write(kept.but(status="ended", exit_code=0, ended_at=kept.scheduled_at))
        claims.file_away(f"{each.moment:%Y%m%dT%H%M%SZ}")  # old ones count as well
    assert told == [False, False, True, False, False, True, False]


def test_of_three_begun_together_one_trains_from_scratch(tmp_path: Path) -> None:
    store = Schedules(tmp_path)
    store.create({"name": "nightly", "recipe": "smoke", "cron": "0 0 3 * * *", "scratch_every": 3}, now=NOW)
    claims = store.claims("nightly")
    for day in (1, 2):
        claims.make(claim(day))
    together = [claim(day, exit_code=None, scratch=None) for day in (3, 4, 5)]
    for each in together:
        claims.make(each)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda each: take_turn(store, "nightly", each.moment), together))
    found = [claims.read(each.moment) for each in together]
    assert sorted(each.scratch for each in found if each and each.scratch is not None) == [False, False, True]


def test_one_that_was_interrupted_for_good_stops_no_turns() -> None:
    """It counts where it began: a backfill that nobody gives again does not end them."""
    lost = claim(3, exit_code=None, scratch=True).but(started_at=(NOW + timedelta(days=3)).isoformat())
    assert not from_scratch([claim(1), claim(2), lost, claim(4)], every=3)
    assert from_scratch([claim(1), claim(2), lost, claim(4), claim(5)], every=3)


def test_a_schedule_without_turns_takes_none(tmp_path: Path) -> None:
    store = Schedules(tmp_path)
    store.create({"name": "nightly", "recipe": "smoke", "cron": "0 0 3 * * *"}, now=NOW)
    store.claims("nightly").make(claim(1, exit_code=None, scratch=None))
    take_turn(store, "nightly", claim(1).moment)
    assert store.claims("nightly").read(claim(1).moment) == claim(1, exit_code=None, scratch=None)
