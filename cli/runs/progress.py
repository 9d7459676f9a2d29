"""A run as people watch it: drawn from the ledger, as a live table or as lines where there is no terminal."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from pipelines.runs.estimates import estimates
from pipelines.runs.folder import read_flow
from rankline.runtime import ledger, progress
from rankline.runtime.steps import FLOWS, TRAINING_STEPS

MARKS = {"running": "▶", "done": "✔", "reused": "↺", "failed": "✘"}
COLOURS = {"running": "cyan", "done": "green", "reused": "blue", "failed": "red"}


def format_duration(seconds: float) -> str:
    """Seconds as people say them: 8.3 s, 1:12."""
    return f"{seconds:.1f} s" if seconds < 59.95 else f"{round(seconds) // 60}:{round(seconds) % 60:02d}"


def progress_text(folder: Path, step: str) -> str:
    """How far the running step says it is: a bar, what remains, its rate and numbers, and what it is doing."""
    state: dict[str, Any] = progress.read_progress(folder / f"{step}.progress")
    phase = str(state.get("phase", ""))
    if "total" not in state:
        return phase
    share = state["done"] / max(state["total"], 1)
    remaining = [f"{format_duration(state['remaining_s'])} left"] if state["remaining_s"] else []
    numbers = [f"{name} {value:.4g}" for name, value in state["numbers"].items() if value == value]
    bar = "█" * int(20 * share) + "░" * (20 - int(20 * share))
    return ", ".join([f"{bar} {share:.0%}", *remaining, f"{state['rate']:.1f}/s", *numbers, phase])


def usual_durations(workspace: Path, recipe: str, *, before: Path) -> dict[str, float]:
    """Step -> seconds it took the last time it really ran for this recipe."""
    return {step: each.seconds for step, each in estimates(workspace, recipe, before=before).ran.items()}


def run_table(folder: Path, usual_seconds: dict[str, float], *, seconds: float, ended: bool = False) -> Any:
    """The run as a table of one line a step, whatever the width; ``known`` are the estimates."""
    from rich.console import Group
    from rich.text import Text

    def line(*parts: tuple[str, str]) -> Any:
        return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")

    steps = FLOWS.get(read_flow(folder), TRAINING_STEPS)
    step_width = max(map(len, steps))
    lines = [
        line((f"{folder.name}   {format_duration(seconds)}", "bold")),
        line((f"  {'step':<{step_width}} {'elapsed':>7} {'usual':>7}", "")),
    ]
    entries = ledger.read_entries(folder)
    for step in steps:
        usual = format_duration(usual_seconds[step]) if step in usual_seconds else ""
        if (entry := entries.get(step)) is None:
            lines.append(line((f"· {step:<{step_width}} {'':>7} {usual:>7}", "dim")))
            continue
        status = _entry_status(entry, ended=ended)
        text = (status == "running" and progress_text(folder, step)) or entry.why
        row = f" {step:<{step_width}} {format_duration(entry.seconds):>7} {usual:>7}  {text}"
        lines.append(line((MARKS[status], COLOURS[status]), (row, "")))
    return Group(*lines)


PLAN_MARKS = {"reused": ("↺", "blue"), "runs": ("▶", "cyan"), "unsure": ("?", "yellow"), "skipped": ("·", "dim")}


def plan_table(plan: Any) -> Any:
    """A plan (pipelines/runs/plan.py) as a table of steps, and what it comes to; reasons go on below where it is narrow."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    def line(*parts: tuple[str, str]) -> Any:
        return Text.assemble(*parts)

    lines = [line((f"a run of {plan.recipe} would do this", "bold"))]
    lines += [line((f"  fetch {name} first", "")) for name in plan.fetches]
    outcomes = {step.step: _step_outcome(step) for step in plan.steps}
    steps = Table.grid(padding=(0, 1, 0, 0))
    steps.add_column(no_wrap=True)
    steps.add_column(no_wrap=True, min_width=9)
    steps.add_column(overflow="fold")
    steps.add_column(no_wrap=True, justify="right", min_width=12)
    steps.add_column(overflow="fold")
    steps.add_row("", "step", "", "usual", "why")
    for step in plan.steps:
        mark, colour = PLAN_MARKS[step.state]
        span = _duration_range(step.least_s, step.most_s)
        steps.add_row(Text(mark, colour), Text(step.step), Text(outcomes[step.step]), Text(span), Text(step.why))
    lines.append(steps)
    total, sources = plan.total, plan_sources(plan)
    if not sources:
        total_text = "no earlier run tells how long it takes"
    elif total.without:
        total_text = f"at least {format_duration(total.least_s)}; no earlier run tells of {', '.join(total.without)}"
    else:
        total_text = f"about {_duration_range(total.least_s, total.most_s)}"
    lines.append(line((total_text, "bold")))
    lines += [line((f"times are from run {run}: {', '.join(steps)}", "dim")) for run, steps in sources.items()]
    return Group(*lines)


