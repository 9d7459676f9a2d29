"""Runs one firing in a process of its own: `python -m pipelines.schedules.worker WORKSPACE NAME STAMP`.

The process ends with whoever started it: when its standard input closes, it stops the run and all its steps. Start it
again to continue the same firing. Only the process that holds the firing's lock works on it, a firing that has ended
does not run again, and a run that reached its verdict before its process was killed counts. So a fire time may start
more than once and ends once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.schedules.firing import TIMESTAMP_FORMAT, Firing
from pipelines.schedules.firings import Firings
from rankline.errors import EXIT_FAILED, EXIT_STALE, RanklineError, UsageError
from rankline.runtime.outcomes import EXIT_INTERRUPTED

MAX_STALE_ATTEMPTS = 3
FlowRunner = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class RunResult:
    """How a run ended."""

    outcome: str
    exit_code: int
    error: str = ""


def execute(
    firings: Firings,
    instant: datetime,
    work: Callable[[Firing, Callable[[str], None]], RunResult],
    *,
    previous_result: Callable[[Firing], RunResult | None] = lambda firing: None,
) -> int:
    """Do the work of a firing once, record its result, and return the exit code of the run.

    Args:
        work: takes the firing and a function that records the id of its run.
        previous_result: the result of a firing whose run ended before its process was killed.
    """
    finished = threading.Lock()  # held once the work is done: nothing interrupts the process from then on
    threading.Thread(target=_exit_with_parent, args=(finished,), daemon=True).start()
    with firings.lock(instant):
        current = firings.read(instant)
        assert current is not None, "a process is only started for a firing"
        firing = current
        if firing.status == "ended":
            return firing.exit_code or 0
        result = previous_result(firing) if firing.run else None
        firing = firing.replace(status="running", attempts=firing.attempts + 1, started_at=_now())
        firings.write(firing)

        def record_run(run: str) -> None:
            nonlocal firing
            firing = firing.replace(run=run)
            firings.write(firing)

        result = result or work(firing, record_run)
        finished.acquire()
        firings.write(firing.replace(status="ended", ended_at=_now(), **asdict(result)))
        firings.path(instant, "lock").unlink(missing_ok=True)
    return result.exit_code


def _exit_with_parent(finished: threading.Lock) -> None:
    os.read(0, 1)  # nobody writes to it: this returns when the other end closes
    if finished.acquire(blocking=False):
        os.kill(os.getpid(), signal.SIGINT)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def flow_runner(name: str) -> FlowRunner:
    """The function that runs this flow of a recipe: (recipe, workspace, watch=, runner=, trigger=) -> summary.

    Raises:
        UsageError: this version has no such flow.
    """
    from pipelines.features import materialize
    from pipelines.refresh import refresh
    from pipelines.runs.runner import run

    flows: dict[str, FlowRunner] = {"train": run, "features": materialize, "refresh": refresh}
    if name not in flows:
        raise UsageError(
            f"this version cannot run the flow {name!r}",
            expected=f"one of {', '.join(flows)}",
            found=name,
            hint="`rankline schedule update NAME --flow …` chooses another flow",
        )
    return flows[name]


def run_firing(workspace: Path, firing: Firing, record_run: Callable[[str], None]) -> RunResult:
    """Run the recipe of a firing, in the flow of its schedule, on the data window of its fire time."""
    from pipelines import recipes
    from pipelines.assets import packaged
    from pipelines.schedules.store import ScheduleStore

    try:
        schedule = ScheduleStore(workspace).history(firing.schedule)[firing.revision - 1]
        run = flow_runner(schedule.flow)
        settings = schedule.run_settings(firing.instant, allow_older_window=firing.allow_older_window)
        settings += ["finetune.warm_start=false"] if firing.scratch else []
        recipe = recipes.named(schedule.recipe, settings, source=schedule.source, map=schedule.map)
        for name in recipe.material:
            packaged.fetch(name, workspace, say=print)
        watch = _RunWatcher(record_run)
        return _run_until_fresh(
            lambda: run(recipe, workspace, watch=watch, runner=schedule.runner, trigger=firing.trigger)
        )
    except (RanklineError, OSError) as error:
        return RunResult("failed", getattr(error, "exit_code", EXIT_FAILED), str(error))


class _RunWatcher:
    """Records the id of each run once."""

    def __init__(self, record_run: Callable[[str], None]) -> None:
        self._record_run, self._run = record_run, ""

    def __call__(self, handle: Any) -> None:
        if self._run != handle.folder.name:
            self._run = handle.folder.name
            self._record_run(self._run)


def _run_until_fresh(run: Callable[[], dict[str, Any]]) -> RunResult:
    """Run again where another run promoted or published first, so that this one compares with the new champion."""
    from pipelines.runs.runner import exit_code

    for attempts_left in reversed(range(MAX_STALE_ATTEMPTS)):
        try:
            summary = run()
            return RunResult(summary["outcome"], exit_code(summary), "; ".join(summary["reasons"]))
        except RanklineError as error:
            if not attempts_left or error.exit_code != EXIT_STALE:
                raise
    raise AssertionError("unreachable")


def read_result(workspace: Path, firing: Firing) -> RunResult | None:
    """The result of a firing's run, where the run ended and its process was killed before recording it."""
    from components.summary.step import SUMMARY
    from rankline.runtime import outcomes

    try:
        summary = json.loads((workspace / "runs" / firing.run / SUMMARY).read_text())
    except (OSError, ValueError):
        return None
    outcome = summary["outcome"]
    code = outcomes.exit_code(outcome)
    return RunResult(outcome, code, "; ".join(summary["reasons"])) if code not in (EXIT_FAILED, EXIT_STALE) else None


def main() -> int:
    """Run the firing that the command line names."""
    from pipelines.retention import sweep
    from pipelines.schedules.full_retrain import record_full_retrain
    from pipelines.schedules.store import ScheduleStore

    workspace, name, stamp = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    instant = datetime.strptime(stamp, TIMESTAMP_FORMAT).replace(tzinfo=UTC)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        store = ScheduleStore(workspace)
        record_full_retrain(store, name, instant)
        code = execute(
            store.firings(name),
            instant,
            lambda firing, record_run: run_firing(workspace, firing, record_run),
            previous_result=lambda firing: read_result(workspace, firing),
        )
        sweep.sweep_after_run(store, name)
        return code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
