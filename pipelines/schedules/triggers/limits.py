"""Whether a firing by need may start now: cool-down, budget, and runs that are under way."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from pipelines.runs.folder import read_summary
from pipelines.schedules.firing import Firing
from pipelines.schedules.model import Schedule
from rankline.schedules.data_window import parse_span

DAY = timedelta(days=1)


def held_back(schedule: Schedule, firings: Sequence[Firing], workspace: Path, *, now: datetime) -> str:
    """Why no firing by need may start; empty where one may.

    A firing that is dated later than ``now`` was made by a clock that was wrong, and holds nothing back.
    """
    if active := [each for each in firings if each.status != "ended" and each.instant <= now]:
        return f"the run of {active[-1].scheduled_at} is under way"
    by_need = [each for each in firings if each.kind == "need" and each.instant <= now]
    pause = parse_span(schedule.cooldown).elapsed
    if by_need and now < (until := by_need[-1].instant + pause):
        return f"cool-down until {until:%Y-%m-%d %H:%M:%S} UTC ({schedule.cooldown} after the last firing by need)"
    return _over_budget(schedule, [each for each in by_need if each.instant > now - DAY], workspace)


def _over_budget(schedule: Schedule, recent: Sequence[Firing], workspace: Path) -> str:
    """Which part of the budget the firings of the last 24 hours have used up."""
    budget = schedule.budget
    summaries = [read_summary(workspace / "runs" / each.run) or {} for each in recent if each.run]
    core_hours = sum(step.get("core_s", 0.0) for summary in summaries for step in summary.get("steps", ())) / 3600
    cost = sum(summary.get("cost", 0.0) for summary in summaries)
    used = (
        ("runs", float(len(recent)), budget.runs),
        ("core hours", core_hours, budget.core_hours),
        ("cost", cost, budget.cost),
    )
    spent = [f"{amount:g} of {limit:g} {name}" for name, amount, limit in used if limit is not None and amount >= limit]
    return f"budget of 24 hours: {', '.join(spent)} by need" if spent else ""
