"""The runs of a place: which there are, how far one is, what its steps said; end one, or run one again.

`Runs` is what the commands `rankline runs …` ask; `LocalRuns` answers for a workspace, out of the folders that
pipelines/runs/runner.py and the doors write. Another place (a cluster) answers the same questions with the same meaning.
"""

from __future__ import annotations

import datetime
import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from components.summary.step import SUMMARY, summarize
from pipelines.recipes import Recipe
from pipelines.runs.logs import LogLine as LogLine
from pipelines.runs.logs import read_kubeflow_log, read_logs
from pipelines.runs.runner import CANCEL, RECIPE, TRIGGER, WATCHER, RunHandle, Runner, read_flow
from pipelines.runs.runner import run as run_recipe
from pipelines.runs.runner import run_folders as run_folders
from rankline.errors import RanklineError, UsageError
from rankline.runtime import ledger, progress
from rankline.runtime.current_user import current_user

RUNNING, UNFINISHED = "running", "unfinished"  # the outcomes of a run without a summary: it goes on, or was killed
UNREADABLE = "unreadable"  # the outcome of one whose summary is there and cannot be read
LAST = "last"  # stands for the name of the last run
MAX_STARTUP_S = 300.0  # a step's process is that much older than its first word at most
MAX_SILENCE_S = 30.0  # between two steps nothing is written for a few seconds


@dataclass(frozen=True)
class RunInfo:
    """One run of a list."""

    run: str
    outcome: str
    model_id: str
    seconds: float | None  # none while it goes on
    trigger: str  # what asked for it: manual, scheduled, backfill, catch-up, retry
    recipe: str
    flow: str = "train"  # what of the recipe it ran: train, refresh, features


@runtime_checkable
class Runs(Protocol):
    """The runs of one place. A run is named by its id, or by `last`.

    Every method that takes a run raises UsageError where there is no such run.
    """

    def list(self) -> list[RunInfo]:
        """All runs, oldest first."""

    def show(self, run: str) -> dict[str, Any]:
        """A run's summary; of one without: `run`, `outcome` (running or unfinished) and `steps`. And its `trigger`."""

    def logs(self, run: str, step: str = "", *, follow: bool = False, everything: bool = False) -> Iterator[LogLine]:
        """What the processes of its steps said, or that of one step; ``follow`` goes on until the run has ended.

        ``everything`` gives Kubeflow's own words, too.
        """

    def cancel(self, run: str, *, timeout_s: float = 60.0) -> dict[str, Any]:
        """End a run that is under way, and return its summary once nothing of it is left.

        Raises:
            UsageError: it is not under way.
            RanklineError: it has not ended within ``patience_s``.
        """

    def retry(
        self,
        run: str,
        *,
        watch: Callable[[RunHandle], None] | None = None,
        on_start: Callable[[Recipe], None] | None = None,
    ) -> dict[str, Any]:
        """Run the recipe that a run was made with once more, to its end; its summary. What is finished is reused.

        ``begins`` is called with the recipe before anything happens, ``watch`` while it runs.

        Raises:
            UsageError: the run is still under way, or what it ran can no longer be read.
            StepFailed: a step stopped.
        """


