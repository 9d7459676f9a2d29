"""A run of no weight in the place of a training run: it notes that it began and, a little later, that it ended."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from pipelines.schedules.firings import TIMESTAMP_FORMAT, Firing, Firings
from pipelines.schedules.worker import INTERRUPTED, RunResult, execute


def main() -> int:
    """Run the claimed fire time that the command names; `fails` and `dies` in its schedule's name are obeyed."""
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
        return execute(Firings(workspace / "schedules" / name), moment(stamp), work)
    except KeyboardInterrupt:
        return INTERRUPTED


def moment(stamp: str) -> datetime:
    """The fire time of a claim's file name."""
    return datetime.strptime(stamp, TIMESTAMP_FORMAT).replace(tzinfo=UTC)


if __name__ == "__main__":
    sys.exit(main())
