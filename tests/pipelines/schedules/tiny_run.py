"""A tiny run in place of a training run: it notes that it began and, a little later, that it ended."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

# started with -S, which is faster; the environment's packages are added here
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
sys.path.append(str(next((Path(sys.executable).parent.parent / "lib").glob("python3*")) / "site-packages"))

from pipelines.schedules.firing import TIMESTAMP_FORMAT, Firing
from pipelines.schedules.firings import Firings
from pipelines.schedules.worker import RunResult, execute
from rankline.runtime.outcomes import EXIT_INTERRUPTED


def main() -> int:
    """Run the firing that the command line names; it fails or dies where its schedule's name says so."""
    workspace, name, stamp = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def work(firing: Firing, record_run: Callable[[str], None]) -> RunResult:
        note("begun")
        time.sleep(30 if "sleeps" in name else 0.02)
        if "dies" in name:
            print("I was here")
            sys.exit(1)
        note("ended")
        if "fails" in name:
            return RunResult("failed", 1, "finetune stopped: the loss is no number")
        return RunResult("promoted", 0)

    def note(word: str) -> None:
        with (workspace / f"{name}.{word}").open("a") as file:
            file.write(f"{stamp}\n")

    try:
        return execute(Firings(workspace / "schedules" / name), scheduled_at(stamp), work)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def scheduled_at(stamp: str) -> datetime:
    """The fire time in the name of a firing's file."""
    return datetime.strptime(stamp, TIMESTAMP_FORMAT).replace(tzinfo=UTC)


if __name__ == "__main__":
    sys.exit(main())
