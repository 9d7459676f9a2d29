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

from pipelines.schedules.firings import STAMP, Claim, Claims
from rankline.errors import UsageError

STALE = ("the champion changed since", "the catalogue changed since")
STALE_TRIES = 3
INTERRUPTED = 130
Command = Callable[[Path, str, datetime], Sequence[str]]
Process = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    outcome: str
    exit_code: int
    error: str = ""


# -- the parent's side -------------------------------------------------------------------------------------


def command(workspace: Path, name: str, moment: datetime) -> list[str]:
    """The command line of this program."""
    stamp = moment.astimezone(UTC).strftime(STAMP)
    return [sys.executable, "-P", "-m", "pipelines.schedules.worker", str(workspace), name, stamp]


def begin(argv: Sequence[str], log: Path, *, directory: str = "") -> Process:
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


def end(process: Process, *, patience_s: float = 30.0) -> None:
    """Have a run end in order, and see to it that it does."""
    if process.stdin:
        process.stdin.close()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def given_up(claims: Claims, claim: Claim, why: str) -> Claim:
    """Note that a claim ended without its run saying how."""
    claim = claim.but(status="ended", outcome="failed", exit_code=1, error=why, ended_at=_now())
    claims.write(claim)
    return claim


def last_words(log: Path, *, times: int = 1) -> str:
    """What a run that gave no verdict said last."""
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    last = next((line for line in reversed(lines) if line.strip()), "none")
    often = "" if times == 1 else f" {times} times"
    return f"its process ended without a verdict{often}; its last words: {last}\n  where: {log}"


def tidy(log: Path) -> None:
    """A log in which nothing was said is none."""
    if log.is_file() and not log.stat().st_size:
        log.unlink()


# -- the run's own side ------------------------------------------------------------------------------------


def fulfil(
    claims: Claims,
    moment: datetime,
    work: Callable[[Claim, Callable[[str], None]], Ended],
    *,
    ended: Callable[[Claim], Ended | None] = lambda claim: None,
) -> int:
    """Do the work of a claim, once, and note how it ended; the exit code is the run's.

    ``work`` is given the claim and a function that it tells its run's id; ``ended`` says of a claim that was begun
    before whether its run came to an end all the same.
    """
    over = threading.Lock()  # taken for good when the work has ended: from there on nothing interrupts
    threading.Thread(target=_end_with_parent, args=(over,), daemon=True).start()
    with claims.alone(moment):
        claim = claims.read(moment)
        assert claim is not None, "a run is started for a claim only"
        if claim.status == "ended":
            return claim.exit_code or 0
        result = ended(claim) if claim.run else None
        claim = claim.but(status="running", attempts=claim.attempts + 1, started_at=_now())
        claims.write(claim)

        def tell(run: str) -> None:
            nonlocal claim
            claim = claim.but(run=run)
            claims.write(claim)

        result = result or work(claim, tell)
        over.acquire()
        claims.write(
            claim.but(
                status="ended",
                outcome=result.outcome,
                exit_code=result.exit_code,
                error=result.error,
                ended_at=_now(),
            )
        )
        claims.path(moment, "lock").unlink(missing_ok=True)
    return result.exit_code


def _end_with_parent(over: threading.Lock) -> None:
    os.read(0, 1)  # nothing is ever written there: this returns when the other end is closed
    if over.acquire(blocking=False):
        os.kill(os.getpid(), signal.SIGINT)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def flow_of(name: str) -> Callable[..., dict[str, Any]]:
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


def perform(workspace: Path, claim: Claim, tell: Callable[[str], None]) -> Ended:
    """Run the recipe of a claim, by the flow of its schedule, on its own window of the data."""
    from pipelines import recipes
    from pipelines.assets import packaged
    from pipelines.runs.runner import Started, exit_code
    from pipelines.schedules.store import Schedules
    from rankline.errors import RanklineError

    begun = ""

    def watch(started: Started) -> None:
        nonlocal begun
        if begun != started.folder.name:
            begun = started.folder.name
            tell(begun)

    try:
        schedule = Schedules(workspace).history(claim.schedule)[claim.revision - 1]
        run = flow_of(schedule.flow)
        settings = schedule.arguments(claim.moment, allow_older_window=claim.allow_older_window)
        settings += ["finetune.warm_start=false"] if claim.scratch else []
        recipe = recipes.named(schedule.recipe, settings, source=schedule.source, map=schedule.map)
        for name in recipe.material:
            packaged.fetch(name, workspace, say=print)
        for left in reversed(range(STALE_TRIES)):
            try:
                summary = run(recipe, workspace, watch=watch, runner=schedule.runner, trigger=claim.trigger)
                return Ended(summary["outcome"], exit_code(summary), "; ".join(summary["reasons"]))
            except RanklineError as error:
                if not left or not any(
                    each in str(error) for each in STALE
                ):  # else another run was faster: begin from it
                    raise
    except (RanklineError, OSError) as error:
        return Ended("failed", getattr(error, "exit_code", 1), str(error))
    raise AssertionError("unreachable")


def verdict_of(workspace: Path, claim: Claim) -> Ended | None:
    """How the run of a claim ended, where it did and was killed before it could say so."""
    from components.summary.step import SUMMARY
    from pipelines.runs.runner import EXIT_CODES

    try:
        summary = json.loads((workspace / "runs" / claim.run / SUMMARY).read_text())
    except (OSError, ValueError):
        return None
    outcome = summary["outcome"]
    return Ended(outcome, EXIT_CODES[outcome], "; ".join(summary["reasons"])) if outcome in EXIT_CODES else None


def main() -> int:
    """Run the claimed fire time that the command names."""
    from pipelines.retention import sweep
    from pipelines.schedules.full_retrain import take_turn
    from pipelines.schedules.store import Schedules

    workspace, name, stamp = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    moment = datetime.strptime(stamp, STAMP).replace(tzinfo=UTC)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        store = Schedules(workspace)
        take_turn(store, name, moment)
        code = fulfil(
            store.claims(name),
            moment,
            lambda claim, tell: perform(workspace, claim, tell),
            ended=lambda claim: verdict_of(workspace, claim),
        )
        sweep.after_run(store, name)
        return code
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
