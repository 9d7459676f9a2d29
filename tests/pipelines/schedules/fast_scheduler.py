"""A scheduler whose clock runs fast, to be killed: `python -m tests.pipelines.schedules.fast_scheduler WORKSPACE CLOCK`.

CLOCK is "simulated start,end,machine's time at the start,factor"; it goes on where it was when the program is started
again, and stands still at its end. The runs are tiny (tests/pipelines/schedules/tiny_run.py). The program ends when the clock
stands still and nothing is left to do.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipelines.schedules.daemon import Scheduler
from pipelines.schedules.firings import TIMESTAMP_FORMAT

TINY = Path(__file__).with_name("tiny_run.py")


@dataclass(frozen=True)
class FastClock:
    """A clock that shows ``start`` when the machine's shows ``machine_start``, and goes ``factor`` times as fast."""

    start: datetime
    end: datetime
    machine_start: datetime
    factor: float

    def now(self) -> datetime:
        """This moment."""
        return min(self.start + (datetime.now(UTC) - self.machine_start) * self.factor, self.end)

    def real(self, moment: datetime) -> datetime:
        """The machine's time when this clock shows ``moment``; what is later than the end never comes."""
        if moment > self.end:
            return self.machine_start + timedelta(days=1000)
        return self.machine_start + (moment - self.start) / self.factor

    def __str__(self) -> str:
        return f"{self.start.isoformat()},{self.end.isoformat()},{self.machine_start.isoformat()},{self.factor}"

    @classmethod
    def read(cls, text: str) -> FastClock:
        """The clock that was written with str()."""
        *moments, factor = text.split(",")
        return cls(*map(datetime.fromisoformat, moments), float(factor))


def command(workspace: Path, name: str, instant: datetime) -> list[str]:
    """The tiny run's command line."""
    return [sys.executable, "-S", str(TINY), str(workspace), name, instant.strftime(TIMESTAMP_FORMAT)]


def main() -> None:
    """Schedule until the end."""
    workspace, clock = Path(sys.argv[1]), FastClock.read(sys.argv[2])
    with Scheduler(workspace, max_runs=4, clock=clock, command=command, poll_s=0.05).running() as scheduler:
        print("at work", flush=True)
        while True:
            over = clock.now() == clock.end
            for name in scheduler.store.names() if over else ():
                scheduler.check(name)
            if over and scheduler.idle:
                return
            time.sleep(0.1)


if __name__ == "__main__":
    main()
