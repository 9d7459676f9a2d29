"""`rankline schedule` with triggers by need, in a workspace and on a cluster."""

# ruff: noqa: F811 (fixtures are asked for by their name)
from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.schedules.store import ScheduleStore
from pipelines.schedules.triggers.held import record_held
from tests.cli.in_process import rankline, refused
from tests.cli.runs.test_cluster import SETTINGS, RunCli, run_cli  # noqa: F401
from tests.pipelines.kubeflow.kubeflow_world import cluster, compiled_once, kubeflow, nothing_of_ours  # noqa: F401
from tests.pipelines.schedules.triggers.live_shop import SETTINGS as SHOP_SETTINGS
from tests.pipelines.schedules.triggers.live_shop import LiveShop

CREATE = ("schedule", "create", "fresh", "-r", "smoke")


def test_a_schedule_of_triggers_alone_is_created_shown_and_changed(tmp_path: Path) -> None:
    ws = ("-w", tmp_path / "ws")
    given = ("--when", "events>=20%", "--when", "drift:price", "--cooldown", "12h", "--budget", "runs=3,core_hours=8")
    done = rankline(*CREATE, *given, *ws)
    assert done.returncode == 0, done.stderr
    assert "by need (events>=20%, drift:price>=0.2)" in done.stdout
    assert "starts its runs" in done.stdout
    payload = json.loads(rankline("schedule", "show", "fresh", "--json", *ws).stdout)
    assert (payload["when"], payload["next"]) == (["events>=20%", "drift:price>=0.2"], None)
    assert payload["budget"] == {"runs": 3, "core_hours": 8.0, "cost": None}
    assert (payload["held_back"], payload["checked"]) == ([], None)
    shown = rankline("schedule", "show", "fresh", *ws).stdout
    assert "budget           runs=3,core_hours=8" in shown
    assert "by need, checked every 1h" in rankline("schedule", "list", *ws).stdout
    assert "fires by need alone" in refused(
        "schedule", "backfill", "fresh", "--from", "2026-01-01", "--to", "2026-01-02", *ws, code=2
    )
    update = ("schedule", "update", "fresh", "--when", "", "--cron", "0 0 3 * * *", "--budget", "")
    assert rankline(*update, *ws).returncode == 0
    payload = json.loads(rankline("schedule", "show", "fresh", "--json", *ws).stdout)
    assert (payload["when"], payload["cron"], payload["budget"]["runs"]) == ([], "0 0 3 * * *", 2)
    assert "cooldown" not in rankline("schedule", "show", "fresh", *ws).stdout


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("--when", "drift"), "names a column"),
        (("--when", ""), "--recipe, and --cron or --when"),
        (("--when", "code", "--budget", "days=3"), "has no setting 'days'"),
        (("--when", "code", "--budget", "runs=none"), "the runs in --budget is not valid"),
        (("--when", "code", "--flow", "refresh"), "a run of the flow train"),
        (("--when", "code", "--false-alarms", "2"), "less than 0.5"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, given: tuple[str, ...], expected: str) -> None:
    assert expected in refused(*CREATE, *given, "-w", tmp_path, code=2)


@pytest.mark.integration
def test_a_check_prints_what_each_trigger_observes_and_trains_nothing(tmp_path: Path) -> None:
    shop = LiveShop(tmp_path)
    shop.sell(0, 3)
    ws = ("-w", shop.workspace)
    settings = [word for setting in SHOP_SETTINGS for word in ("-s", setting)]
    create = ("schedule", "create", "shop", "-r", "interactions", "--source", shop.source, *settings)
    assert rankline(*create, "--when", "events>=100", "--when", "events>=100000 ", *ws).returncode == 2
    assert rankline(*create, "--when", "events>=100", "--when", "drift:price", *ws).returncode == 0
    done = rankline("schedule", "check", "shop", *ws)
    assert done.returncode == 0, done.stderr
    header, first, second = done.stdout.splitlines()[-3:]
    assert header.split() == ["trigger", "observed", "threshold", "fires", "why"]
    assert (first.split()[0], " yes " in first) == ("events>=100", True)
    assert "there is no training yet to compare with" in second
    assert not (shop.workspace / "runs").exists()
    checked = json.loads(rankline("schedule", "show", "shop", "--json", *ws).stdout)["checked"]
    assert [each["fires"] for each in checked["observations"]] == [True, False]
    assert "there is no schedule 'nope'" in refused("schedule", "check", "nope", *ws, code=2)


def test_why_it_fired_and_what_was_held_back_is_listed(tmp_path: Path) -> None:
    store, now = ScheduleStore(tmp_path), datetime(2026, 11, 1, 12, tzinfo=UTC)
    schedule = store.create({"name": "fresh", "recipe": "smoke", "when": ("code",)}, now=now)
    why = "code: export: code changed"
    store.firings("fresh").create(schedule.firing(now, "need", now=now, why=why))
    for hours in (1, 2):
        record_held(store.folder / "fresh" / "need", ["code"], why, "cool-down", now=now + timedelta(hours=hours))
    listed = rankline("schedule", "list", "-w", tmp_path).stdout
    assert f"fresh: fired by need at 2026-11-01T12:00:00+00:00: {why}" in listed
    assert "fresh: held back at 2026-11-01T14:00:00+00:00: cool-down" in listed
    shown = rankline("schedule", "show", "fresh", "-w", tmp_path).stdout
    assert f"2026-11-01 12:00:00: {why}" in shown
    assert "held back: 2 times from 2026-11-01 13:00:00 to 2026-11-01 14:00:00 (cool-down)" in shown
    payload = json.loads(rankline("schedule", "show", "fresh", "--json", "-w", tmp_path).stdout)
    assert (payload["runs"][0]["kind"], payload["runs"][0]["why"]) == ("need", why)


def test_a_cluster_evaluates_no_triggers_and_says_where_they_are(run_cli: RunCli) -> None:
    create = ("schedule", "create", "nightly", "-r", "smoke", *SETTINGS, "--when", "events>=3")
    for more in ((), ("--cron", "0 0 3 * * *")):
        refusal = run_cli(*create, *more, code=2)
        assert "does not support --when" in refusal
        assert "create the schedule in a workspace" in refusal
    run_cli(*create[:-2], "--cron", "0 0 3 * * *")
    assert "has no triggers" in run_cli("schedule", "check", "nightly", code=2)
    assert run_cli("schedule", "show", "nightly", "--json")["held_back"] == []
