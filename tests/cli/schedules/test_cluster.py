"""`rankline schedule` on a cluster, against a server that answers as a recorded one."""

# ruff: noqa: F811 (fixtures are asked for by their name)
from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from components.ingest.config import IngestConfig
from components.ingest.window import with_scheduled_window
from pipelines.kubeflow import recurring_runs
from pipelines.kubeflow.client import Cluster
from rankline.errors import UsageError
from tests.cli.runs.test_cluster import SETTINGS, RunCli, at_once, run_cli  # noqa: F401
from tests.pipelines import golden
from tests.pipelines.kubeflow.kubeflow_world import cluster, compiled_once, kubeflow, nothing_of_ours  # noqa: F401
from tests.servers.kubeflow import ENDED, NAMESPACE, Kubeflow


def package_description(kubeflow: Kubeflow) -> str:
    (version,) = kubeflow.api.versions.values()
    return str(version["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["description"])


def create(run_cli: RunCli, *more: str, code: int = 0) -> Any:
    words = ["schedule", "create", "nightly", "-r", "smoke", *SETTINGS, "--cron", "0 0 3 * * *", "--window", "30d"]
    return run_cli(*words, "--lag", "6h", *more, code=code)


def test_five_fields_become_six_and_the_zone_is_stated(run_cli: RunCli, kubeflow: Kubeflow) -> None:
    text = run_cli("schedule", "create", "five", "-r", "smoke", *SETTINGS, "--cron", "0 3 * * 1")
    assert "note: five fields start with the minute; stored as '0 0 3 * * 1'" in text
    assert (
        "note: the cluster fires in the time zone of its controller, assumed to be UTC; the API does not report it"
        in text
    )
    (recurring_run,) = kubeflow.api.recurring.values()
    assert recurring_run["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * 1"
    six = ("schedule", "create", "six", "-r", "smoke", *SETTINGS, "--cron", "0 3 * * 1", "--seconds-first")
    assert "five fields instead of six" in run_cli(*six, code=2)
    assert "the second cannot be 61" in run_cli(*six[:-3], "--cron", "61 0 3 * * 1", code=2)


def test_the_zone_is_the_clusters(run_cli: RunCli) -> None:
    assert "one time zone for all its schedules" in create(run_cli, "--zone", "Europe/Berlin", code=2)
    payload = create(run_cli, "--zone", "Europe/Berlin", "--cluster-zone", "Europe/Berlin", "--json")
    assert payload["zone"] == "Europe/Berlin"
    (fire,) = run_cli("schedule", "plan", "nightly", "-n", "1", "--json")["fires"]
    assert fire["scheduled_at_local"].endswith(("03:00:00+0100", "03:00:00+0200"))


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["--jitter", "60"], "--jitter"),
        (["--webhook", "https://hooks.example/a"], "--webhook"),
        (["--webhook-headers", "HOOK"], "--webhook-headers"),
        (["--webhook-on-refusal"], "--webhook-on-refusal"),
        (["--runner", "docker"], "--runner"),
        (["--runner", "local"], "--runner"),
        (["--catch-up-limit", "3"], "--catch-up-limit"),
        (["--max-runs", "11"], "ten runs at once"),
    ],
)
def test_what_a_cluster_does_not_support_is_refused(
    run_cli: RunCli, kubeflow: Kubeflow, words: list[str], option: str
) -> None:
    refusal = create(run_cli, *words, code=2)
    assert option in refusal
    assert kubeflow.api.recurring == {}


def test_a_name_that_kubernetes_would_refuse(run_cli: RunCli, kubeflow: Kubeflow) -> None:
    words = ["schedule", "create", "nightly-", "-r", "smoke", *SETTINGS, "--cron", "0 3 * * *"]
    assert "a letter or a digit at its end" in run_cli(*words, code=2)
    assert kubeflow.api.asked.count("POST /apis/v2beta1/recurringruns") == 0


def test_a_setting_that_a_cluster_does_not_know_is_refused(run_cli: RunCli) -> None:
    """A new setting of schedules is refused on a cluster until it is supported there."""
    from pipelines.kubeflow.cluster_schedule import SUPPORTED_FIELDS, UNSUPPORTED_REASONS, refuse_unsupported
    from pipelines.schedules.model import Schedule

    with pytest.raises(UsageError, match="does not support --colour"):
        refuse_unsupported({"colour": "red"})
    assert set(Schedule.model_fields) - SUPPORTED_FIELDS >= set(UNSUPPORTED_REASONS)


