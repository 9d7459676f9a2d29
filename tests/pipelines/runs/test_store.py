"""Runs, looked at and handled from another terminal: list, show, logs, cancel, retry.

The tests of the middle part tell one story in one workspace: a run is followed, cancelled and retried.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from components.summary.config import SummaryConfig
from components.summary.step import summarize
from pipelines.recipes import named
from pipelines.runs.folder import run_state
from pipelines.runs.plan import Plan, plan
from pipelines.runs.runner import exit_code
from pipelines.runs.store import LocalRuns, Runs
from rankline.errors import RanklineError, UsageError
from rankline.io.files import write_json
from rankline.runtime import ledger
from rankline.runtime.outcomes import Outcome
from rankline.runtime.steps import TRAINING_STEPS
from tests.cli.command import RANKLINE
from tests.cli.in_process import rankline, refused
from tests.conftest import SmokeRun
from tests.pipelines.runs.test_plan import comes_true
from tests.pipelines.runs.watched import folders, reasons, steps, summary, until, watched
from tests.pipelines.test_faults import REUSABLE

SETTING = "ingest.max_rejected_share=0.5"  # of the first run; it changes no byte of the output of ingest


@pytest.fixture(scope="module")
def workspace(smoke: SmokeRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smoke.copy(tmp_path_factory.mktemp("history") / "ws")


def test_a_workspace_answers_as_any_place_has_to(workspace: Path) -> None:
    assert isinstance(LocalRuns(workspace), Runs)


def test_the_flow_of_a_run_that_nobody_here_watched_is_that_of_its_steps(tmp_path: Path) -> None:
    for run, step in (("a", "finetune"), ("b", "catalogue"), ("c", "materialize")):
        ledger.write_entry(tmp_path / "runs" / run, ledger.Entry(step=step, status="done", started=1.0, finished=2.0))
        summarize(tmp_path / "runs" / run, config=SummaryConfig())
    assert {each.run: each.flow for each in LocalRuns(tmp_path).list()} == {
        "a": "train",
        "b": "refresh",
        "c": "features",
    }


# What a finished run said.


def test_the_log_of_a_step(smoke: SmokeRun) -> None:
    done = rankline("runs", "logs", "last", "distill", "--all", "--json", "-w", smoke.workspace)
    output = [json.loads(line) for line in done.stdout.splitlines()]
    assert {each["step"] for each in output} == {"distill"}
    words = "\n".join(each["line"] for each in output)
    assert "Looking for component `distill`" in words
    assert "Task 'distill' finished with status SUCCESS" in words
    assert "`finetune`" not in words
    assert "\x1b" not in words


def test_the_log_leaves_out_kubeflows_own_lines(smoke: SmokeRun) -> None:
    words = "\n".join(output.line for output in LocalRuns(smoke.workspace).logs("last"))
    assert words
    for own in ("KFP Executor", "executor_input", "Executing task", "outputs:", "source_digest:", '"parameterValues"'):
        assert own not in words


def test_every_step_has_its_part_of_the_log(smoke: SmokeRun) -> None:
    lines = list(LocalRuns(smoke.workspace).logs("last", everything=True))
    assert list(dict.fromkeys(each.step for each in lines if each.step)) == [*TRAINING_STEPS, "summary"]


def test_every_step_of_the_pipeline_has_written_its_log(smoke: SmokeRun) -> None:
    run = smoke.workspace / "runs" / smoke.summary["run"]
    assert {path.stem for path in run.glob("*.log")} == {*TRAINING_STEPS, "kubeflow"}


def test_a_step_or_a_run_that_is_not_there(smoke: SmokeRun) -> None:
    runs = LocalRuns(smoke.workspace)
    with pytest.raises(UsageError, match="there is no step 'finetun'"):
        runs.logs("last", "finetun")
    for verb in (runs.show, runs.logs, runs.cancel, runs.retry):
        with pytest.raises(UsageError, match="there is no run 'never'") as refusal:
            verb("never")
        assert smoke.summary["run"] in str(refusal.value)


# The story: a run is followed, cancelled, and retried.


@dataclass
class Cancelled:
    run: str
    code: int
    out: str
    err: str
    output: subprocess.CompletedProcess[str]  # the command that cancelled it
    followed: list[str]  # what the command that followed it printed
    listed: str  # while it went on


@pytest.fixture(scope="module")
def cancelled(workspace: Path) -> Cancelled:
    with watched(workspace, SETTING) as run:
        name = run.folder.name
        until(lambda: (run.folder / "kubeflow.log").is_file())
        follower = subprocess.Popen(
            [RANKLINE, "runs", "logs", name, "--follow", "--all", "-w", str(workspace)],
            stdout=subprocess.PIPE,
            text=True,
        )
        followed: list[str] = []
        reader = threading.Thread(target=lambda: followed.extend(follower.stdout or []))
        reader.start()
        try:
            run.reached("resolve_inputs")
            until(lambda: any("Executing task 'resolve-inputs'" in line for line in followed), timeout_s=120)
            listed = rankline("runs", "list", "-w", workspace).stdout
            with pytest.raises(UsageError, match="is still under way"):
                LocalRuns(workspace).retry(name)
            output = rankline("runs", "cancel", name, "-w", workspace)
            code, out, err = run.ended()
            run.nothing_is_left()
            assert follower.wait(timeout=60) == 0
            reader.join(timeout=10)
        finally:
            follower.kill()
        return Cancelled(name, code, out, err, output, followed, listed)


@pytest.mark.integration
def test_a_run_under_way_is_listed_as_such(cancelled: Cancelled) -> None:
    assert f"{cancelled.run}  running" in cancelled.listed


def test_a_run_is_cancelled_from_another_terminal(cancelled: Cancelled, workspace: Path) -> None:
    assert cancelled.output.returncode == 0, cancelled.output.stderr
    assert cancelled.output.stdout.startswith(f"cancelled {cancelled.run}; `rankline runs retry {cancelled.run}`")
    reported = json.loads((workspace / "runs" / cancelled.run / "summary.json").read_text())
    assert reported["outcome"] == "cancelled"
    assert reported["error"].startswith("it was cancelled")
    assert reported["failed_step"] == ""
    assert (reported["seconds"] > 0, exit_code(reported)) == (True, 130)
    assert not list((workspace / "runs" / cancelled.run).glob(".*"))


def test_its_own_terminal_ends_as_by_ctrl_c(cancelled: Cancelled) -> None:
    assert cancelled.code == 130
    assert cancelled.err.strip() == "interrupted; the next run continues from what is finished"
    assert "cancelled: " in cancelled.out


def test_a_follower_sees_the_log_and_the_end_of_the_run(cancelled: Cancelled) -> None:
    assert any("Executing task 'resolve-inputs'" in line for line in cancelled.followed)


def test_a_cancelled_run_is_shown(cancelled: Cancelled, workspace: Path) -> None:
    assert "it was cancelled" in rankline("runs", "show", cancelled.run, "-w", workspace).stdout
    assert {line.run: line.outcome for line in LocalRuns(workspace).list()}[cancelled.run] == "cancelled"


def test_a_run_that_is_not_under_way_cannot_be_cancelled(cancelled: Cancelled, workspace: Path) -> None:
    message = refused("runs", "cancel", cancelled.run, "-w", workspace, code=2)
    assert message.startswith(f"run {cancelled.run} is not under way")
    assert "found: cancelled" in message
    first = min(folders(workspace)).name
    with pytest.raises(UsageError, match="found: promoted"):
        LocalRuns(workspace).cancel(first)


@dataclass
class Retried:
    planned: Plan  # asked beforehand
    reported: dict[str, Any]  # its summary


@pytest.fixture(scope="module")
def retried(cancelled: Cancelled, workspace: Path) -> Retried:
    """The cancelled run once more, to its end."""
    planned = plan(named("smoke", [SETTING]), workspace)
    done = rankline("runs", "retry", cancelled.run, "-w", workspace, "--json")
    assert done.returncode == 0, done.stderr
    return Retried(planned, json.loads(done.stdout))


def finished(workspace: Path, cancelled: Cancelled) -> set[str]:
    """The steps that the setting made run again and that had ended before the run was cancelled."""
    entry = ledger.read_entries(workspace / "runs" / cancelled.run).get("ingest")
    return {"ingest"} if entry is not None and entry.status == "done" else set()


@pytest.mark.integration
def test_a_retry_runs_the_same_recipe_and_reuses_what_is_finished(
    retried: Retried, workspace: Path, cancelled: Cancelled
) -> None:
    assert retried.reported["outcome"] == "already serving"
    again = {step["step"] for step in retried.reported["steps"] if step["status"] == "done"}
    assert again == {"resolve_inputs", "ingest", "decide"} - finished(workspace, cancelled)
    first, second = (workspace / "runs" / run / "recipe.json" for run in (cancelled.run, retried.reported["run"]))
    assert first.read_text() == second.read_text()
    assert '"max_rejected_share": 0.5' in second.read_text()


def test_the_retry_went_as_planned(retried: Retried, workspace: Path, cancelled: Cancelled) -> None:
    reported, before = {step.step: step for step in retried.planned.steps}, finished(workspace, cancelled)
    assert {step for step in reported if reported[step].state == "runs"} == {
        "resolve_inputs",
        "ingest",
        "decide",
    } - before
    assert {step for step in reported if reported[step].unless} == ({*REUSABLE} - {"ingest"} if not before else set())
    comes_true(reported, steps(workspace), reasons(workspace))


def test_a_retry_names_the_run_that_it_retries(retried: Retried, workspace: Path, cancelled: Cancelled) -> None:
    trigger = {"kind": "retry", "retry_of": cancelled.run}
    assert json.loads((workspace / "runs" / retried.reported["run"] / "trigger.json").read_text()) == trigger
    shown = rankline("runs", "show", "-w", workspace).stdout
    assert shown.startswith(f"trigger: retry of run {cancelled.run}\n")
    assert LocalRuns(workspace).show("last")["trigger"] == retried.reported["trigger"] == trigger
    assert LocalRuns(workspace).list()[-1].trigger == "retry"


# Runs that were killed, that go on, or that cannot be read.


def under_way(folder: Path, *, pid: int, started: float, host: str = "") -> Path:
    """The folder of a run that this process says it watches."""
    import socket

    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text("{}")
    write_json(folder / "watcher.json", {"pid": pid, "began": started, "host": host or socket.gethostname()})
    return folder


def test_the_process_that_watches_a_run_tells_whether_it_goes_on(tmp_path: Path) -> None:
    import psutil

    own = psutil.Process()
    assert run_state(under_way(tmp_path / "a", pid=own.pid, started=own.create_time())) == Outcome.RUNNING
    gone = subprocess.Popen(["true"])
    started = psutil.Process(gone.pid).create_time()
    gone.wait()
    assert run_state(under_way(tmp_path / "b", pid=gone.pid, started=started)) == Outcome.UNFINISHED
    # of another machine, or a number given out again: a sign of life tells
    for name, host, start in (("c", "elsewhere", own.create_time()), ("d", "", own.create_time() - 5000)):
        folder = under_way(tmp_path / name, pid=own.pid, started=start, host=host)
        assert run_state(folder) == Outcome.RUNNING
        for path in folder.iterdir():
            os.utime(path, (time.time() - 100, time.time() - 100))
        assert run_state(folder) == Outcome.UNFINISHED


def test_a_run_that_does_not_end_is_reported(tmp_path: Path) -> None:
    """Its watcher lives and does not look: as one that was stopped would."""
    import psutil

    own = psutil.Process()
    under_way(tmp_path / "runs" / "20260101-000000-smoke", pid=own.pid, started=own.create_time())
    with pytest.raises(RanklineError, match="has not ended yet") as reported:
        LocalRuns(tmp_path).cancel("last", timeout_s=0.3)
    assert f"process {own.pid}" in str(reported.value)


def test_a_run_whose_watcher_dies_while_it_is_cancelled_ends_as_cancelled(smoke: SmokeRun, tmp_path: Path) -> None:
    import psutil

    sleeper = subprocess.Popen(["sleep", "60"])
    folder = under_way(
        tmp_path / "runs" / "20260101-000000-smoke", pid=sleeper.pid, started=psutil.Process(sleeper.pid).create_time()
    )
    shutil.copy(smoke.workspace / "runs" / smoke.summary["run"] / "recipe.json", folder / "recipe.json")
    threading.Timer(0.5, sleeper.kill).start()
    reported = LocalRuns(tmp_path).cancel("last", timeout_s=30)
    sleeper.wait()
    assert reported["outcome"] == "cancelled"


def test_a_finished_run_that_is_cancelled_keeps_its_outcome(tmp_path: Path) -> None:
    """The request came a moment too late: a verdict is a verdict."""
    decided = ledger.Entry(step="decide", status="done", started=1.0, finished=2.0, result={"outcome": "refused"})
    ledger.write_entry(tmp_path, decided)
    assert summarize(tmp_path, config=SummaryConfig(), cancelled=True)["outcome"] == "refused"
    ledger.write_entry(tmp_path, ledger.Entry(step="promote", status="running", started=2.0))
    reported = summarize(tmp_path, config=SummaryConfig(), cancelled=True)
    assert (reported["outcome"], reported["error"]) == ("cancelled", "it was cancelled while promote ran")
    assert summarize(tmp_path, config=SummaryConfig())["outcome"] == "failed"


def test_a_retry_of_what_another_version_wrote_is_refused(smoke: SmokeRun, tmp_path: Path) -> None:
    run = tmp_path / "runs" / smoke.summary["run"]
    shutil.copytree(smoke.workspace / "runs" / smoke.summary["run"], run, ignore=shutil.ignore_patterns("artifacts"))
    reported = json.loads((run / "recipe.json").read_text())
    (run / "recipe.json").write_text(json.dumps({**reported, "finetune": {**reported["finetune"], "colour": "red"}}))
    with pytest.raises(UsageError, match=r"the recipe of run .* cannot be read") as refusal:
        LocalRuns(tmp_path).retry("last")
    assert "colour" in str(refusal.value)


@pytest.mark.integration
def test_a_scheduled_run_that_fails_is_reported_with_its_stack_trace_and_retried(
    smoke: SmokeRun, tmp_path: Path
) -> None:
    """What the schedule said of the first run is said of the second."""
    workspace = smoke.copy(tmp_path / "ws")
    source = {"kind": "scheduled", "schedule": "nightly", "scheduled_at": "2026-01-02T03:00:00+00:00"}
    first = max(folders(workspace))
    write_json(first / "trigger.json", source)
    shutil.rmtree(workspace / "material" / "smoke")
    (workspace / "material" / "smoke").mkdir()  # the run stops at once, at look
    with pytest.raises(RanklineError):
        LocalRuns(workspace).retry(first.name)
    reported = json.loads((max(folders(workspace)) / "trigger.json").read_text())
    assert reported == {**source, "kind": "retry", "retry_of": first.name}
    assert "by schedule nightly for 2026-01-02T03:00:00+00:00" in rankline("runs", "show", "-w", workspace).stdout
    assert summary(workspace)["failed_step"] == "resolve_inputs"
    # what nobody foresaw would leave this file
    (max(folders(workspace)) / "resolve_inputs.traceback.txt").write_text(
        "Traceback (nobody foresaw it)\n  ValueError: odd\n"
    )
    output = [each.line for each in LocalRuns(workspace).logs("last", "resolve_inputs")]
    assert any("the source holds no events" in line for line in output)
    assert output.index("Traceback (nobody foresaw it)") > 0
    assert "  ValueError: odd" in output
    assert not [line for line in output if "FAILURE" in line]  # that is Kubeflow's
    everything = [each.line for each in LocalRuns(workspace).logs("last", "resolve_inputs", everything=True)]
    assert [line for line in everything if "FAILURE" in line]
