"""A scheduler whose clock runs fast, for tests that kill it.

    python -m tests.pipelines.schedules.fast_scheduler WORKSPACE CLOCK

CLOCK is "simulated start,end,machine's time at the start,factor". It goes on while no scheduler runs and stands still
at its end. The runs are tiny (tests/pipelines/schedules/tiny_run.py). The program ends when the clock stands still and
nothing is left to do.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipelines.schedules.daemon import Scheduler
from pipelines.schedules.firing import TIMESTAMP_FORMAT

TINY = Path(__file__).with_name("tiny_run.py")


@dataclass(frozen=True)
class FastClock:
    """A clock that shows ``start`` when the machine's shows ``machine_start``, and goes ``factor`` times as fast."""

    start: datetime
    end: datetime
    machine_start: datetime
    factor: float

    def now(self) -> datetime:
        """The simulated time."""
        return min(self.start + (datetime.now(UTC) - self.machine_start) * self.factor, self.end)

    def __str__(self) -> str:
        return f"{self.start.isoformat()},{self.end.isoformat()},{self.machine_start.isoformat()},{self.factor}"

    @classmethod
    def parse(cls, text: str) -> FastClock:
        """The clock that was written with str()."""
        *instants, factor = text.split(",")
        return cls(*map(datetime.fromisoformat, instants), float(factor))


def command(workspace: Path, name: str, instant: datetime) -> list[str]:
    """The tiny run's command line."""
    return [sys.executable, "-S", str(TINY), str(workspace), name, instant.strftime(TIMESTAMP_FORMAT)]


def is_idle(scheduler: Scheduler) -> bool:
    """Whether nothing runs, waits to run, or waits for a webhook."""
    checked = all(name in scheduler._next_checks for name in scheduler.store.names(deleted=True))
    return checked and not (scheduler._workers or any(scheduler._interrupted.values()) or scheduler._notifier.pending)


def main() -> None:
    """Schedule until the end."""
    workspace, clock = Path(sys.argv[1]), FastClock.parse(sys.argv[2])
    scheduler = Scheduler(workspace, max_runs=4, clock=clock, command=command)
    with scheduler.running():
        print("running", flush=True)
        while True:
            over = clock.now() == clock.end  # before the round, which then sees all that is due
            scheduler.tick()
            if over and is_idle(scheduler):
                return
            time.sleep(0.05)


if __name__ == "__main__":
    main()
