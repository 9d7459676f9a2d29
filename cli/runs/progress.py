"""A run as it is watched, drawn from the ledger: a live table, or lines without a terminal; and its summary."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from cli.formats import fitted
from cli.formats import format_duration as format_duration
from pipelines.runs.estimates import estimates
from pipelines.runs.folder import read_flow
from pipelines.runs.runner import RunHandle
from rankline.runtime import ledger, progress
from rankline.runtime.steps import FLOWS, TRAINING_STEPS

if TYPE_CHECKING:
    from rich.console import Group

MARKS = {"running": "▶", "done": "✔", "reused": "↺", "failed": "✘"}
COLOURS = {"running": "cyan", "done": "green", "reused": "blue", "failed": "red"}
BAR_WIDTH = 20
LINE_INTERVAL_S = 10  # between two lines of a running step, without a terminal


def progress_text(folder: Path, step: str) -> str:
    """How far the running step is: a bar, the time left, its rate and numbers, and its phase."""
    state: dict[str, Any] = progress.read_progress(folder / f"{step}.progress")
    phase = str(state.get("phase", ""))
    if "total" not in state:
        return phase
    share = state["done"] / max(state["total"], 1)
    remaining = [f"{format_duration(state['remaining_s'])} left"] if state["remaining_s"] else []
    numbers = [f"{name} {value:.4g}" for name, value in state["numbers"].items() if value == value]
    filled = int(BAR_WIDTH * share)
    bar = "█" * filled + "░" * (BAR_WIDTH - filled)
    return ", ".join([f"{bar} {share:.0%}", *remaining, f"{state['rate']:.1f}/s", *numbers, phase])


def usual_durations(workspace: Path, recipe: str, *, before: Path) -> dict[str, float]:
    """Step -> seconds it took the last time it was not reused for this recipe."""
    return {step: each.seconds for step, each in estimates(workspace, recipe, before=before).ran.items()}


def run_table(folder: Path, usual_seconds: dict[str, float], *, seconds: float, ended: bool = False) -> Group:
    """The run as a table with one line per step, whatever the width of the terminal."""
    from rich.console import Group
    from rich.text import Text

    steps = FLOWS.get(read_flow(folder), TRAINING_STEPS)
    width = max(map(len, steps))
    lines = [
        Text(f"{folder.name}   {format_duration(seconds)}", "bold"),
        Text(f"  {'step':<{width}} {'elapsed':>7} {'usual':>7}"),
    ]
    entries = ledger.read_entries(folder)
    for step in steps:
        usual = format_duration(usual_seconds[step]) if step in usual_seconds else ""
        if (entry := entries.get(step)) is None:
            lines.append(Text(f"· {step:<{width}} {'':>7} {usual:>7}", "dim"))
            continue
        status = _entry_status(entry, ended=ended)
        text = (status == "running" and progress_text(folder, step)) or entry.why
        row = f" {step:<{width}} {format_duration(entry.seconds):>7} {usual:>7}  {text}"
        lines.append(Text.assemble((MARKS[status], COLOURS[status]), row))
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(*lines)


def _entry_status(entry: ledger.Entry, *, ended: bool) -> str:
    """The status of a step; one that is still running after its run has ended was killed."""
    return "failed" if ended and entry.status == "running" else entry.status


class Screen:
    """Watches one run; a context manager around it."""

    def __init__(self, workspace: Path, recipe: str) -> None:
        self.workspace, self.recipe = workspace, recipe
        self.started_at = time.monotonic()
        self.printed_at = 0.0  # when the last line was printed
        self._usual_seconds: dict[str, float] | None = None
        self._printed: dict[str, str] = {}
        self._live: Any = None

    def __enter__(self) -> Screen:
        if sys.stdout.isatty():
            from rich.live import Live

            self._live = Live(auto_refresh=False)
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.transient = error is None  # the summary replaces the table, an error stays below it
            self._live.__exit__(kind, error, trace)

    def __call__(self, run: RunHandle) -> None:
        """Draw the run as it is now."""
        if self._usual_seconds is None:
            self._usual_seconds = usual_durations(self.workspace, self.recipe, before=run.folder)
        ended = run.process.poll() is not None
        if self._live is not None:
            seconds = time.monotonic() - self.started_at
            self._live.update(run_table(run.folder, self._usual_seconds, seconds=seconds, ended=ended), refresh=True)
        else:
            self._print_lines(run.folder, ended=ended)

    def _print_lines(self, folder: Path, *, ended: bool) -> None:
        """Print a line when a step starts, when it ends, and every few seconds in between."""
        usual_seconds = self._usual_seconds or {}
        for step, entry in ledger.read_entries(folder).items():
            status = _entry_status(entry, ended=ended)
            if self._printed.get(step) != status:
                self._printed[step] = status
                if status == "running":
                    usual = f" (usually {format_duration(usual_seconds[step])})" if step in usual_seconds else ""
                    self._print(f"{MARKS[status]} {step}{usual}")
                else:
                    self._print(f"{MARKS[status]} {step:<9} {format_duration(entry.seconds):>7}  {entry.why}")
            elif status == "running" and time.monotonic() - self.printed_at > LINE_INTERVAL_S:
                self._print(f"  {step:<9} {format_duration(entry.seconds):>7}  {progress_text(folder, step)}")

    def _print(self, line: str) -> None:
        self.printed_at = time.monotonic()
        print(line, flush=True)


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """The summary of a run: a table of its steps no wider than the terminal, the verdict, and the cost."""
    width = max([9, *(len(step["step"]) for step in summary["steps"])])
    lines = [f"{'step':<{width}} {'':<6} {'wall':>7} {'import':>7} {'memory':>8}  why"]
    for step in summary["steps"]:
        wall, imports = format_duration(step["seconds"]), format_duration(step["import_s"])
        lines.append(
            f"{step['step']:<{width}} {step['status']:<6} {wall:>7} {imports:>7}"
            f" {step['peak_memory_mb']:>5} MB  {step['why']}"
        )
    lines = fitted(lines)
    lines += [_warm_start_line(step["result"]) for step in summary["steps"] if step["result"].get("began_from")]
    lines += [f"started by need: {summary['why']}"] if summary.get("why") else []
    lines += [
        f"{summary['outcome']}: {summary['verdict'] or 'no verdict'}",
        f"run {summary['run']} took {format_duration(summary['seconds'])}, "
        f"{format_duration(summary['work_s'])} of it the steps' own work;"
        f" cost {summary['cost']:.4f} {summary['currency']}",
    ]
    return lines


def _warm_start_line(result: dict[str, Any]) -> str:
    """What training started from, if it may start from a model."""
    why = f": {result['began_why']}" if result.get("began_why") else ""
    if not result.get("items_found_again"):
        return f"finetune started from scratch{why}"
    cold = result.get("teachers_from_scratch", "")
    fresh = f", {cold} teachers from scratch: the model has no more" if cold else ""
    matched = f"{result['items_found_again']} items found again"
    return f"finetune started from the weights of model {result['began_from']}, {matched}{fresh}{why}"


def warning_lines(summary: dict[str, Any]) -> list[str]:
    """What steps warn of, such as a champion that was promoted past the gates."""
    return [f"warning: {step['result']['warning']}" for step in summary["steps"] if step["result"].get("warning")]


def reason_lines(summary: dict[str, Any]) -> list[str]:
    """The checks that were not met, and those that lack data, as verdict.md calls them."""
    lacking = {name for step in summary["steps"] for name in step["result"].get("insufficient", ())}
    return [f"{'insufficient data' if each in lacking else 'not met'}: {each}" for each in summary["reasons"]]
