"""How the plan of a run is printed."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

from cli.formats import format_duration

if TYPE_CHECKING:
    from rich.console import Group

    from pipelines.runs.plan import Plan, PlannedStep

MARKS = {"reused": ("↺", "blue"), "runs": ("▶", "cyan"), "unsure": ("?", "yellow"), "skipped": ("·", "dim")}


def print_plan(plan: Plan) -> None:
    """Print a plan as wide as the terminal; without a terminal, lines keep their length."""
    from rich.console import Console

    if sys.stdout.isatty():
        Console(highlight=False).print(plan_table(plan))
        return
    output = io.StringIO()
    Console(width=10_000, file=output, highlight=False).print(plan_table(plan))
    for line in output.getvalue().splitlines():
        print(line.rstrip())


def plan_table(plan: Plan) -> Group:
    """The plan as a table with one row per step, the expected duration, and the runs it is estimated from."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    steps = Table.grid(padding=(0, 1, 0, 0))
    steps.add_column(no_wrap=True)
    steps.add_column(no_wrap=True, min_width=9)
    steps.add_column(overflow="fold")
    steps.add_column(no_wrap=True, justify="right", min_width=12)
    steps.add_column(overflow="fold")
    steps.add_row("", "step", "", "usual", "why")
    for step in plan.steps:
        mark, colour = MARKS[step.state]
        span = _duration_range(step.least_s, step.most_s)
        steps.add_row(Text(mark, colour), Text(step.step), Text(_step_outcome(step)), Text(span), Text(step.why))
    sources = plan_sources(plan)
    return Group(
        Text(f"a run of {plan.recipe} would do this", "bold"),
        *(Text(f"  fetch {name} first") for name in plan.fetches),
        steps,
        Text(_total_text(plan, is_known=bool(sources)), "bold"),
        *(Text(f"times are from run {run}: {', '.join(names)}", "dim") for run, names in sources.items()),
    )


def _total_text(plan: Plan, *, is_known: bool) -> str:
    if not is_known:
        return "the duration is unknown: there is no earlier run"
    if plan.total.without:
        least = format_duration(plan.total.least_s)
        return f"at least {least}; there is no earlier run of {', '.join(plan.total.without)}"
    return f"about {_duration_range(plan.total.least_s, plan.total.most_s)}"


def _step_outcome(step: PlannedStep) -> str:
    """What will happen to a step, in words."""
    if step.unless:
        return f"runs unless {' and '.join(step.unless)} {'come' if len(step.unless) > 1 else 'comes'} out the same"
    if step.provided:
        return f"runs if {step.provided}"
    if step.state != "unsure":
        return str(step.state)
    if not step.because:
        return "decided on the cluster"
    return f"depends on the output of {' and '.join(step.because)}"


def plan_sources(plan: Plan) -> dict[str, list[str]]:
    """Run -> what its times are used for: steps, and `around the steps` for the overhead."""
    sources: dict[str, list[str]] = {}
    for step in plan.steps:
        source_runs = {"reused": [step.reuse_from], "runs": [step.run_from], "unsure": [step.run_from, step.reuse_from]}
        for run in dict.fromkeys(each for each in source_runs.get(step.state, []) if each):
            sources.setdefault(run, []).append(step.step)
    if plan.total.around_from:
        sources.setdefault(plan.total.around_from, []).append("around the steps")
    return sources


def _duration_range(least: float | None, most: float | None) -> str:
    if most is None:
        return "no run yet"
    if least is None:
        return f"up to {format_duration(most)}"
    low, high = format_duration(least), format_duration(most)
    return high if low == high else f"{low}-{high}"
