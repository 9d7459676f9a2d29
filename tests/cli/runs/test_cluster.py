"""`rankline runs` and `rankline schedule` on a cluster, against a server that speaks Kubeflow's API."""

# ruff: noqa: F811 (fixtures are asked for by their name)
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from components.ingest.config import IngestConfig
from components.ingest.window import with_scheduled_window
from components.summary.config import SummaryConfig
from components.summary.step import summarize
from pipelines.kubeflow import recurring_runs
from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.packages import upload
from pipelines.kubeflow.runs import follow, submit
from pipelines.runs.store import RunInfo
from rankline.errors import RanklineError, UsageError
from rankline.runtime import ledger
from tests.pipelines import golden
from tests.pipelines.kubeflow.kubeflow_world import cluster, compiled_once, kubeflow, nothing_of_ours  # noqa: F401
from tests.servers.kubeflow import ENDED, NAMESPACE, Kubeflow

SETTINGS = [each for setting in golden.PINNED for each in ("--set", setting)]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for nothing."""
    for place in (
        "cli.runs.runs.POLL_S",
        "cli.schedules.schedule.POLL_S",
        "pipelines.kubeflow.recurring_runs.SETTLE_S",
    ):
        monkeypatch.setattr(place, 0.0)
    monkeypatch.setattr(recurring_runs, "CLEAR_S", 0)


RunCli = Callable[..., Any]


@pytest.fixture
def run_cli(kubeflow: Kubeflow) -> RunCli:
    """Run a command against the cluster; returns what it prints, parsed with --json."""

    kubeflow.api.pace = 5

    def invoke(*words: str, code: int = 0) -> Any:
        where = ["--host", kubeflow.host, "--namespace", NAMESPACE, "--auth", "none"]
        done = CliRunner().invoke(app, [*words, *where], env={"COLUMNS": "200"})
        if isinstance(done.exception, RanklineError):
            assert done.exception.exit_code == code, done.exception
            return str(done.exception)
        assert done.exit_code == code, (done.output, done.exception)
        return json.loads(done.stdout) if "--json" in words else done.stdout

    return invoke


def submitted(cluster: Cluster) -> str:
    return submit(cluster, upload(cluster, golden.pinned("smoke"))).run


# which place is meant


@pytest.mark.parametrize(
    ("words", "host", "there"),
    [
        (["--host", "http://k/pipeline"], "", True),
        ([], "http://k/pipeline", True),
        ([], "", False),
        (["-w", "."], "http://k/pipeline", False),  # the command line goes before the environment
        (["--host", ""], "http://k/pipeline", False),
        (["--context", "far"], "", True),
        (["--auth", "port-forward"], "", True),
        (["-n", "team"], "", True),
    ],
)
def test_which_place_is_meant(
    words: list[str], host: str, there: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from cli.runs import runs

    targets: list[bool] = []

    def record(workspace: Path, where: Any) -> Any:
        targets.append(bool(where))
        raise UsageError("that is all")

    monkeypatch.setattr(runs, "_runs", record)
    monkeypatch.setenv("RANKLINE_KFP_HOST", host)
    monkeypatch.setenv("RANKLINE_KFP_NAMESPACE", "team")
    monkeypatch.setenv("RANKLINE_KFP_AUTH", "token")
    CliRunner().invoke(app, ["runs", "list", *words])
    assert targets == [there]


def test_both_places_at_once_are_refused() -> None:
    for words in (["runs", "list"], ["schedule", "list"]):
        done = CliRunner().invoke(app, [*words, "-w", ".", "--host", "http://k/pipeline"])
        assert isinstance(done.exception, UsageError)
        assert "both given" in str(done.exception)


# runs


def test_list_has_the_columns_and_the_json_of_a_workspace(run_cli: RunCli, cluster: Cluster) -> None:
    assert run_cli("runs", "list") == "no runs yet; start one with `rankline submit`\n"
    first, second = submitted(cluster), submitted(cluster)
    follow(cluster, first, poll_s=0)
    lines = run_cli("runs", "list").splitlines()
    assert lines[0].split() == ["run", "outcome", "took", "model", "flow", "trigger"]
    assert [line.split()[:2] for line in lines[1:]] == [[first, "promoted"], [second, "running"]]
    assert all(line.endswith("manual") for line in lines[1:])
    rows = run_cli("runs", "list", "--json")
    assert set(rows[0]) == {each.name for each in fields(RunInfo)}
    assert [row["recipe"] for row in rows] == ["smoke", "smoke"]
    assert rows[1]["seconds"] is None


def test_show_has_the_json_of_a_workspace(run_cli: RunCli, cluster: Cluster, tmp_path: Path) -> None:
    run = submitted(cluster)
    follow(cluster, run, poll_s=0)
    summary = run_cli("runs", "show", run, "--json")
    ledger.write_entry(tmp_path, ledger.Entry(step="resolve_inputs", status="done", started=1.0, finished=2.0))
    local = summarize(tmp_path, config=SummaryConfig())
    assert set(local) <= set(summary)
    assert set(local["steps"][0]) <= set(summary["steps"][0])
    assert summary["trigger"] is None
    text = run_cli("runs", "show", "last")
    assert "✔ finetune" in text
    assert ": Every gate is met; the model serves." in text
    assert "there is no run 'nope'" in run_cli("runs", "show", "nope", code=2)


def test_logs_say_where_the_rest_is(run_cli: RunCli, kubeflow: Kubeflow, cluster: Cluster) -> None:
    run = submitted(cluster)
    follow(cluster, run, poll_s=0)
    assert "── finetune\nhello from flow-" in run_cli("runs", "logs", run)
    where = ["--host", kubeflow.host, "--namespace", NAMESPACE, "--auth", "none"]
    done = CliRunner().invoke(app, ["runs", "logs", run, "finetune", *where])
    assert f"drivers included: kubectl -n {NAMESPACE} logs -l pipeline/runid={run} -c main" in done.stderr
    lines = CliRunner().invoke(app, ["runs", "logs", run, "finetune", "--json", *where]).stdout.splitlines()
    assert {json.loads(line)["step"] for line in lines} == {"finetune"}
    kubeflow.api.logs = False
    assert f"try: kubectl -n {NAMESPACE} logs" in run_cli("runs", "logs", run, code=1)


def test_cancel_and_retry(run_cli: RunCli, kubeflow: Kubeflow, cluster: Cluster) -> None:
    run = submitted(cluster)
    assert f"cancelled {run}; `rankline runs retry {run}` continues" in run_cli("runs", "cancel", run)
    assert "is not running" in run_cli("runs", "cancel", run, code=2)
    retried = run_cli("runs", "retry", run, "--json")
    assert (retried["run"], retried["outcome"]) == (run, "promoted")
    assert "cannot be retried" in run_cli("runs", "retry", run, code=2)
    kubeflow.api.fails_at = "distill"
    failed = submitted(cluster)
    follow(cluster, failed, poll_s=0)
    text = run_cli("runs", "retry", failed)
    assert f"run {failed} continues" in text
    assert "promoted after" in text


@pytest.mark.parametrize(("verdict", "code"), [("refused", 3), ("pending", 0)])
def test_retry_ends_with_the_code_of_the_verdict(
    run_cli: RunCli, kubeflow: Kubeflow, cluster: Cluster, verdict: str, code: int
) -> None:
    run = submitted(cluster)
    run_cli("runs", "cancel", run)
    kubeflow.api.verdict = verdict
    run_cli("runs", "retry", run, code=code)


# schedules


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
    assert recurring_run["description"].startswith("data window: 30d, up to 6h before the scheduled time\n")
    assert "directory" not in recurring_run["description"]
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
def test_a_description_that_was_edited_breaks_no_list(run_cli: RunCli, kubeflow: Kubeflow, broken: str) -> None:
    create(run_cli)
    (recurring_run,) = kubeflow.api.recurring.values()
    recurring_run["description"] = recurring_run["description"].replace('"cron": "0 0 3 * * *"', broken)
    assert "not created by `rankline schedule`" in run_cli("schedule", "list")
    assert "or its description was edited" in run_cli("schedule", "update", "nightly", "--lag", "1h", code=2)


# backfill


def backfill(run_cli: RunCli, first: int, end: int, *more: str, code: int = 0) -> Any:
    stretch = ["--from", f"2026-11-{first:02}", "--to", f"2026-11-{end:02}"]
    return run_cli("schedule", "backfill", "nightly", *stretch, *more, code=code)


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
