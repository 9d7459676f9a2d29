"""Schedules: windows, revisions, the fire times of each revision, and firings."""

from __future__ import annotations

import itertools
import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.schedules.daemon import select_due
from pipelines.schedules.firing import Firing
from pipelines.schedules.firings import Firings
from pipelines.schedules.model import Schedule, due, validate_schedule
from pipelines.schedules.store import ScheduleStore
from pipelines.schedules.worker import flow_runner
from rankline.errors import RanklineError, UsageError
from tests.cli.in_process import rankline, refused

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def schedule(**settings: Any) -> Schedule:
    return validate_schedule({"name": "s", "recipe": "smoke", "cron": "0 0 3 * * *"} | settings)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def make(store: ScheduleStore, name: str = "s", now: datetime = NOON, **settings: Any) -> Schedule:
    return store.create({"name": name, "recipe": "smoke", "cron": "0 0 3 * * *"} | settings, now=now)


def firing_of(instant: datetime, name: str = "s") -> Firing:
    return Firing(name, instant.isoformat(), None, instant.isoformat(), "scheduled", 1, instant.isoformat())


# -- the window of the data ----------------------------------------------------------------------------------


def test_the_window_comes_from_the_scheduled_time() -> None:
    one = schedule(window="30d", lag="6h")
    assert one.window_of(at("2026-11-22T03:00")) == (at("2026-10-22T21:00"), at("2026-11-21T21:00"))
    assert schedule().window_of(at("2026-11-22T03:00")) == (None, at("2026-11-22T03:00"))
    assert one.run_settings(at("2026-11-22T03:00")) == [
        "ingest.window_end=2026-11-21T21:00:00+00:00",
        "ingest.window_start=2026-10-22T21:00:00+00:00",
    ]
    assert schedule().run_settings(NOON, allow_older_window=True)[-1] == "decide.allow_older_window=true"


def test_the_windows_of_a_daily_schedule_meet_when_the_clocks_change() -> None:
    for begin in ("2026-03-26T12:00", "2026-10-22T12:00"):
        daily = schedule(cron="0 30 2 * * *", zone="Europe/Berlin", window="1d")
        instants = [next(daily.rule.after(at(begin)))]
        for _ in range(5):
            instants.append(next(daily.rule.after(instants[-1])))
        windows = [daily.window_of(each) for each in instants]
        lengths = {window.end - window.start for window in windows if window.start}
        # where 02:30 is jumped over the window reaches back to 02:00 of the day before
        overlaps = [a.end - b.start for a, b in itertools.pairwise(windows) if b.start]
        assert set(overlaps) <= {timedelta(0), timedelta(minutes=30)}
        assert lengths > {timedelta(hours=24)}


def test_hours_of_a_window_are_time_that_passes() -> None:
    hourly = schedule(cron="0 0 * * * *", zone="Europe/Berlin", window="1h")
    window = hourly.window_of(at("2026-10-25T01:00"))
    assert window == (at("2026-10-25T00:00"), at("2026-10-25T01:00"))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"name": "Not This"}, "name"),
        ({"cron": "0 3 * * *"}, "the second, is missing"),
        ({"zone": "Mars/Olympus"}, "no time zone"),
        ({"window": "a month"}, "a number and a unit"),
        ({"window": "0d"}, "zero length"),
        ({"lag": "-3h"}, "a number and a unit"),
        ({"catch_up": "some"}, "catch_up"),
        ({"catch_up_limit": 0}, "catch_up_limit"),
        ({"max_runs": 0}, "max_runs"),
        ({"cron": "0 */5 * * * *", "jitter_s": 300}, "reaches the next fire time"),
        ({"settings": ["ingest.window_end=2026-01-01"]}, "comes from the scheduled time"),
        ({"webhook": "ftp://here"}, "http"),
        ({"webhook": "https://me:secret@here.example"}, "webhook_headers"),
        ({"window": "99999999d"}, "a hundred years"),
        ({"window": "9" * 5000 + "d"}, "a hundred years"),
        ({"lag": "99999999w"}, "a hundred years"),
        ({"windows": "30d"}, "Extra inputs"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError) as refusal:
        schedule(**settings)
    assert expected in str(refusal.value)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"webhook_headers": "Authorization: Bearer s3cret"}, "name of an environment variable"),
        ({"webhook_headers": '{"Authorization": "s3cret"}'}, "name of an environment variable"),
        ({"webhook": "https://s3cret@here.example/"}, "without a user"),
        ({"webhook": "https://me:s3cret@here.example"}, "webhook_headers"),
        ({"webhook": "Bearer s3cret"}, "http"),
    ],
)
def test_a_secret_in_the_settings_is_neither_stored_nor_printed(
    tmp_path: Path, settings: dict[str, Any], expected: str
) -> None:
    store = ScheduleStore(tmp_path)
    with pytest.raises(UsageError) as refusal:
        make(store, **settings)
    assert expected in str(refusal.value)
    assert "s3cret" not in str(refusal.value)
    assert not list(tmp_path.rglob("*.json"))
    assert make(store, webhook="https://here.example", webhook_headers="HOOK_HEADERS").revision == 1


