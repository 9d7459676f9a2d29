"""Backfill: past fire times, oldest first, a few at once, gone on with when interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines.schedules.backfill import Backfill, BackfillOptions
from pipelines.schedules.firing import Firing
from pipelines.schedules.store import ScheduleStore
from rankline.errors import UsageError
from rankline.notifications import delivery
from tests.pipelines.schedules.fast_scheduler import command
from tests.rankline.notifications.receivers import web_server

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def created(workspace: Path, name: str = "s", **settings: Any) -> ScheduleStore:
    store = ScheduleStore(workspace)
    store.create({"name": name, "recipe": "smoke", "cron": "0 0 3 * * *", "window": "7d"} | settings, now=NOW)
    return store


def backfilled(
    workspace: Path, name: str = "s", *, first: int = 1, end: int = 5, say: Callable[[str], None] = print, **more: Any
) -> list[tuple[int, str, str]]:
    options = BackfillOptions(datetime(2026, 11, first, tzinfo=UTC), datetime(2026, 11, end, tzinfo=UTC), **more)
    results = Backfill(workspace, name, options, now=NOW, command=command, say=say, poll_s=0.02).run()
    return [(each.firing.instant.day, each.status, each.firing.outcome) for each in results]


def test_past_windows_are_run_oldest_first_each_once(tmp_path: Path) -> None:
    store = created(tmp_path)
    assert backfilled(tmp_path) == [(day, "ran", "promoted") for day in (1, 2, 3, 4)]
    assert [stamp[:8] for stamp in (tmp_path / "s.ended").read_text().split()] == [
        "20261101", "20261102", "20261103", "20261104",
    ]  # fmt: skip
    firing = store.firings("s").read(datetime(2026, 11, 3, 3, tzinfo=UTC))
    assert firing is not None
    assert firing.trigger == {
        "schedule": "s",
        "scheduled_at": "2026-11-03T03:00:00+00:00",
        "window_start": "2026-10-27T03:00:00+00:00",
        "window_end": "2026-11-03T03:00:00+00:00",
        "kind": "backfill",
    }
    # given again it does what is left
    assert backfilled(tmp_path, end=6, concurrency=3) == [
        *((day, "done before", "promoted") for day in (1, 2, 3, 4)), (5, "ran", "promoted"),
    ]  # fmt: skip
    assert len((tmp_path / "s.ended").read_text().split()) == 5


def test_no_more_than_asked_for_are_active(tmp_path: Path) -> None:
    created(tmp_path)
    lines: list[str] = []
    backfilled(tmp_path, end=7, concurrency=2, say=lines.append)
    active = most = 0
    for line in lines:
        active += 1 if "started" in line else -1
        most = max(most, active)
    assert most == 2


def test_failed_and_interrupted_firings_run_again(tmp_path: Path) -> None:
    store = created(tmp_path, "fails")
    assert backfilled(tmp_path, "fails", end=2) == [(1, "ran", "failed")]
    assert backfilled(tmp_path, "fails", end=2) == [(1, "ran", "failed")]
    assert len((tmp_path / "fails.ended").read_text().split()) == 2
    firings, instant = store.firings("fails"), datetime(2026, 11, 2, 3, tzinfo=UTC)
    firings.create(Firing("fails", instant.isoformat(), None, instant.isoformat(), "backfill", 1, "", status="running"))
    assert backfilled(tmp_path, "fails", first=2, end=3) == [(2, "ran", "failed")]
    # somebody is at work on it
    firings.write(firings.read(instant).replace(status="running"))  # type: ignore[union-attr]
    with firings.lock(instant):
        assert backfilled(tmp_path, "fails", first=2, end=3) == [(2, "under way elsewhere", "failed")]


def test_a_failed_firing_reruns_with_the_corrected_schedule(tmp_path: Path) -> None:
    store = created(tmp_path, "fails", scratch_every=2)
    assert backfilled(tmp_path, "fails", end=2) == [(1, "ran", "failed")]
    instant = datetime(2026, 11, 1, 3, tzinfo=UTC)
    firings = store.firings("fails")
    firings.write(firings.read(instant).replace(scratch=True))  # type: ignore[union-attr]
    store.update("fails", {"window": "3d", "lag": "1d", "settings": ("finetune.epochs=1",)}, now=NOW)
    backfilled(tmp_path, "fails", end=2)
    firing = firings.read(instant)
    assert firing is not None
    assert (firing.revision, firing.scratch) == (2, None)
    assert (firing.window_start, firing.window_end) == ("2026-10-28T03:00:00+00:00", "2026-10-31T03:00:00+00:00")
    # one that was interrupted goes on as it began
    store.update("fails", {"window": "5d"}, now=NOW)
    firings.write(firing.replace(status="running"))
    backfilled(tmp_path, "fails", end=2)
    assert firings.read(instant).revision == 2  # type: ignore[union-attr]


def test_a_run_that_dies_silently_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    store = created(tmp_path, "dies")
    assert backfilled(tmp_path, "dies", end=2) == [(1, "ran", "failed")]
    (firing,) = store.firings("dies").all()
    assert "its last log line: I was here" in firing.error


def test_refused_as_older_it_runs_again_where_older_is_allowed(tmp_path: Path) -> None:
    store = created(tmp_path)
    firings, instant = store.firings("s"), datetime(2026, 11, 1, 3, tzinfo=UTC)
    ended = {"status": "ended", "outcome": "refused", "exit_code": 3, "run": "r"}
    firings.create(Firing("s", instant.isoformat(), None, instant.isoformat(), "scheduled", 1, "").replace(**ended))
    assert backfilled(tmp_path, end=2) == [(1, "done before", "refused")]
    assert backfilled(tmp_path, end=2, allow_older_window=True) == [(1, "ran", "promoted")]
    (firing,) = firings.all()
    assert firing.allow_older_window
    arguments = store.get("s").run_settings(instant, allow_older_window=firing.allow_older_window)
    assert "decide.allow_older_window=true" in arguments


def test_a_stretch_that_is_none_is_refused(tmp_path: Path) -> None:
    created(tmp_path)
    with pytest.raises(UsageError, match="ends in the past"):
        backfilled(tmp_path, end=30)
    with pytest.raises(UsageError, match="--from is later"):
        backfilled(tmp_path, first=3, end=2)
    with pytest.raises(UsageError, match="no fire time in this period"):
        backfilled(tmp_path, first=2, end=2)
    created(tmp_path, "often", cron="* * * * * *")
    with pytest.raises(UsageError, match="more than 10000"):
        backfilled(tmp_path, "often")
    created(tmp_path, "items", flow="refresh")
    with pytest.raises(UsageError, match="nothing to backfill"):
        backfilled(tmp_path, "items")
    assert not ScheduleStore(tmp_path).firings("items").all()
    created(tmp_path, "gone", directory=str(tmp_path / "gone"))
    with pytest.raises(UsageError, match="cannot be started in the schedule's folder"):
        backfilled(tmp_path, "gone")


def test_a_webhook_hears_of_what_failed_and_of_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_HEADERS", '{"Authorization": "Bearer s3cret"}')
    monkeypatch.setattr(delivery, "BACKOFF_S", 0.01)
    lines: list[str] = []
    with web_server([503, 200]) as (url, received):
        hook = {"webhook": url, "webhook_headers": "HOOK_HEADERS"}
        store = created(tmp_path, "fails", flow="features", **hook)
        created(tmp_path, "good", **hook)
        created(tmp_path, "silent-fails")
        assert backfilled(tmp_path, "good", end=3) == [(1, "ran", "promoted"), (2, "ran", "promoted")]
        assert received == []
        backfilled(tmp_path, "fails", end=3, concurrency=2, say=lines.append)
        backfilled(tmp_path, "silent-fails", end=2)
    assert len(received) == 3, "two failures, one of them sent twice since the first answer was a 503"
    bodies = [json.loads(each.body) for each in received]
    body = bodies[0]
    assert received[0].headers["authorization"] == "Bearer s3cret"
    assert {each["scheduled_at"][:10] for each in bodies} == {"2026-11-01", "2026-11-02"}
    assert (body["event"], body["kind"], body["flow"]) == ("run failed", "backfill", "features")
    assert (body["outcome"], body["exit_code"]) == ("failed", 1)
    assert "the loss is no number" in body["error"]
    assert [firing.notified for firing in store.firings("fails").all()] == ["delivered"] * 2
    assert [firing.notified for firing in ScheduleStore(tmp_path).firings("silent-fails").all()] == ["not asked for"]
    assert sum(": delivered" in line for line in lines) == 2


def test_a_refused_model_is_notified_once_where_that_was_requested(tmp_path: Path) -> None:
    with web_server([200]) as (url, received):
        store = created(tmp_path, webhook=url, webhook_on_refusal=True)
        instant = datetime(2026, 11, 1, 3, tzinfo=UTC)
        ended = {"status": "ended", "outcome": "refused", "exit_code": 3, "run": "r"}
        firing = Firing("s", instant.isoformat(), None, instant.isoformat(), "backfill", 1, "").replace(**ended)
        store.firings("s").create(firing)  # by a backfill that was killed before it could tell
        assert backfilled(tmp_path, end=2) == [(1, "done before", "refused")]
        assert backfilled(tmp_path, end=2) == [(1, "done before", "refused")]
    assert [json.loads(each.body)["event"] for each in received] == ["model refused"]


def test_an_unanswered_webhook_is_recorded_and_fails_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "BACKOFF_S", 0.01)
    store = created(tmp_path, "fails", webhook="http://127.0.0.1:9/")
    assert backfilled(tmp_path, "fails", end=2) == [(1, "ran", "failed")]
    (firing,) = store.firings("fails").all()
    assert firing.notified.startswith("not delivered")