def test_a_workspace_has_no_experiments(tmp_path: Path) -> None:
    words = ["schedule", "create", "a", "-r", "smoke", "--cron", "0 3 * * *", "-w", str(tmp_path), "-e", "mine"]
    assert "neither experiments" in str(CliRunner().invoke(app, words).exception)


def test_the_json_is_that_of_a_workspace(run_cli: RunCli, cluster: Cluster, tmp_path: Path) -> None:
    words = ["schedule", "create", "nightly", "-r", "smoke", "--cron", "0 0 3 * * *", "--window", "30d", "--lag", "6h"]

    def local(*given: str) -> Any:
        return json.loads(CliRunner().invoke(app, [*given, "--json", "-w", str(tmp_path)]).stdout)

    pairs = [(local(*words), create(run_cli, "--json"))]
    pairs += [
        (local("schedule", *given), run_cli("schedule", *given, "--json"))
        for given in (["plan", "nightly", "-n", "3"], ["show", "nightly"], ["pause", "nightly"], ["resume", "nightly"])
    ]
    pairs += [(local("schedule", "list")[0], run_cli("schedule", "list", "--json")[0])]
    for here, there in pairs:
        assert set(here) <= set(there)
    here, there = pairs[1]
    assert there["fires"] == here["fires"]
    assert there["cron"] == here["cron"]
    local("schedule", "delete", "nightly")
    assert run_cli("schedule", "delete", "nightly", "--json")["deleted"] is True


def test_plan_prints_the_fire_times_with_their_windows(run_cli: RunCli) -> None:
    create(run_cli)
    header, *rows, note = run_cli("schedule", "plan", "nightly", "-n", "3").splitlines()
    assert header.split("  ")[0] == "fires (UTC)"
    assert len(rows) == 3
    assert all("03:00:00+0000" in row and "21:00:00+0000" in row for row in rows)
    assert note.startswith("note: the cluster fires in")


def test_what_is_kept_and_how_it_is_shown(run_cli: RunCli, kubeflow: Kubeflow) -> None:
    create(run_cli, "--max-runs", "2", "--catch-up", "all", "--service-account", "trainer", "-e", "mine")
    (recurring_run,) = kubeflow.api.recurring.values()
    assert (recurring_run["max_concurrency"], recurring_run["no_catchup"], recurring_run["service_account"]) == (
        "2",
        False,
        "trainer",
    )
    assert recurring_run["description"] == (
        "data window: 30d, up to 6h before the scheduled time; flow train of recipe smoke; "
        "`rankline schedule show nightly` has the rest"
    )
    assert "directory" not in package_description(kubeflow)
    instant = datetime(2026, 11, 23, 3, tzinfo=UTC)
    (run,) = kubeflow.api.tick(instant)
    shown = run_cli("schedule", "show", "nightly")
    assert "account          trainer" in shown
    assert "experiment       mine" in shown
    assert "jitter" not in shown
    row = next(line for line in shown.splitlines() if run in line)
    assert row.split() == ["2026-11-23", "03:00:00", "scheduled", "2026-11-22", "21:00:00", "running", run]
    run_cli("runs", "show", run)
    trigger = run_cli("runs", "show", run, "--json")["trigger"]
    assert trigger == {
        "kind": "scheduled", "schedule": "nightly", "scheduled_at": "2026-11-23T03:00:00+00:00",
        "window_start": "2026-10-23T21:00:00+00:00", "window_end": "2026-11-22T21:00:00+00:00",
    }  # fmt: skip
    assert "trigger: scheduled by schedule nightly for 2026-11-23T03:00" in run_cli("runs", "show", run)
    assert run_cli("schedule", "list").splitlines()[1].split()[:9] == [
        "nightly", "train", "0", "0", "3", "*", "*", "*", "UTC",
    ]  # fmt: skip


