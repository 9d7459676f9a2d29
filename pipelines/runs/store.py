"""The runs of a place: which there are, how far one is, what its steps said; end one, or run one again.

`Runs` is what the commands `rankline runs …` ask; `LocalRuns` answers for a workspace, out of the folders that
pipelines/runs/runner.py and the doors write. Another place (a cluster) answers the same questions with the same meaning.
"""

from __future__ import annotations

import datetime
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from components.summary.step import SUMMARY, summarize
from pipelines.recipes import Recipe
from pipelines.runs.runner import CANCEL, RECIPE, TRIGGER, WATCHER, Runner, Started, flow_of
from pipelines.runs.runner import run as run_recipe
from pipelines.runs.runner import runs as run_folders
from rankline.errors import RanklineError, UsageError
from rankline.runtime import ledger, progress
from rankline.runtime.current_user import current_user

RUNNING, UNFINISHED = "running", "unfinished"  # the outcomes of a run without a summary: it goes on, or was killed
UNREADABLE = "unreadable"  # the outcome of one whose summary is there and cannot be read
LAST = "last"  # stands for the name of the last run
START_S = 300.0  # a step's process is that much older than its first word at most
QUIET_S = 30.0  # between two steps nothing is written for a few seconds
LOG = "kubeflow.log"


@dataclass(frozen=True)
class Line:
    """One run of a list."""

    run: str
    outcome: str
    model_id: str
    seconds: float | None  # none while it goes on
    trigger: str  # what asked for it: manual, scheduled, backfill, catch-up, retry
    recipe: str
    flow: str = "train"  # what of the recipe it ran: train, refresh, features


@dataclass(frozen=True)
class Said:
    """One line that a step's process wrote; without a step it is the runner's own word."""

    step: str
    line: str