def test_the_jitter_of_a_fire_time_is_its_own_and_always_the_same() -> None:
    jittered, same, other = schedule(jitter_s=600), schedule(jitter_s=600), schedule(name="t", jitter_s=600)
    instants = [at("2026-11-01T03:00") + timedelta(days=day) for day in range(200)]
    delays = [(jittered.earliest_start(each) - each).total_seconds() for each in instants]
    assert delays == [(same.earliest_start(each) - each).total_seconds() for each in instants]
    assert 0 <= min(delays) < 60
    assert 540 < max(delays) <= 600
    assert delays != [(other.earliest_start(each) - each).total_seconds() for each in instants]
    assert jittered.window_of(instants[0]) == schedule().window_of(instants[0])


# -- revisions -------------------------------------------------------------------------------------------------


def test_each_fire_time_belongs_to_the_revision_in_force_at_it(tmp_path: Path) -> None:
    store = ScheduleStore(tmp_path)
    make(store)
    store.update("s", {"cron": "0 0 5 * * *", "window": "7d"}, now=NOON + timedelta(days=2))
    store.update("s", {"paused": True}, now=NOON + timedelta(days=4))
    store.update("s", {"paused": False}, now=NOON + timedelta(days=6))
    store.delete("s", now=NOON + timedelta(days=8))
    results = [
        (each.scheduled_at.strftime("%d %H"), each.schedule.revision) for each in due(store.history("s"), after=NOON)
    ]
    assert results == [("02 03", 1), ("03 03", 1), ("04 05", 2), ("05 05", 2), ("08 05", 4), ("09 05", 4)]
    since = due(store.history("s"), after=at("2026-11-04T05:00"), until=at("2026-11-08T05:00"))
    assert [each.scheduled_at.day for each in since] == [5, 8]


def test_every_revision_is_stored_and_the_latest_is_unpacked(tmp_path: Path) -> None:
    store = ScheduleStore(tmp_path)
    assert (make(store).revision, store.names()) == (1, ["s"])
    assert store.update("s", {"max_runs": 2}, now=NOON).revision == 2
    assert store.update("s", {"max_runs": 2}, now=NOON).revision == 2, "nothing changed"
    assert [each.max_runs for each in ScheduleStore(tmp_path).history("s")] == [1, 2]
    assert json.loads((tmp_path / "schedules/s.json").read_text())["revision"] == 2
    with pytest.raises(UsageError, match="already"):
        make(store)
    store.delete("s", now=NOON)
    assert (store.names(), (tmp_path / "schedules/s.json").exists()) == ([], False)
    with pytest.raises(UsageError, match="was deleted"):
        store.get("s")
    assert make(store).revision == 4
    with pytest.raises(UsageError, match="no schedule 't'"):
        store.update("t", {"max_runs": 2}, now=NOON)
    assert not (tmp_path / "schedules/t").exists()