@pytest.mark.integration
def test_update_keeps_what_is_not_named(run_cli: RunCli, kubeflow: Kubeflow) -> None:
    create(run_cli, "--max-runs", "2", "--service-account", "trainer")
    (run,) = kubeflow.api.tick(datetime(2026, 11, 23, 3, tzinfo=UTC))
    text = run_cli("schedule", "update", "nightly", "--cron", "0 0 4 * * *")
    assert "revision 2: 0 0 4 * * * in UTC" in text
    assert "stays, disabled, until its runs have ended" in text
    assert kubeflow.api.runs[run]["state"] not in ENDED
    shown = run_cli("schedule", "show", "nightly", "--json")
    assert (shown["window"], shown["lag"], shown["max_runs"], shown["account"]) == ("30d", "6h", 2, "trainer")
    assert (shown["revision"], shown["revisions"]) == (2, 2)
    assert [(each["run"], each["revision"]) for each in shown["runs"]] == [(run, 1)]
    assert "does not support --jitter" in run_cli("schedule", "update", "nightly", "--jitter", "5", code=2)
    assert "there is no recurring run 'other'" in run_cli("schedule", "update", "other", "--lag", "1h", code=2)
    assert run_cli("schedule", "show", "nightly", "--json")["revision"] == 2


def test_pause_resume_delete(run_cli: RunCli, kubeflow: Kubeflow) -> None:
    create(run_cli, "--catch-up", "all")
    assert "schedule nightly is paused, revision 1" in run_cli("schedule", "pause", "nightly")
    instant = datetime(2026, 11, 23, 3, tzinfo=UTC)
    assert kubeflow.api.tick(instant) == []
    assert run_cli("schedule", "list", "--json")[0]["paused"] is True
    assert "none of these starts before" in run_cli("schedule", "plan", "nightly")
    assert "also runs the fire times of the pause" in run_cli("schedule", "resume", "nightly")
    (run,) = kubeflow.api.tick(instant)
    refusal = run_cli("schedule", "delete", "nightly", code=2)
    assert "deleting it would end them" in refusal
    assert run in refusal
    assert kubeflow.api.runs[run]["state"] not in ENDED
    assert "is deleted" in run_cli("schedule", "delete", "nightly", "--end-runs")
    assert kubeflow.api.recurring == {}


def test_one_that_somebody_else_made(run_cli: RunCli, cluster: Cluster) -> None:
    recurring_runs.create(
        cluster, recurring_runs.RecurringRunSpec(name="theirs", cron="0 0 3 * * *"), golden.pinned("smoke")
    )
    assert "not created by `rankline schedule`" in run_cli("schedule", "list")
    assert run_cli("schedule", "list", "--json")[0]["name"] == "theirs"
    assert "was not created by `rankline schedule`" in run_cli("schedule", "plan", "theirs", code=2)


