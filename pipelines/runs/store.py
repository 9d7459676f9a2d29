"""The runs of a place, as `rankline runs` asks for them: list, show, read the logs, cancel, retry.

`LocalRuns` answers for a workspace, from the folders of its runs; a cluster answers the same questions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from components.summary.step import SUMMARY, summarize
from pipelines.recipe import Recipe
from pipelines.runs.folder import (
    TRIGGER,
    WATCHER,
    is_running,
    read_flow,
    read_recipe,
    read_recipe_name,
    read_summary,
    run_folders,
    run_state,
)
from pipelines.runs.logs import LogLine, read_kubeflow_log, read_logs
from pipelines.runs.runner import RunHandle, Runner
from pipelines.runs.runner import run as run_recipe
from pipelines.steps import STEPS
from rankline.errors import RanklineError, UsageError
from rankline.io.files import read_json_object
from rankline.runtime import ledger, progress
from rankline.runtime.outcomes import Outcome
from rankline.runtime.run_summary import note_cancelled

LAST = "last"  # stands for the id of the latest run


@dataclass(frozen=True)
class RunInfo:
    """One run of a list."""

    run: str
    outcome: str
    model_id: str
    seconds: float | None  # None while it runs
    trigger: str  # what asked for it: manual, scheduled, backfill, catch-up, retry
    recipe: str
    flow: str = "train"  # or refresh, features


@runtime_checkable
class Runs(Protocol):
    """The runs of one place. A run is named by its id, or by `last`.

    Every method that takes a run raises UsageError where there is no such run.
    """

    def list(self) -> list[RunInfo]:
        """All runs, oldest first."""

    def show(self, run: str) -> dict[str, Any]:
        """A run's summary with its `trigger`; without a summary: `run`, `outcome` (running, unfinished), `steps`."""

    def logs(self, run: str, step: str = "", *, follow: bool = False, everything: bool = False) -> Iterator[LogLine]:
        """What the steps of a run printed, or one of them; ``follow`` goes on until the run has ended.

        ``everything`` includes Kubeflow's own lines.
        """

    def cancel(self, run: str, *, timeout_s: float = 60.0) -> dict[str, Any]:
        """End a run that is under way, and return its summary when nothing of it is left.

        Raises:
            UsageError: it is not under way.
            RanklineError: it has not ended within ``timeout_s``.
        """

    def retry(
        self,
        run: str,
        *,
        watch: Callable[[RunHandle], None] | None = None,
        on_start: Callable[[Recipe], None] | None = None,
    ) -> dict[str, Any]:
        """Run the recipe of a run again, to its end, and return the new run's summary; finished steps are reused.

        ``on_start`` is called with the recipe before anything is run, ``watch`` while it runs.

        Raises:
            UsageError: the run is still under way, or its recipe can no longer be read.
            StepFailed: a step failed.
        """


class LocalRuns:
    """The runs of a workspace."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace.resolve()

    def list(self) -> list[RunInfo]:
        """See `Runs`."""
        return [self._info(folder) for folder in run_folders(self.workspace)]

    def _info(self, folder: Path) -> RunInfo:
        summary = self._summary(folder)
        return RunInfo(
            run=folder.name,
            outcome=summary["outcome"],
            model_id=summary.get("model_id") or "",
            seconds=summary.get("seconds"),
            trigger=(summary["trigger"] or {}).get("kind", "manual"),
            recipe=read_recipe_name(folder),
            flow=summary["flow"],
        )

    def folder(self, run: str) -> Path:
        """The folder of a run."""
        folders = {folder.name: folder for folder in run_folders(self.workspace)}
        folder = folders.get(list(folders)[-1] if run == LAST and folders else run)
        if folder is None:
            raise UsageError(
                f"there is no run {run!r}",
                expected="one of `rankline runs list`",
                found=", ".join(list(folders)[-3:]) or "no runs",
                where=str(self.workspace / "runs"),
                hint="start one with `rankline demo`",
            )
        return folder

    def show(self, run: str) -> dict[str, Any]:
        """See `Runs`."""
        folder = self.folder(run)
        summary = self._summary(folder)
        if "steps" not in summary:
            summary["steps"] = [
                {
                    **entry.model_dump(),
                    "seconds": round(entry.seconds, 2),
                    "progress": progress.read_progress(folder / f"{step}.progress"),
                }
                for step, entry in ledger.read_entries(folder).items()
            ]
        return summary

    def logs(self, run: str, step: str = "", *, follow: bool = False, everything: bool = False) -> Iterator[LogLine]:
        """See `Runs`."""
        if step and step not in STEPS:
            raise UsageError(f"there is no step {step!r}", expected="one of " + ", ".join(STEPS))
        folder = self.folder(run)
        read = read_kubeflow_log if everything else read_logs
        log_lines = read(folder, is_running=lambda: follow and is_running(folder))
        return (log_line for log_line in log_lines if step in ("", log_line.step))

    def cancel(self, run: str, *, timeout_s: float = 60.0) -> dict[str, Any]:
        """See `Runs`."""
        folder = self.folder(run)
        if (outcome := self._summary(folder)["outcome"]) != Outcome.RUNNING:
            raise UsageError(
                f"run {folder.name} is not under way",
                expected="a run that is running",
                found=outcome,
                where=str(folder),
                hint="`rankline runs list` shows which ones are",
            )
        note_cancelled(folder)
        deadline = time.monotonic() + timeout_s
        while not (folder / SUMMARY).is_file():
            if run_state(folder) is not Outcome.RUNNING:  # the process that watched it was killed, and it with that
                summarize(folder, config=read_recipe(folder).summary, cancelled=True)
            elif time.monotonic() > deadline:
                pid = read_json_object(folder / WATCHER).get("pid", "unknown")
                raise RanklineError(
                    f"run {folder.name} has not ended yet",
                    expected=f"its end within {timeout_s:.0f} s of the request",
                    found=f"process {pid}, which watches it, is still alive",
                    where=str(folder),
                    hint="it ends when that process next reads the request; `kill` the process if it hangs",
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
        if self._summary(folder)["outcome"] == Outcome.RUNNING:
            raise UsageError(
                f"run {folder.name} is still under way",
                expected="a run that has ended",
                found="running",
                where=str(folder),
                hint=f"`rankline runs cancel {folder.name}` ends it",
            )
        recipe = read_recipe(folder)
        if on_start is not None:
            on_start(recipe)
        runner: Runner = "docker" if read_json_object(folder / WATCHER).get("runner") == "docker" else "local"
        trigger = {**read_json_object(folder / TRIGGER), "kind": "retry", "retry_of": folder.name}
        flow = read_flow(folder)
        summary = run_recipe(recipe, self.workspace, watch=watch, runner=runner, trigger=trigger, flow=flow)
        return {**summary, "trigger": trigger}

    def _summary(self, folder: Path) -> dict[str, Any]:
        summary = read_summary(folder)
        if summary is None:
            outcome = Outcome.UNREADABLE if (folder / SUMMARY).is_file() else run_state(folder)
            summary = {"run": folder.name, "outcome": outcome.value}
        return {**summary, "trigger": read_json_object(folder / TRIGGER) or None, "flow": read_flow(folder)}