class LocalRuns:
    """The runs of a workspace."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace.resolve()

    def list(self) -> list[RunInfo]:
        """See `Runs`."""
        lines = []
        for folder in run_folders(self.workspace):
            summary = self._summary(folder)
            lines.append(
                RunInfo(
                    run=folder.name,
                    outcome=summary["outcome"],
                    model_id=summary.get("model_id") or "",
                    seconds=summary.get("seconds"),
                    trigger=(summary["trigger"] or {}).get("kind", "manual"),
                    recipe=str(_read_json_object(folder / RECIPE).get("name", "")),
                    flow=read_flow(folder),
                )
            )
        return lines

    def folder(self, run: str) -> Path:
        """Where a run keeps what it wrote."""
        names = {folder.name: folder for folder in run_folders(self.workspace)}
        folder = names.get(list(names)[-1] if run == LAST and names else run)
        if folder is None:
            raise UsageError(
                f"there is no run {run!r}",
                expected="one of `rankline runs list`",
                found=", ".join(list(names)[-3:]) or "no runs",
                where=str(self.workspace / "runs"),
                hint="start one with `rankline demo`",
            )
        return folder

    def show(self, run: str) -> dict[str, Any]:
        """See `Runs`."""
        folder = self.folder(run)
        summary = self._summary(folder)
        if "steps" not in summary:
            summary["steps"] = []
            for step, entry in ledger.read_entries(folder).items():
                step_progress = progress.read_progress(folder / f"{step}.progress")
                summary["steps"].append(
                    {**entry.model_dump(), "seconds": round(entry.seconds, 2), "progress": step_progress}
                )
        return summary

    def logs(self, run: str, step: str = "", *, follow: bool = False, everything: bool = False) -> Iterator[LogLine]:
        """See `Runs`."""
        if step and step not in (*ledger.ALL_STEPS, "summary"):
            raise UsageError(
                f"there is no step {step!r}", expected="one of " + ", ".join((*ledger.ALL_STEPS, "summary"))
            )
        folder = self.folder(run)
        read = read_kubeflow_log if everything else read_logs
        log_lines = read(folder, is_running=lambda: follow and _is_running(folder))
        return (log_line for log_line in log_lines if step in ("", log_line.step))

    def cancel(self, run: str, *, timeout_s: float = 60.0) -> dict[str, Any]:
        """See `Runs`."""
        folder = self.folder(run)
        if (now := self._summary(folder)["outcome"]) != RUNNING:
            raise UsageError(
                f"run {folder.name} is not under way",
                expected="a run that goes on",
                found=now,
                where=str(folder),
                hint="`rankline runs list` shows which do",
            )
        request = {"at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "by": current_user()}
        ledger.write_json(folder / CANCEL, request)
        deadline = time.monotonic() + timeout_s
        while not (folder / SUMMARY).is_file():
            if run_state(folder) != RUNNING:  # whoever watched it was killed, and it with them
                summarize(folder, config=_read_recipe(folder).summary, cancelled=True)
            elif time.monotonic() > deadline:
                raise RanklineError(
                    f"run {folder.name} has not ended yet",
                    expected=f"its end within {timeout_s:.0f} s of asking for it",
                    found=f"process {_read_json_object(folder / WATCHER).get('pid', 'unknown')}, which watches it, still lives",
                    where=str(folder),
                    hint="it ends as soon as that process looks; `kill` it if it never does",
                )
            time.sleep(0.1)
        return self._summary(folder)

    def retry(
        self,
        run: str,
        *,
        watch: Callable[[RunHandle], None] | None = None,
        on_start: Callable[[Recipe], None] | None = None,
    ) -> dict[str, Any]:
        """See `Runs`."""
        folder = self.folder(run)
        if self._summary(folder)["outcome"] == RUNNING:
            raise UsageError(
                f"run {folder.name} is still under way",
                expected="a run that has ended",
                found=RUNNING,
                where=str(folder),
                hint=f"`rankline runs cancel {folder.name}` ends it",
            )
        recipe, trigger = _read_recipe(folder), _read_json_object(folder / TRIGGER)
        if on_start is not None:
            on_start(recipe)
        runner: Runner = "docker" if _read_json_object(folder / WATCHER).get("runner") == "docker" else "local"
        retry_trigger = {**trigger, "kind": "retry", "retry_of": folder.name}
        summary = run_recipe(
            recipe, self.workspace, watch=watch, runner=runner, trigger=retry_trigger, flow=read_flow(folder)
        )
        return {**summary, "trigger": retry_trigger}

    def _summary(self, folder: Path) -> dict[str, Any]:
        summary = read_summary(folder)
        if summary is None:
            summary = {"run": folder.name, "outcome": UNREADABLE if (folder / SUMMARY).is_file() else run_state(folder)}
        return {**summary, "trigger": _read_json_object(folder / TRIGGER) or None, "flow": read_flow(folder)}


def read_summary(folder: Path) -> dict[str, Any] | None:
    """What a run's summary says; None where there is none, or none that can be read."""
    summary = _read_json_object(folder / SUMMARY)
    return summary if isinstance(summary.get("outcome"), str) else None


def run_state(folder: Path) -> str:
    """`running` or `unfinished`: what a run without a summary is.

    The process that watches it tells. Where that cannot be seen (in a container, on another machine, or it is of an
    earlier version) the process of the running step does, or a sign of life within half a minute.
    """
    import psutil

    watcher = _read_json_object(folder / WATCHER)
    if watcher.get("host") == socket.gethostname():
        try:
            process = psutil.Process(watcher["pid"])
            if process.status() == psutil.STATUS_ZOMBIE:
                return UNFINISHED
            if abs(process.create_time() - watcher["began"]) < 1:
                return RUNNING
        except psutil.NoSuchProcess:
            return UNFINISHED
    for entry in ledger.read_entries(folder).values():
        if entry.status == "running" and entry.pid and psutil.pid_exists(entry.pid):
            process = psutil.Process(entry.pid)
            # a number can be another process's: one of a container, or one that was given out again
            began = entry.started - process.create_time()
            if -1 < began < MAX_STARTUP_S and process.status() != psutil.STATUS_ZOMBIE:
                return RUNNING
    return RUNNING if abs(time.time() - last_activity(folder)) < MAX_SILENCE_S else UNFINISHED


def last_activity(folder: Path) -> float:
    """When anything was last written into a run's folder (unix seconds)."""
    return max((path.stat().st_mtime for path in folder.iterdir()), default=folder.stat().st_mtime)


def _read_recipe(folder: Path) -> Recipe:
    """What a run was made with.

    Raises:
        UsageError: it is not there, or is of a version with other knobs.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Recipe).validate_python(json.loads((folder / RECIPE).read_text()))
    except (OSError, ValueError, ValidationError) as error:
        raise UsageError(
            f"what run {folder.name} was made with cannot be read",
            expected=f"{RECIPE}, as this version of Rankline writes it",
            found=" ".join(str(error).split())[:200],
            where=str(folder / RECIPE),
            hint="start a run of the recipe itself: `rankline run --recipe …`",
        ) from error


def _read_json_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none that can be read."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_running(folder: Path) -> bool:
    return not (folder / SUMMARY).is_file() and run_state(folder) == RUNNING