@pytest.mark.parametrize("broken", ['"cron": "0 0 3 * * *", "colour": "red"', '"cron": 7', '"cron": "0 0 3 * * *"}, {'])
@pytest.mark.parametrize("earlier", [False, True])
def test_what_was_edited_breaks_no_list(run_cli: RunCli, kubeflow: Kubeflow, broken: str, earlier: bool) -> None:
    create(run_cli)
    (version,) = kubeflow.api.versions.values()
    info = version["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]
    assert '"cron": "0 0 3 * * *"' in info["description"]
    info["description"] = info["description"].replace('"cron": "0 0 3 * * *"', broken)
    if earlier:  # it was in the description of the recurring run
        (recurring_run,) = kubeflow.api.recurring.values()
        recurring_run["description"], info["description"] = info["description"], "A shop."
    assert "not created by `rankline schedule`" in run_cli("schedule", "list")
    assert "or its package has been deleted" in run_cli("schedule", "update", "nightly", "--lag", "1h", code=2)


def test_a_schedule_whose_package_was_deleted_is_listed(run_cli: RunCli, kubeflow: Kubeflow) -> None:
    create(run_cli)
    kubeflow.api.versions.clear()
    assert "not created by `rankline schedule`" in run_cli("schedule", "list")
    assert "or its package has been deleted" in run_cli("schedule", "pause", "nightly", code=2)


def test_the_run_of_a_schedule_that_is_gone_still_names_it(run_cli: RunCli, kubeflow: Kubeflow) -> None:
    create(run_cli)
    (run,) = kubeflow.api.tick(datetime(2026, 11, 23, 3, tzinfo=UTC))
    run_cli("schedule", "delete", "nightly", "--end-runs")
    trigger = run_cli("runs", "show", run, "--json")["trigger"]
    assert (trigger["schedule"], trigger["window_end"]) == ("nightly", "2026-11-22T21:00:00+00:00")


# what a real server had


def test_a_schedule_of_an_earlier_version_is_read(run_cli: RunCli, kubeflow: Kubeflow) -> None:
    """The recorded ones: `rec` keeps its settings in its description; the other is not ours."""
    kubeflow.api.replay("recurringruns")
    (row,) = run_cli("schedule", "list", "--json")
    assert (row["name"], row["recipe"], row["cron"], row["window"], row["lag"], row["paused"], row["revision"]) == (
        "rec", "audit:pvc", "0 0 4 * * *", "2000d", "6h", True, 3,
    )  # fmt: skip
    assert "paused" in run_cli("schedule", "list")
    assert "revision         3" in run_cli("schedule", "show", "rec")
    (fire,) = run_cli("schedule", "plan", "rec", "-n", "1", "--json")["fires"]
    start, end = (datetime.fromisoformat(fire[f"window_{side}"]) for side in ("start", "end"))
    assert (end - start).days == 2000
    assert end.hour == 22
    assert run_cli("schedule", "resume", "rec", "--json")["paused"] is False
    assert run_cli("schedule", "pause", "rec", "--json")["paused"] is True
    assert run_cli("schedule", "delete", "rec", "--json")["deleted"] is True
    assert [each["display_name"] for each in kubeflow.api.recurring.values()] == ["rec-1796015818"]


def test_a_run_that_the_recorded_schedule_started(run_cli: RunCli, kubeflow: Kubeflow) -> None:
    run = kubeflow.api.replay("run-scheduled-cancelled-retried-failed")
    kubeflow.api.replay("recurringruns")
    recurring_run = kubeflow.api.runs[run]["recurring_run_id"]
    assert recurring_run not in kubeflow.api.recurring  # it had been deleted by then
    trigger = run_cli("runs", "show", run, "--json")["trigger"]
    assert (trigger["kind"], trigger["schedule"]) == ("scheduled", recurring_run)
    assert trigger["scheduled_at"] == "2026-11-30T05:45:15+00:00"
    (id,) = (id for id, row in kubeflow.api.recurring.items() if row["display_name"] == "rec")
    kubeflow.api.runs[run]["recurring_run_id"] = id
    kubeflow.api.recurring[id]["trigger"]["cron_schedule"]["cron"] = "15 45 5 * * *"
    shown = run_cli("schedule", "show", "rec", "--json")["runs"]
    assert [(each["run"], each["revision"], each["window_end"]) for each in shown] == [
        (run, 3, "2026-11-29T23:45:15+00:00")
    ]


def test_what_fires_without_being_listed_is_listed_here(
    run_cli: RunCli, kubeflow: Kubeflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(run_cli)
    kubeflow.api.stores = False
    refusal = run_cli("schedule", "update", "nightly", "--cron", "0 0 4 * * *", code=1)
    assert "schedule nightly is not stored, and may fire all the same" in refusal
    kubeflow.api.stores = True
    _, workflow = kubeflow.api.scheduled_workflows.values()
    name = workflow["metadata"]["name"]
    assert [each["name"] for each in run_cli("schedule", "list", "--json")] == ["nightly"]  # Kubernetes is not at hand
    monkeypatch.setenv("KUBECONFIG", str(kubeflow.kubeconfig(tmp_path)))
    text = run_cli("schedule", "list")
    assert f"{name}  train" in text
    assert f"kubectl -n {NAMESPACE} delete scheduledworkflow {name}" in text
    listed = run_cli("schedule", "list", "--json")
    assert [each["name"] for each in listed] == ["nightly", name]
    assert listed[1]["paused"] is True  # an update creates it disabled


# backfill


def backfill(run_cli: RunCli, first: int, end: int, *more: str, code: int = 0) -> Any:
    stretch = ["--from", f"2026-11-{first:02}", "--to", f"2026-11-{end:02}"]
    return run_cli("schedule", "backfill", "nightly", *stretch, *more, code=code)


@pytest.mark.integration
def test_backfill_runs_past_windows_a_few_at_once(
    run_cli: RunCli, kubeflow: Kubeflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(run_cli)
    real, active = kubeflow.api.begin, list[int]()

    def begin(*given: Any) -> dict[str, Any]:
        run = real(*given)
        active.append(sum(run["state"] not in ENDED for run in kubeflow.api.runs.values()))
        return run

    monkeypatch.setattr(kubeflow.api, "begin", begin)
    results = backfill(run_cli, 1, 5, "--concurrency", "2", "--json")
    assert [(each["scheduled_at"][:10], each["what"], each["outcome"]) for each in results] == [
        (f"2026-11-0{day}", "ran", "promoted") for day in (1, 2, 3, 4)
    ]
    assert max(active) == 2
    assert results[0]["window_end"] == "2026-10-31T21:00:00+00:00"
    assert results[0]["kind"] == "backfill"
    started = [kubeflow.api.runs[each["run"]] for each in results]
    assert [run["created_at"] for run in started] == sorted(run["created_at"] for run in started)  # oldest first
    # the scheduled time reaches ingest as the window that was printed
    version = kubeflow.api.versions[started[0]["pipeline_version_reference"]["pipeline_version_id"]]["pipeline_spec"]
    line = version["pipeline_spec"]["components"]["comp-exit-handler-1"]["dag"]["tasks"]["ingest"]["inputs"]
    schedule = line["parameters"]["run"]["runtimeValue"]["constant"]["schedule"]
    for each, run in zip(results, started):
        given = (run["runtime_config"]["parameters"]["scheduled_at"], "2026-11-22T12:34:56Z")
        config = with_scheduled_window(IngestConfig(source="/data"), schedule, given, tmp_path)
        assert (config.window_start, config.window_end) == (each["window_start"], each["window_end"])
        assert json.loads((tmp_path / "trigger.json").read_text())["kind"] == "backfill"
    # given again it does what is left
    again = backfill(run_cli, 1, 6)
    assert "1 ran, 4 done before; 0 failed" in again
    assert {row["trigger"] for row in run_cli("runs", "list", "--json")} == {"backfill"}
    shown = run_cli("schedule", "show", "nightly", "--json")["runs"]
    assert [(each["kind"], each["exit_code"]) for each in shown] == [("backfill", 0)] * 5


@pytest.mark.integration
def test_what_failed_runs_again_and_a_refusal_does_not(run_cli: RunCli, kubeflow: Kubeflow) -> None:
    create(run_cli)
    kubeflow.api.fails_at = "finetune"
    assert "2 ran; 2 failed" in backfill(run_cli, 1, 3, code=1)
    kubeflow.api.fails_at, kubeflow.api.verdict = "", "refused"
    assert "2 ran; 0 failed" in backfill(run_cli, 1, 3)
    assert "2 done before; 0 failed" in backfill(run_cli, 1, 3)


def test_an_older_window_is_let_pass_only_when_asked(run_cli: RunCli, kubeflow: Kubeflow) -> None:
    create(run_cli)
    kubeflow.api.verdict = "refused"
    (first,) = backfill(run_cli, 1, 2, "--json")
    (second,) = backfill(run_cli, 1, 2, "--allow-older", "--json")

    def allows(run: str) -> bool:
        id = kubeflow.api.runs[run]["pipeline_version_reference"]["pipeline_version_id"]
        tasks = kubeflow.api.versions[id]["pipeline_spec"]["pipeline_spec"]["components"]["comp-exit-handler-1"]["dag"]
        config = tasks["tasks"]["decide"]["inputs"]["parameters"]["config"]["runtimeValue"]["constant"]
        return bool(config["allow_older_window"])

    assert not allows(first["run"])
    assert second["what"] == "ran"
    assert allows(second["run"])
    (third,) = backfill(run_cli, 1, 2, "--allow-older", "--json")
    assert third["what"] == "done before"


def test_a_backfill_that_was_interrupted_joins_its_runs(
    run_cli: RunCli, kubeflow: Kubeflow, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.kubeflow import backfill as cluster_backfill

    create(run_cli)

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as at_a_instant:
        at_a_instant.setattr(cluster_backfill.time, "sleep", interrupted)
        run_cli("schedule", "backfill", "nightly", "--from", "2026-11-01", "--to", "2026-11-03", code=130)
    (run,) = kubeflow.api.runs
    assert kubeflow.api.runs[run]["state"] not in ENDED
    text = backfill(run_cli, 1, 3)
    assert f"joined, run {run}" in text
    assert "2 ran; 0 failed" in text
    assert len(kubeflow.api.runs) == 2


def test_a_run_that_the_schedule_has_startedis_left_to_itself(run_cli: RunCli, kubeflow: Kubeflow) -> None:
    create(run_cli)
    kubeflow.api.tick(datetime(2026, 11, 1, 3, tzinfo=UTC))
    assert "1 ran, 1 under way elsewhere; 0 failed" in backfill(run_cli, 1, 3)


def test_a_backfill_ends_in_the_past(run_cli: RunCli) -> None:
    create(run_cli)
    words = ["schedule", "backfill", "nightly", "--from", "2026-11-01", "--to"]
    assert "ends in the past" in run_cli(*words, "2999-01-01", code=2)
    assert "has no fire time in this period" in run_cli(*words, "2026-11-01T01:00", code=2)
