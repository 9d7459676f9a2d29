"""A thousand schedules: how long the scheduler takes until it has looked at all of them, and how long others take."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pipelines.schedules.daemon import Scheduler
from pipelines.schedules.local import LocalSchedules
from pipelines.schedules.store import ScheduleStore

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Shanghai", "Australia/Lord_Howe")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=1000)
    count = parser.parse_args().schedules
    print(f"| {count} schedules | wall s | CPU s |")
    print("| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        with measured("created"):
            _create(workspace, count)
        scheduler = Scheduler(workspace, say=lambda line: None)
        with ExitStack() as stack:
            with measured("start of the scheduler, until it has looked at all"):
                stack.enter_context(scheduler.running())
                scheduler.tick()
            with measured("one round in which nothing is due"):
                scheduler.tick()
        with measured("listed"):
            assert len(LocalSchedules(workspace).list()) == count


def _create(workspace: Path, count: int) -> None:
    store, now = ScheduleStore(workspace), datetime.now(UTC)
    for number in range(count):
        zone, cron = ZONES[number % len(ZONES)], f"0 {number % 60} {number % 24} * * *"
        values = {"name": f"s{number}", "recipe": "smoke", "cron": cron, "zone": zone, "window": "30d", "lag": "6h"}
        store.create(values, now=now)


@contextmanager
def measured(what: str) -> Iterator[None]:
    """Print the row of what the block does."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    print(f"| {what} | {time.perf_counter() - wall:.2f} | {time.process_time() - cpu:.2f} |")


if __name__ == "__main__":
    main()
