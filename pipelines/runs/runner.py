"""Runs a flow on this machine: Kubeflow's local runner in a process of its own, which this process watches."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from components.summary.step import SUMMARY, summarize
from pipelines.recipe import Recipe, as_dict, run_context
from pipelines.runs.folder import (
    LOG,
    RECIPE,
    TRIGGER,
    WATCHER,
    new_run_folder,
    process_identity,
    read_summary,
)
from rankline.errors import EXIT_FAILED, EXIT_STALE, RanklineError, StepFailed
from rankline.io.files import read_json_object, write_json
from rankline.runtime import ledger, outcomes
from rankline.runtime.current_user import current_user
from rankline.runtime.run_summary import CANCEL
from rankline.runtime.steps import Flow

Runner = Literal["local", "docker"]
STOP_TIMEOUT_S = 10.0  # after each signal


@dataclass
class RunHandle:
    """A run that is under way."""

    folder: Path
    process: subprocess.Popen[bytes]
    cancelled: bool = False  # this process ends it because a user asked for that

    def cancel_requested(self) -> bool:
        """Whether `rankline runs cancel` asks to end it."""
        return (self.folder / CANCEL).is_file()


def run(
    recipe: Recipe,
    workspace: Path,
    *,
    watch: Callable[[RunHandle], None] | None = None,
    poll_s: float = 0.2,
    runner: Runner = "local",
    trigger: Mapping[str, Any] | None = None,
    flow: Flow = "train",
) -> dict[str, Any]:
    """Run a flow of a recipe to its end and return the run's summary; a cancelled run ends with that outcome.

    Args:
        watch: called every ``poll_s`` seconds while it runs, to draw progress.
        runner: whether the steps are processes of this machine or containers on it.
        trigger: what asked for the run, kept in its folder: `kind` (manual, scheduled, backfill, catch-up, need,
            retry), and what goes with it: schedule, scheduled_at, window_start, window_end, why, retry_of.

    Raises:
        StepFailed: a step failed; the message is that step's own.
    """
    started_s = time.monotonic()
    with start_run(recipe, workspace, runner=runner, trigger=trigger, flow=flow) as handle:
        while handle.process.poll() is None:
            if handle.cancel_requested():
                handle.cancelled = True
                break
            if watch is not None:
                watch(handle)
            time.sleep(poll_s)
        if watch is not None:
            watch(handle)
    summary = read_json_object(handle.folder / SUMMARY)
    summary["seconds"] = round(time.monotonic() - started_s, 2)  # with the start and the end of the runner itself
    write_json(handle.folder / SUMMARY, summary)
    run_context(recipe, workspace, handle.folder.name).upload_run()
    code = outcomes.exit_code(summary["outcome"])
    if code in (EXIT_FAILED, EXIT_STALE):
        raise StepFailed(_failure_message(summary, handle.folder), summary=summary, exit_code=code)
    return summary


def exit_code(summary: Mapping[str, Any]) -> int:
    """0 if it succeeded, waits for a review or had nothing to do; 3 refused; 4 stale; 130 cancelled; 1 failed."""
    return outcomes.exit_code(summary["outcome"])


def _failure_message(summary: Mapping[str, Any], folder: Path) -> str:
    step, error = summary["failed_step"], summary["error"]
    if not step:
        log = folder / LOG
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        step = "the runner"
        error = f"it ended before the flow did\n  found: {(lines or ['nothing'])[-1]}\n  where: {log}"
    return f"{step} stopped: {error}\n  ledger: {folder}\n  the next run continues from the finished steps"


@contextlib.contextmanager
def start_run(
    recipe: Recipe,
    workspace: Path,
    *,
    runner: Runner = "local",
    trigger: Mapping[str, Any] | None = None,
    flow: Flow = "train",
) -> Iterator[RunHandle]:
    """Start a flow in a process group of its own; when the block ends, the group is gone and the summary written.

    Raises:
        RanklineError: the runner is `docker`, and there is no engine, no image, or an image of other code.
    """
    if runner == "docker":
        from pipelines.runs import containers

        containers.require(recipe, workspace)
        containers.remove_orphans(workspace)
    folder = new_run_folder(workspace, recipe.name if flow == "train" else f"{recipe.name}-{flow}")
    if trigger:
        write_json(folder / TRIGGER, dict(trigger))
    write_json(folder / WATCHER, {**process_identity(), "runner": runner, "flow": flow, "user": _started_by(trigger)})
    write_json(folder / RECIPE, as_dict(recipe))
    command = [sys.executable, "-P", "-m", "pipelines.runs.process", str(folder / RECIPE), str(workspace), runner, flow]
    with (folder / LOG).open("wb") as log:
        # the runner reads the other end of its standard input, which closes when this process ends in any way
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(folder),
            start_new_session=True,
        )
        handle, interrupted = RunHandle(folder, process), False
        try:
            yield handle
        except KeyboardInterrupt:
            interrupted = True
            raise
        finally:
            _stop(process)
            if runner == "docker":
                with contextlib.suppress(RanklineError):  # the engine went away, and its containers with it
                    containers.remove(folder.name)
            context = run_context(recipe, workspace, folder.name)
            summary = _complete_summary(recipe, handle, interrupted=interrupted)
            context.upload_run()
            if summary and not interrupted:
                context.announce_end(summary)


def _started_by(trigger: Mapping[str, Any] | None) -> str:
    """The user who starts a run; empty where a schedule does."""
    by_schedule = (trigger or {}).get("kind") in ("scheduled", "catch-up", "need")
    return "" if by_schedule else current_user()


def _environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "RANKLINE_RUN_DIR": str(folder),
        # Kubeflow starts each step with `python3`, which must be this interpreter
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        # a folder named `components` where the command was given must not be imported
        "PYTHONSAFEPATH": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONWARNINGS": "ignore",
    }


def _complete_summary(recipe: Recipe, handle: RunHandle, *, interrupted: bool) -> dict[str, Any] | None:
    """Write and return the summary where the exit handler did not, or did not know why the run was cut short."""
    ledger.release_space(handle.folder)  # a step that was killed still holds it
    summary = read_summary(handle.folder)
    was_cut_short = handle.cancelled or interrupted
    if summary is None or (was_cut_short and not outcomes.has_verdict(summary["outcome"])):
        return summarize(handle.folder, config=recipe.summary, cancelled=handle.cancelled, interrupted=interrupted)
    return None


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a runner's process group: a runner that was killed leaves its step behind."""
    if process.stdin:
        process.stdin.close()
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while time.monotonic() < deadline:
            process.poll()
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                return
            time.sleep(0.05)