def test_of_two_changes_at_once_one_is_shown(tmp_path: Path) -> None:
    store = ScheduleStore(tmp_path)
    make(store)
    other = ScheduleStore(tmp_path)
    stale = other.history("s")
    store.update("s", {"max_runs": 2}, now=NOON)
    with pytest.raises(UsageError, match="at the same time"):
        other._commit(stale[-1].model_dump() | {"max_runs": 3}, stale, now=NOON)
    assert [path.name for path in sorted((tmp_path / "schedules/s/revisions").iterdir())] == ["0001.json", "0002.json"]


def test_a_clock_that_is_set_back_does_not_reorder_revisions(tmp_path: Path) -> None:
    store = ScheduleStore(tmp_path)
    make(store)
    assert store.update("s", {"max_runs": 2}, now=NOON - timedelta(days=1)).effective_from == NOON


def test_a_damaged_revision_is_shown(tmp_path: Path) -> None:
    make(ScheduleStore(tmp_path))
    (tmp_path / "schedules/s/revisions/0001.json").write_text("{")
    with pytest.raises(RanklineError, match="cannot be read"):
        ScheduleStore(tmp_path).get("s")


# -- firings ------------------------------------------------------------------------------------------------------


def test_of_many_who_take_a_fire_time_one_gets_it(tmp_path: Path) -> None:
    firings, won = Firings(tmp_path), []
    threads = [
        threading.Thread(target=lambda: won.append(firings.create(firing_of(NOON)))) for _ in range(16)
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 15 + [True]
    assert [path.name for path in (tmp_path / "claims").iterdir()] == ["20261101T120000Z.json"]


def test_only_one_process_runs_a_firing(tmp_path: Path) -> None:
    firings = Firings(tmp_path)
    firings.create(firing_of(NOON))
    assert not firings.is_running(NOON)
    with firings.lock(NOON):
        assert firings.is_running(NOON)
        with pytest.raises(TimeoutError), firings.lock(NOON, timeout_s=0.1):
            pass
    assert not firings.is_running(NOON)


def test_coalescing_takes_the_latest_and_notes_the_others(tmp_path: Path) -> None:
    store = ScheduleStore(tmp_path)
    make(store)
    firings, later = store.firings("s"), NOON + timedelta(days=4)
    assert [each.scheduled_at.day for each in select_due(store.history("s"), firings, later)] == [5]
    (skipped,) = firings.handled()["skipped"]
    assert (skipped["count"], skipped["first"][:10], skipped["last"][:10]) == (3, "2026-11-02", "2026-11-04")
    # asked again it says the same: what was passed over stays so
    assert [each.scheduled_at.day for each in select_due(store.history("s"), firings, later)] == [5]
    assert len(firings.handled()["skipped"]) == 1


def test_catching_up_takes_all_oldest_first_up_to_the_limit(tmp_path: Path) -> None:
    store = ScheduleStore(tmp_path)
    make(store, catch_up="all", catch_up_limit=3)
    firings = store.firings("s")
    firings.create(firing_of(at("2026-11-05T03:00")))  # by a backfill, say
    assert [each.scheduled_at.day for each in select_due(store.history("s"), firings, NOON + timedelta(days=6))] == [
        4,
        6,
        7,
    ]
    assert firings.handled()["skipped"][0]["count"] == 2


def test_nothing_is_due_before_its_jitter_has_passed(tmp_path: Path) -> None:
    store = ScheduleStore(tmp_path)
    one, instant = make(store, jitter_s=3600), at("2026-11-02T03:00")
    begins = one.earliest_start(instant)
    assert begins > instant
    assert select_due(store.history("s"), store.firings("s"), begins - timedelta(seconds=1)) == []
    assert [each.scheduled_at for each in select_due(store.history("s"), store.firings("s"), begins)] == [instant]


def test_an_update_leaves_no_gap_and_doubles_nothing(tmp_path: Path) -> None:
    store = ScheduleStore(tmp_path)
    make(store, catch_up="all")
    firings = store.firings("s")
    for each in select_due(store.history("s"), firings, at("2026-11-02T03:00")):
        firings.create(firing_of(each.scheduled_at))
        firings.mark_handled(each.scheduled_at)
    # no scheduler runs for two days; meanwhile the rule changes, an hour before its next fire time
    store.update("s", {"cron": "0 0 4 * * *"}, now=at("2026-11-04T02:00"))
    results = select_due(store.history("s"), firings, at("2026-11-05T12:00"))
    assert [(f"{each.scheduled_at:%d %H}", each.schedule.revision) for each in results] == [
        ("03 03", 1),
        ("04 04", 2),
        ("05 04", 2),
    ]


# -- the commands ------------------------------------------------------------------------------------------------


def test_the_commands(tmp_path: Path) -> None:
    ws = ("-w", tmp_path / "ws")
    done = rankline(
        "schedule", "create", "nightly", "-r", "smoke", "--cron", "30 2 * * *", "--zone", "Europe/Berlin", "--window",
        "1d", *ws, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "note: five fields" in done.stdout
    shown = json.loads(rankline("schedule", "plan", "nightly", "-n", "3", "--json", *ws).stdout)
    assert (shown["cron"], shown["zone"], len(shown["fires"])) == ("0 30 2 * * *", "Europe/Berlin", 3)
    assert all(fire["window_end"] == fire["scheduled_at"] for fire in shown["fires"])
    assert all("02:30:00+0" in fire["scheduled_at_local"] for fire in shown["fires"])

    rankline("schedule", "update", "nightly", "--cron", "0 0 4 * * *", "-s", "finetune.epochs=1", *ws, cwd=tmp_path)
    rankline("schedule", "pause", "nightly", *ws)
    shown = json.loads(rankline("schedule", "show", "nightly", "--json", *ws).stdout)
    assert (shown["revision"], shown["paused"], shown["settings"]) == (3, True, ["finetune.epochs=1"])
    assert (shown["cron"], shown["window"], shown["directory"]) == ("0 0 4 * * *", "1d", str(tmp_path))
    assert "paused" in rankline("schedule", "list", *ws).stdout
    assert rankline("schedule", "delete", "nightly", *ws).returncode == 0
    assert ScheduleStore(tmp_path / "ws").names() == []


def test_the_commands_refuse(tmp_path: Path) -> None:
    ws = ("-w", tmp_path)
    create = ("schedule", "create", "n", "-r", "smoke", "--cron", "0 3 * * 1")
    assert "is missing" in refused(*create, "--seconds-first", *ws, code=2)
    assert "did you mean" in refused(*create, "-s", "finetune.epoch=1", *ws, code=2)
    assert "there is no schedule" in refused("schedule", "plan", "n", *ws, code=2)
    assert "does not train" in refused(*create, "--flow", "refresh", "--scratch-every", "3", *ws, code=2)
    assert "has no setting 'models'" in (refusal := refused(*create, "--keep", "models=3", *ws, code=2))
    assert "catalogues" in refusal
    assert "Extra inputs" not in refusal
    rankline(*create, *ws)
    back = ("schedule", "backfill", "n", "--to", "2026-01-01", *ws)
    assert "too far away" in refused(*back, "--from", "0001-01-01", code=2)
    assert "--from is later than --to" in refused(*back, "--from", "2026-01-02", code=2)


def test_one_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    store = ScheduleStore(tmp_path)
    for name in ("bad", "good"):
        make(store, name)
    (tmp_path / "schedules/bad/revisions/0001.json").write_text("{")
    ws = ("-w", tmp_path)
    listed = rankline("schedule", "list", *ws)
    assert listed.returncode == 0, listed.stderr
    assert [line.split()[0] for line in listed.stdout.splitlines()[1:3]] == ["good", "bad"]
    assert "unreadable" in listed.stdout
    assert "cannot be read" in listed.stdout
    shown = json.loads(rankline("schedule", "list", "--json", *ws).stdout)
    assert [(each["name"], "unreadable" in each) for each in shown] == [("good", False), ("bad", True)]
    assert "there is no schedule 'nope'" in refused("schedule", "show", "nope", *ws, code=2)


def test_an_empty_value_takes_a_setting_back(tmp_path: Path) -> None:
    make(ScheduleStore(tmp_path), source="there", map="there.toml", zone="Europe/Berlin", window="3d", keep={"runs": 3})
    given = [part for name in ("source", "map", "zone", "window", "keep") for part in (f"--{name}", "")]
    done = rankline("schedule", "update", "s", *given, "-w", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    results = [shown[name] for name in ("source", "map", "zone", "window", "keep")]
    assert results == [None, None, "UTC", "", None]


def test_a_run_without_a_process_is_not_shown_as_running(tmp_path: Path) -> None:
    store = ScheduleStore(tmp_path)
    make(store)
    firings = store.firings("s")
    firings.create(firing_of(NOON).replace(status="running"))
    show = ("schedule", "show", "s", "-w", tmp_path)
    assert "interrupted (the next scheduler continues it)" in rankline(*show).stdout
    assert json.loads(rankline(*show, "--json").stdout)["runs"][0]["status"] == "interrupted"
    with firings.lock(NOON):
        assert "running" in rankline(*show).stdout


def test_a_handled_moment_in_the_future_is_reported(tmp_path: Path) -> None:
    store, ws = ScheduleStore(tmp_path), ("-w", tmp_path)
    for name in ("good", "s"):
        make(store, name)
    assert "count as handled" not in rankline("schedule", "list", *ws).stdout
    store.firings("s").mark_handled(at("2936-01-01T03:00"))
    expected = "fire times up to 2936-01-01 03:00:00 UTC count as handled"
    for words in (("list",), ("show", "s")):
        assert expected in rankline("schedule", *words, *ws).stdout
    shown = {each["name"]: each["notes"] for each in json.loads(rankline("schedule", "list", "--json", *ws).stdout)}
    assert (shown["good"], len(shown["s"])) == ([], 1)
    # a scheduler that has seen it goes on, and it is reported until the clock is known to be right
    assert select_due(store.history("s"), store.firings("s"), datetime.now(UTC)) == []
    assert expected in rankline("schedule", "show", "s", *ws).stdout


@pytest.mark.parametrize("ahead", ["soon", {"until": "2936-01-01"}, {"until": "2936-01-01T00:00:00", "seen_at": ""}])
def test_a_clock_note_that_cannot_be_read_is_damage(tmp_path: Path, ahead: object) -> None:
    store = ScheduleStore(tmp_path)
    make(store)
    (tmp_path / "schedules/s/handled.json").write_text(json.dumps({"until": "", "skipped": [], "ahead": ahead}))
    assert "cannot be read" in store.firings("s").handled()["skipped"][0]["why"]


# -- the flow ------------------------------------------------------------------------------------------------


def test_a_schedule_of_an_earlier_version_trains(tmp_path: Path) -> None:
    store = ScheduleStore(tmp_path)
    make(store)
    path = tmp_path / "schedules" / "s" / "revisions" / "0001.json"
    shown = json.loads(path.read_text())
    assert shown.pop("flow") == "train"
    path.write_text(json.dumps(shown))
    assert ScheduleStore(tmp_path).get("s").flow == "train"


def test_each_flow_has_what_runs_it_and_another_one_is_refused() -> None:
    from pipelines.features import materialize
    from pipelines.refresh import refresh
    from pipelines.runs.runner import run

    assert [flow_runner(name) for name in ("train", "features", "refresh")] == [run, materialize, refresh]
    with pytest.raises(UsageError, match="cannot run the flow 'evaluate'"):
        flow_runner("evaluate")
    with pytest.raises(UsageError, match="flow of the schedule is not valid"):
        schedule(flow="evaluate")
    assert schedule(flow="features").flow == "features"


def test_the_command_takes_a_flow_and_shows_it(tmp_path: Path) -> None:
    create = ("schedule", "create", "fresh", "-r", "smoke", "--cron", "0 0 * * * *", "-w", str(tmp_path))
    shown = json.loads(rankline(*create, "--flow", "features", "--json").stdout)
    assert shown["flow"] == "features"
    listed = rankline("schedule", "list", "-w", str(tmp_path)).stdout
    assert listed.splitlines()[1].split()[:2] == ["fresh", "features"]
    shown = json.loads(rankline("schedule", "update", "fresh", "--flow", "train", "-w", str(tmp_path), "--json").stdout)
    assert (shown["flow"], shown["revision"]) == ("train", 2)