def print_plan(plan: Any) -> None:
    """Print a plan as wide as the terminal; where there is none, every line as long as it is."""
    import io

    from rich.console import Console

    if sys.stdout.isatty():
        Console(highlight=False).print(plan_table(plan))
        return
    console = Console(width=10_000, file=io.StringIO(), highlight=False)
    console.print(plan_table(plan))
    for line in console.file.getvalue().splitlines():  # type: ignore[attr-defined]
        print(line.rstrip())


def _step_outcome(step: Any) -> str:
    """What becomes of a step, in words."""
    if step.unless:
        return f"runs unless {' and '.join(step.unless)} {'come' if len(step.unless) > 1 else 'comes'} out the same"
    if step.state == "unsure" and not step.provided and not step.because:
        return "decided on the cluster"
    if step.state == "unsure" and not step.provided:
        return f"hangs on what {' and '.join(step.because)} {'make' if len(step.because) > 1 else 'makes'}"
    return f"runs if {step.provided}" if step.provided else str(step.state)


def plan_sources(plan: Any) -> dict[str, list[str]]:
    """Run -> what the plan knows of it: steps, and `around` for what is around them."""
    sources: dict[str, list[str]] = {}
    for step in plan.steps:
        source_runs = {"reused": [step.reuse_from], "runs": [step.run_from], "unsure": [step.run_from, step.reuse_from]}
        for run in dict.fromkeys(each for each in source_runs.get(step.state, []) if each):
            sources.setdefault(run, []).append(step.step)
    if plan.total.around_from:
        sources.setdefault(plan.total.around_from, []).append("around the steps")
    return sources


def _duration_range(least: float | None, most: float | None) -> str:
    if least is None or most is None:
        return "no run yet" if most is None else f"up to {format_duration(most)}"
    return (
        format_duration(most)
        if format_duration(least) == format_duration(most)
        else f"{format_duration(least)}-{format_duration(most)}"
    )


def _entry_status(entry: ledger.Entry, *, ended: bool) -> str:
    """What a step is; one that still runs after its run has ended was killed."""
    return "failed" if ended and entry.status == "running" else entry.status


class Screen:
    """Watches one run; used as a context manager around it."""

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
            self._live.transient = error is None  # the summary takes its place, an error comes below it
            self._live.__exit__(kind, error, trace)

    def __call__(self, under_way: Any) -> None:
        """Draw the run as it is now."""
        folder: Path = under_way.folder
        if self._usual_seconds is None:
            self._usual_seconds = usual_durations(self.workspace, self.recipe, before=folder)
        ended = under_way.process.poll() is not None
        if self._live is not None:
            drawn = run_table(folder, self._usual_seconds, seconds=time.monotonic() - self.started_at, ended=ended)
            self._live.update(drawn, refresh=True)
        else:
            self._print_lines(folder, ended=ended)

    def _print_lines(self, folder: Path, *, ended: bool) -> None:
        """One line when a step begins, one when it ends, and one every ten seconds between."""
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
            elif status == "running" and time.monotonic() - self.printed_at > 10:
                self._print(f"  {step:<9} {format_duration(entry.seconds):>7}  {progress_text(folder, step)}")

    def _print(self, line: str) -> None:
        self.printed_at = time.monotonic()
        print(line, flush=True)


def _warm_start_line(result: dict[str, Any]) -> str:
    """What training began with, where it may begin with a model."""
    why = f": {result['began_why']}" if result.get("began_why") else ""
    recovered = f", {result['items_found_again']} items found again" if result.get("items_found_again") else ""
    if recovered:
        cold = result.get("teachers_from_scratch", "")
        fresh = f", {cold} teachers from scratch: the model has no more" if cold else ""
        return f"finetune began with the weights of model {result['began_from']}{recovered}{fresh}{why}"
    return f"finetune began from scratch{why}"


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """A run's summary as a table of steps and its verdict, no wider than the terminal."""
    step_width = max([9, *(len(step["step"]) for step in summary["steps"])])
    lines = [f"{'step':<{step_width}} {'':<6} {'wall':>7} {'import':>7} {'memory':>8}  why"]
    for step in summary["steps"]:
        lines.append(
            f"{step['step']:<{step_width}} {step['status']:<6} {format_duration(step['seconds']):>7} {format_duration(step['import_s']):>7}"
            f" {step['peak_memory_mb']:>5} MB  {step['why']}"
        )
    width = shutil.get_terminal_size((1000, 24)).columns
    lines = [line if len(line) <= width else f"{line[: width - 1]}…" for line in lines]
    total, work = summary["seconds"], summary["work_s"]
    lines += [_warm_start_line(step["result"]) for step in summary["steps"] if step["result"].get("began_from")]
    lines += [
        f"{summary['outcome']}: {summary['verdict'] or 'no verdict'}",
        f"run {summary['run']} took {format_duration(total)}, {format_duration(work)} of it the steps' own work;"
        f" cost {summary['cost']:.4f} {summary['currency']}",
    ]
    return lines