@runtime_checkable
class Runs(Protocol):
    """The runs of one place. A run is named by its id, or by `last`.

    Every method that takes a run raises UsageError where there is no such run.
    """

    def list(self) -> list[Line]:
        """All runs, oldest first."""

    def show(self, run: str) -> dict[str, Any]:
        """A run's summary; of one without: `run`, `outcome` (running or unfinished) and `steps`. And its `trigger`."""

    def logs(self, run: str, step: str = "", *, follow: bool = False, everything: bool = False) -> Iterator[Said]:
        """What the processes of its steps said, or that of one step; ``follow`` goes on until the run has ended.

        ``everything`` gives Kubeflow's own words, too.
        """

    def cancel(self, run: str, *, patience_s: float = 60.0) -> dict[str, Any]:
        """End a run that is under way, and return its summary once nothing of it is left.

        Raises:
            UsageError: it is not under way.
            RanklineError: it has not ended within ``patience_s``.
        """

    def retry(
        self,
        run: str,
        *,
        watch: Callable[[Started], None] | None = None,
        begins: Callable[[Recipe], None] | None = None,
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

    def list(self) -> list[Line]:
        """See `Runs`."""
        lines = []
        for folder in run_folders(self.workspace):
            told = self._told(folder)
            lines.append(
                Line(
                    run=folder.name,
                    outcome=told["outcome"],
                    model_id=told.get("model_id") or "",
                    seconds=told.get("seconds"),
                    trigger=(told["trigger"] or {}).get("kind", "manual"),
                    recipe=str(_json(folder / RECIPE).get("name", "")),
                    flow=flow_of(folder),
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
        told = self._told(folder)
        if "steps" not in told:
            told["steps"] = []
            for step, entry in ledger.read_entries(folder).items():
                far = progress.read_progress(folder / f"{step}.progress")
                told["steps"].append({**entry.model_dump(), "seconds": round(entry.seconds, 2), "progress": far})
        return told

    def logs(self, run: str, step: str = "", *, follow: bool = False, everything: bool = False) -> Iterator[Said]:
        """See `Runs`."""
        if step and step not in (*ledger.ALL_STEPS, "summary"):
            raise UsageError(
                f"there is no step {step!r}", expected="one of " + ", ".join((*ledger.ALL_STEPS, "summary"))
            )
        folder = self.folder(run)
        told = _sections(_lines(folder, follow=follow), folder)
        return (said for said in (told if everything else _without_kubeflow(told)) if step in ("", said.step))

    def cancel(self, run: str, *, patience_s: float = 60.0) -> dict[str, Any]:
        """See `Runs`."""
        folder = self.folder(run)
        if (now := self._told(folder)["outcome"]) != RUNNING:
            raise UsageError(
                f"run {folder.name} is not under way",
                expected="a run that goes on",
                found=now,
                where=str(folder),
                hint="`rankline runs list` shows which do",
            )
        asked = {"at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "by": current_user()}
        ledger.write_json(folder / CANCEL, asked)
        end = time.monotonic() + patience_s
        while not (folder / SUMMARY).is_file():
            if state(folder) != RUNNING:  # whoever watched it was killed, and it with them
                summarize(folder, config=_recipe_of(folder).summary, cancelled=True)
            elif time.monotonic() > end:
                raise RanklineError(
                    f"run {folder.name} has not ended yet",
                    expected=f"its end within {patience_s:.0f} s of asking for it",
                    found=f"process {_json(folder / WATCHER).get('pid', 'unknown')}, which watches it, still lives",
                    where=str(folder),
                    hint="it ends as soon as that process looks; `kill` it if it never does",
                )
            time.sleep(0.1)
        return self._told(folder)

    def retry(
        self,
        run: str,
        *,
        watch: Callable[[Started], None] | None = None,
        begins: Callable[[Recipe], None] | None = None,
    ) -> dict[str, Any]:
        """See `Runs`."""
        folder = self.folder(run)
        if self._told(folder)["outcome"] == RUNNING:
            raise UsageError(
                f"run {folder.name} is still under way",
                expected="a run that has ended",
                found=RUNNING,
                where=str(folder),
                hint=f"`rankline runs cancel {folder.name}` ends it",
            )
        recipe, trigger = _recipe_of(folder), _json(folder / TRIGGER)
        if begins is not None:
            begins(recipe)
        runner: Runner = "docker" if _json(folder / WATCHER).get("runner") == "docker" else "local"
        told = {**trigger, "kind": "retry", "retry_of": folder.name}
        summary = run_recipe(recipe, self.workspace, watch=watch, runner=runner, trigger=told, flow=flow_of(folder))
        return {**summary, "trigger": told}

    def _told(self, folder: Path) -> dict[str, Any]:
        told = summary_of(folder)
        if told is None:
            told = {"run": folder.name, "outcome": UNREADABLE if (folder / SUMMARY).is_file() else state(folder)}
        return {**told, "trigger": _json(folder / TRIGGER) or None, "flow": flow_of(folder)}


def summary_of(folder: Path) -> dict[str, Any] | None:
    """What a run's summary says; None where there is none, or none that can be read."""
    told = _json(folder / SUMMARY)
    return told if isinstance(told.get("outcome"), str) else None


def state(folder: Path) -> str:
    """`running` or `unfinished`: what a run without a summary is.

    The process that watches it tells. Where that cannot be seen (in a container, on another machine, or it is of an
    earlier version) the process of the running step does, or a sign of life within half a minute.
    """
    import psutil

    watcher = _json(folder / WATCHER)
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
            if -1 < began < START_S and process.status() != psutil.STATUS_ZOMBIE:
                return RUNNING
    return RUNNING if abs(time.time() - last_sign(folder)) < QUIET_S else UNFINISHED


def last_sign(folder: Path) -> float:
    """When anything was last written into a run's folder (unix seconds)."""
    return max((path.stat().st_mtime for path in folder.iterdir()), default=folder.stat().st_mtime)


def _recipe_of(folder: Path) -> Recipe:
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


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none that can be read."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


# -- what was said ---------------------------------------------------------------------------------------------

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_MOMENT = r"\d\d:\d\d:\d\d\.\d{3} - \w+ - "
_BEGINS = re.compile(rf"{_MOMENT}Executing task '([^']+)'")
_ENDS = re.compile(rf"{_MOMENT}Task '([^']+)' finished with status")
_OWN = re.compile(
    rf"{_MOMENT}(Streamed logs:|Executing task|Task '.*SUCCESS|Running pipeline|Pipeline '.*SUCCESS)|-{{80}}$"
)
_RETURNED = re.compile(rf"{_MOMENT}Task '([^']+)' (outputs:|has no outputs)")
_EXECUTOR = re.compile(r"\[KFP Executor .* INFO\]: ")


def _lines(folder: Path, *, follow: bool, poll_s: float = 0.2) -> Iterator[str]:
    """The lines of a run's log; with ``follow`` those that are yet to be written, too, until the run has ended."""
    half = ""
    path = folder / LOG
    while follow and not path.is_file() and _goes_on(folder):
        time.sleep(poll_s)
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace", newline="\n") as log:
        while True:
            over = not (follow and _goes_on(folder))  # asked before reading: what is written last is read, too
            while part := log.readline():
                half += part
                if half.endswith("\n"):
                    yield half.rstrip()
                    half = ""
            if over:
                break
            time.sleep(poll_s)
    if half:
        yield half.rstrip()


def _goes_on(folder: Path) -> bool:
    return not (folder / SUMMARY).is_file() and state(folder) == RUNNING


def _sections(lines: Iterator[str], folder: Path) -> Iterator[Said]:
    """Each line with the step that said it; after a step its stack trace, where it left one."""
    step, told = "", set()

    def trace() -> Iterator[Said]:
        path = folder / f"{step}.traceback.txt"
        if step and step not in told and path.is_file():
            told.add(step)
            yield from (Said(step, line) for line in path.read_text(errors="replace").splitlines())

    for raw in lines:
        line = _COLOUR.sub("", raw)
        if begun := _BEGINS.match(line):
            yield from trace()
            step = begun[1]
        ended = _ENDS.match(line)
        if ended:
            yield from trace()
        yield Said(step, line.removeprefix("    ") if step else line)
        if ended:
            step = ""
    yield from trace()


def _without_kubeflow(told: Iterator[Said]) -> Iterator[Said]:
    """What is left without Kubeflow's own words around every step: its headings, what it hands over and gets back."""
    handed = returned = False
    for said in told:
        if handed:
            handed = said.line != "}"
        elif _EXECUTOR.match(said.line):
            handed = "Got executor_input:" in said.line
        elif _RETURNED.match(said.line):
            returned = True
        elif returned and not said.step and said.line.startswith(" "):
            continue
        elif said.line.strip() and not _OWN.match(said.line):
            returned = False
            yield said
