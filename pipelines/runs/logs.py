"""The logs of a run: one file per step, and what Kubeflow's runner printed in between.

<run folder>/<step>.log            what the step printed (rankline/runtime/step_log.py)
<run folder>/<step>.traceback.txt  the stack trace of an unexpected error
<run folder>/kubeflow.log          everything, with Kubeflow's own lines; all there is of earlier versions
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from components.summary.step import SUMMARY
from rankline.io.files import read_json_object
from rankline.runtime.outcomes import Outcome
from rankline.runtime.step_log import log_path
from rankline.runtime.steps import ALL_STEPS, EARLIER_NAMES

KUBEFLOW_LOG = "kubeflow.log"
RUNNER = ""  # the step of a line that the runner printed itself
_STARTED, _FINISHED = " - Executing task '", "' finished with status "
_INDENT = "    "  # Kubeflow's, before each line of a step


@dataclass(frozen=True)
class LogLine:
    """A line that a step printed; without a step, one of the runner."""

    step: str
    line: str


def read_logs(folder: Path, *, is_running: Callable[[], bool], poll_s: float = 0.2) -> Iterator[LogLine]:
    """The lines of all steps, step by step; new ones until ``is_running`` returns False.

    A run whose failure no step explains is shown with its kubeflow.log, and so is one of an earlier version, which
    has no logs of steps.
    """
    logs = {step: _GrowingFile(log_path(folder, step)) for step in ALL_STEPS}
    while True:
        running = is_running()  # asked before reading, so that the last lines are read, too
        for step, log in logs.items():
            yield from (LogLine(step, line) for line in log.new_lines(complete=not running))
            if not running and log.path.is_file():
                yield from (LogLine(step, line) for line in _traceback(folder, step))
        if not running:
            break
        time.sleep(poll_s)
    if not any(log.path.is_file() for log in logs.values()) or _runner_failed(folder):
        yield from read_kubeflow_log(folder, is_running=is_running)


def read_kubeflow_log(folder: Path, *, is_running: Callable[[], bool], poll_s: float = 0.2) -> Iterator[LogLine]:
    """The lines of Kubeflow's runner and of all steps; new ones until ``is_running`` returns False."""
    log = _GrowingFile(folder / KUBEFLOW_LOG)
    step = RUNNER
    while True:
        running = is_running()
        for line in log.new_lines(complete=not running):
            line = Text.from_ansi(line).plain  # without colours
            if _STARTED in line:
                step = _step_of_task(line.partition(_STARTED)[2].partition("'")[0])
            yield LogLine(step, line.removeprefix(_INDENT) if step else line)
            if _FINISHED in line:
                yield from (LogLine(step, each) for each in _traceback(folder, step))
                step = RUNNER
        if not running:
            break
        time.sleep(poll_s)


def _runner_failed(folder: Path) -> bool:
    summary = read_json_object(folder / SUMMARY)
    failed = summary.get("outcome") in (Outcome.FAILED, Outcome.INCOMPLETE)
    return failed and not summary.get("failed_step") and not summary.get("error")


def _step_of_task(task: str) -> str:
    name = task.replace("-", "_")
    return next((step for step, earlier in EARLIER_NAMES.items() if earlier == name), name)


def _traceback(folder: Path, step: str) -> list[str]:
    for name in (step, EARLIER_NAMES.get(step, step)):
        path = folder / f"{name}.traceback.txt"
        if path.is_file():
            return path.read_text(errors="replace").splitlines()
    return []


class _GrowingFile:
    """A text file that another process appends to."""

    def __init__(self, path: Path) -> None:
        self.path, self._offset = path, 0

    def new_lines(self, *, complete: bool) -> Iterator[str]:
        """The lines since the last call; one without its end only if the file is ``complete``."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as stream:
            stream.seek(self._offset)
            for line in stream:
                if not line.endswith(b"\n") and not complete:
                    break
                self._offset += len(line)
                yield line.decode(errors="replace").rstrip()
