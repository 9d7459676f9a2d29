"""Run the flow here: Kubeflow's own local runners in a process of their own, watched through the ledger.

A run's folder holds, beside its ledger and summary.json:

    recipe.json    what it runs
    trigger.json   who asked for it, where that was not a person at a terminal: a schedule, a retry of another run
    watcher.json   the process that watches it: while that lives, the run does; and which flow it runs, and where
    cancel.json    somebody asks for its end; whoever watches it sees to that
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from components.summary.step import SUMMARY, summarize
from pipelines.recipe import Recipe, as_dict
from rankline.errors import EXIT_FAILED, RanklineError, StepFailed
from rankline.runtime import ledger, outcomes

RECIPE, TRIGGER, WATCHER, CANCEL = "recipe.json", "trigger.json", "watcher.json", "cancel.json"
RUN_ID_FORMAT = "%Y%m%d-%H%M%S"  # of a run's id, UTC
Runner = Literal["local", "docker"]
Flow = Literal["train", "refresh", "features"]


@dataclass
class RunHandle:
    """A run that is under way."""

    folder: Path
    process: subprocess.Popen[bytes]
    cancelled: bool = False  # whoever watches it ends it because somebody asked for that

    def cancel_requested(self) -> bool:
        """Whether somebody wants it to end (`rankline runs cancel`)."""
        return (self.folder / CANCEL).is_file()


def new_run_folder(workspace: Path, name: str) -> Path:
    """A folder for a run that begins now; its name, the moment and ``name``, is the run's id.

    Ids are in the order in which runs began, whatever the clock says: after one that was set back they go on from
    the last run's.
    """
    timestamp = max(datetime.datetime.now(datetime.UTC).strftime(RUN_ID_FORMAT), _after_latest_run(workspace))
    for _ in range(100):
        folder = workspace / "runs" / f"{timestamp}-{name}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
        next_one = datetime.datetime.strptime(timestamp, RUN_ID_FORMAT) + datetime.timedelta(seconds=1)
        timestamp = next_one.strftime(RUN_ID_FORMAT)
    raise RanklineError("no free name for a run", where=str(workspace / "runs"))


def _after_latest_run(workspace: Path) -> str:
    """The second after the moment of the last run that the clock is behind of; empty where it is behind of none."""
    now, latest = datetime.datetime.now(datetime.UTC).replace(tzinfo=None), datetime.datetime.min
    for folder in (workspace / "runs").glob("*-*-*"):
        with contextlib.suppress(ValueError):
            latest = max(latest, datetime.datetime.strptime(folder.name[:15], RUN_ID_FORMAT))
    return (latest + datetime.timedelta(seconds=1)).strftime(RUN_ID_FORMAT) if latest > now else ""


@contextlib.contextmanager
def start_run(
    recipe: Recipe,
    workspace: Path,
    *,
    runner: Runner = "local",
    trigger: Mapping[str, Any] | None = None,
    flow: Flow = "train",
) -> Iterator[RunHandle]:
    """The flow in a process group of its own; when the block ends nothing of it is left, and its summary is there.

    ``trigger`` is what asked for the run (see `run`), ``flow`` which of the flows it is (pipelines/runs/process.py).

    Raises:
        RanklineError: the runner is `docker`, and there is no engine, no image or one of other code.
    """
    if runner == "docker":
        from pipelines.runs import containers

        containers.require(recipe, workspace)
        containers.remove_orphans(workspace)
    folder = new_run_folder(workspace, recipe.name if flow == "train" else f"{recipe.name}-{flow}")
    if trigger:
        ledger.write_json(folder / TRIGGER, dict(trigger))
    ledger.write_json(folder / WATCHER, {**_process_identity(), "runner": runner, "flow": flow})
    ledger.write_json(folder / RECIPE, as_dict(recipe))
    environment = {
        **os.environ,
        "RANKLINE_RUN_DIR": str(folder),
        # Kubeflow starts each step with `python3`: it must be this one
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        # and it must import us, whatever folder named `components` lies where the command was given
        "PYTHONSAFEPATH": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONWARNINGS": "ignore",
    }
    command = [sys.executable, "-P", "-m", "pipelines.runs.process", str(folder / RECIPE), str(workspace), runner, flow]
    with (folder / "kubeflow.log").open("wb") as log:
        # the runner holds the other end of its standard input: it closes when this process ends, however that is
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        handle, interrupted = RunHandle(folder, process), False
        try:
            yield handle
        except KeyboardInterrupt:
            interrupted = True
            raise
        finally:
            _terminate(process)
            if runner == "docker":
                with contextlib.suppress(RanklineError):  # the engine went away, and its containers with it
                    containers.remove(folder.name)
            ledger.release_space(folder)  # a step that was killed kept it
            was_cut_short = handle.cancelled or interrupted
            if not (folder / SUMMARY).is_file() or (was_cut_short and not outcomes.has_verdict(_read_outcome(folder))):
                # it was ended before its exit handler, or that did not know why
                summarize(folder, config=recipe.summary, cancelled=handle.cancelled, interrupted=interrupted)


def _process_identity() -> dict[str, Any]:
    """What tells this process from every other one."""
    import psutil

    return {"pid": os.getpid(), "began": psutil.Process().create_time(), "host": socket.gethostname()}


def _read_outcome(folder: Path) -> str:
    return str(json.loads((folder / SUMMARY).read_text())["outcome"])


def _terminate(process: subprocess.Popen[bytes], *, timeout_s: float = 10.0) -> None:
    """End what is left of a runner's process group: a runner that was killed leaves its step behind."""
    if process.stdin:
        process.stdin.close()
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            process.poll()
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                return
            time.sleep(0.05)


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
    """Run a recipe to its end and return its summary; one that somebody cancels ends with that outcome.

    ``watch`` is called again and again while it runs, to draw progress. ``runner`` is where the steps run:
    processes of this machine, or containers on it. ``trigger`` is kept in the run's folder: `kind` (manual,
    scheduled, backfill, catch-up, retry), and what goes with it: schedule, scheduled_at, window_start, window_end,
    retry_of. ``flow`` is what of the recipe is run: the whole line, or a smaller flow.

    Raises:
        StepFailed: a step stopped; the message is that step's own, the ledger is kept.
    """
    began = time.monotonic()
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
    folder = handle.folder
    summary: dict[str, Any] = json.loads((folder / SUMMARY).read_text())
    summary["seconds"] = round(time.monotonic() - began, 2)  # here the runner's own start and end count, too
    ledger.write_json(folder / SUMMARY, summary)
    if outcomes.exit_code(summary["outcome"]) == EXIT_FAILED:
        raise StepFailed(_failure_message(summary, folder), summary=summary)
    return summary


def _failure_message(summary: dict[str, Any], folder: Path) -> str:
    step, error = summary["failed_step"], summary["error"]
    if not step:
        log = folder / "kubeflow.log"
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        step = "the runner"
        error = f"it ended before the line did\n  found: {(lines or ['nothing'])[-1]}\n  where: {log}"
    return f"{step} stopped: {error}\n  ledger: {folder}\n  the next run goes on from what is finished"


def exit_code(summary: dict[str, Any]) -> int:
    """0 where all went well, a review is waited for or nothing had to be done; 3 refused; 130 cancelled; 1 failed."""
    return outcomes.exit_code(summary["outcome"])


def read_flow(folder: Path) -> Flow:
    """Which flow a run is of."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        flow: Flow = json.loads((folder / WATCHER).read_text())["flow"]
        return flow
    return "train"  # all there was in earlier versions


def run_folders(workspace: Path) -> Sequence[Path]:
    """The folders of all runs of the whole line, oldest first; a step run alone is none."""
    return sorted({path.parent for name in (RECIPE, SUMMARY) for path in (workspace / "runs").glob(f"*/{name}")})
