"""What triggers observe of a real source: volume, drift, code; and that a planted change fires once."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.schedules.model import Schedule
from pipelines.schedules.triggers.check import check
from pipelines.schedules.triggers.observation import FOLDER, Observation
from pipelines.steps import STEPS
from rankline.runtime import ledger
from rankline.runtime.step_cache import StepCache, cache_key
from tests.pipelines.schedules.test_daemon import FixedClock, until
from tests.pipelines.schedules.triggers.live_shop import LiveShop
from tests.pipelines.schedules.triggers.test_needs import running

TRAINED = 28  # days


@pytest.fixture
def shop(tmp_path: Path) -> LiveShop:
    return LiveShop(tmp_path)


def observe(shop: LiveShop, schedule: Schedule, day: float) -> dict[str, Observation]:
    """What each trigger observes on a day."""
    return {each.trigger: each for each in check(shop.store, schedule, now=shop.day(day)).observations}


def run_days(
    shop: LiveShop, schedule: Schedule, first: int, last: int, *, events: dict[int, int], cheapest: int = 0
) -> None:
    """Sell, check and let the scheduler fire, day by day; a firing trains on the days so far."""
    clock = FixedClock(shop.day(first))
    with running(shop.workspace, clock) as scheduler:
        for day in range(first, last):
            shop.sell(day, day + 1, events=events.get(day, 300), cheapest=cheapest)
            clock.at, before = shop.day(day + 1), len(shop.firings())
            check(shop.store, schedule, now=clock.at)
            scheduler.tick()
            until(lambda: not scheduler._workers, scheduler)
            for firing in shop.firings()[before:]:
                shop.train(day + 1, trigger=firing.trigger)


@pytest.mark.integration
def test_a_burst_of_events_fires_once(shop: LiveShop) -> None:
    shop.sell(0, 7)
    run = shop.train(7)
    schedule = shop.schedule("events>=100%", day=7)
    run_days(shop, schedule, 7, 12, events=dict.fromkeys(range(7, 12), 30) | {9: 600})
    (firing,) = shop.firings()
    assert firing.instant == shop.day(10)
    assert f"the data of run {run}" in firing.why
    assert firing.why.startswith("events>=100%: ")


@pytest.mark.integration
def test_a_planted_drift_fires_once_and_stable_columns_never(shop: LiveShop) -> None:
    shop.sell(0, TRAINED, events=300)
    shop.train(TRAINED)
    schedule = shop.schedule("drift:price", "drift:category", day=TRAINED)
    run_days(shop, schedule, TRAINED, TRAINED + 2, events={})
    assert shop.firings() == []
    run_days(shop, schedule, TRAINED + 2, TRAINED + 11, events={}, cheapest=20)
    (firing,) = shop.firings()
    assert shop.day(TRAINED + 3) <= firing.instant <= shop.day(TRAINED + 9)
    assert firing.why.startswith("drift:price>=0.2: items.price since run")
    last = observe(shop, schedule, TRAINED + 11)["drift:price>=0.2"]
    assert "14 are needed" in last.why, "the days after the firing are the next reference"


def test_what_cannot_be_observed_says_why_and_stops_no_other(shop: LiveShop) -> None:
    shop.sell(0, 5)
    schedule = shop.schedule("events>=300", "drift:price", "drift:colour", "code", "decay:ndcg@10", "scores in none")
    first = observe(shop, schedule, 5)
    assert first["events>=300"].fires, "without a training all events are new"
    assert "no training yet" in first["drift:price>=0.2"].why
    shop.train(5)
    second = observe(shop, schedule, 6)
    assert second["events>=300"].observed == "0 events"
    assert "whole days to compare with, 14 are needed" in second["drift:price>=0.2"].why
    assert (second["drift:colour>=0.2"].problem, second["drift:price>=0.2"].problem) == (True, False)
    assert "there is no column 'colour'" in second["drift:colour>=0.2"].why
    assert second["decay:ndcg@10>=5%"].why == "no model serves yet"
    assert second["code"].problem, "the cache has no entry of the run"


def test_an_unchanged_source_is_not_read_again_and_training_days_outlive_their_tables(shop: LiveShop) -> None:
    shop.sell(0, 15)
    run = shop.train(15)
    schedule = shop.schedule("drift:price", "events>=9000", day=15)
    before = observe(shop, schedule, 16.2)
    live = shop.store.folder / "shop" / FOLDER / "live.json"
    written = live.stat().st_mtime_ns
    for path in (shop.workspace / "runs" / run / "artifacts").rglob("*.parquet"):
        path.unlink()
    assert observe(shop, schedule, 16.4) == before
    assert live.stat().st_mtime_ns == written
    (shop.store.folder / "shop" / FOLDER / "training.json").unlink()
    without = observe(shop, schedule, 17.5)
    assert without["drift:price>=0.2"].problem
    assert "are gone" in without["drift:price>=0.2"].why
    assert without["events>=9000"].observed == "0 events"


def test_no_text_and_no_id_of_a_user_is_stored(shop: LiveShop) -> None:
    shop.sell(0, 3)
    shop.train(3)
    schedule = shop.schedule("drift:category", "drift:user_id", "drift:events.user_id")
    shop.sell(3, 4)
    observed = observe(shop, schedule, 4)
    assert not observed["drift:category>=0.2"].problem
    for trigger in ("drift:user_id>=0.2", "drift:events.user_id>=0.2"):
        assert "there is no column" in observed[trigger].why
    stored = b"".join(path.read_bytes() for path in (shop.store.folder / "shop" / FOLDER).iterdir())
    assert b"shelf1" not in stored
    assert b"u1" not in stored.replace(b"drift:user_id", b"")


def test_the_newest_run_with_a_verdict_counts(shop: LiveShop) -> None:
    shop.sell(0, 9)
    shop.train(3)
    refused = shop.train(5, outcome="refused")
    shop.train(7, outcome="failed")
    schedule = shop.schedule("events>=9000")
    assert refused in observe(shop, schedule, 9)["events>=9000"].why


def test_new_settings_and_new_code_fire_and_the_window_does_not(
    shop: LiveShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.sell(0, 3)
    folder = shop.workspace / "runs" / shop.train(3)
    entry = ledger.read_entries(folder)["ingest"]
    config = shop.recipe.ingest.model_copy(update={"window_end": shop.day(3).isoformat()})
    key = cache_key("ingest", config, shop.workspace, inputs={}, lineage={"source": "x"}, code=STEPS["ingest"].code)
    cache = StepCache(shop.workspace / "cache" / "ingest")
    with cache.adding(key, {"raw": Path(entry.paths["raw"])}, entry.result, folder.name) as added:
        pass
    ledger.write_entry(folder, entry.model_copy(update={"key": added.folder.name.split(".")[1]}))
    schedule = shop.schedule("code")
    unchanged = observe(shop, schedule, 4)["code"]
    assert (unchanged.fires, unchanged.observed) == (False, "0 steps changed")
    changed = shop.store.update(
        "shop", {"settings": (*schedule.settings, "ingest.max_rejected_share=0.5")}, now=shop.day(4)
    )
    fired = observe(shop, changed, 4)["code"]
    assert fired.fires
    assert "ingest: max_rejected_share: " in fired.why
    monkeypatch.setattr("rankline.runtime.code_digest.of_code", lambda *modules: "another")
    assert "ingest: code changed" in observe(shop, schedule, 4)["code"].why
