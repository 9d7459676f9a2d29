"""The embedded scheduler, as processes that are killed and started again."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipelines.claims import STAMP, Claims
from pipelines.schedule import Schedules, due
from tests.pipelines.fast_scheduler import FastClock

HOUSE = Path(__file__).resolve().parents[2]
KILLS = 6
START = datetime(2026, 10, 10, 10, 30, tzinfo=UTC)  # the month holds the end of summer time in Europe


def noted(workspace: Path, name: str, word: str) -> Counter[str]:
    path = workspace / f"{name}.{word}"
    return Counter(path.read_text().split() if path.is_file() else ())


@contextmanager
def scheduler(workspace: Path, clock: FastClock) -> Iterator[subprocess.Popen[bytes]]:
    """A scheduler as a process; whatever happens, none is left behind."""
    argv = [sys.executable, "-m", "tests.pipelines.fast_scheduler", str(workspace), str(clock)]
    with (workspace / "scheduler.log").open("ab") as output:
        process = subprocess.Popen(argv, cwd=HOUSE, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def log(workspace: Path) -> str:
    path = workspace / "scheduler.log"
    return path.read_text() if path.is_file() else ""


def create(workspace: Path, name: str, now: datetime = START, **knobs: Any) -> None:
    values = {"name": name, "recipe": "smoke", "cron": "0 0 3 * * *", "window": "30d"} | knobs
    Schedules(workspace).create(values, now=now)


def test_a_month_of_kills_misses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    end, seed = START + timedelta(days=30), random.randrange(10**6)
    chance, kills = random.Random(seed), 0
    create(tmp_path, "daily", cron="0 30 2 * * *", zone="Europe/Berlin", catch_up="all", catch_up_limit=1000)
    create(tmp_path, "twice", cron="0 0 */12 * * *", catch_up="all", catch_up_limit=1000, max_runs=2, jitter_s=6000)
    create(tmp_path, "often", cron="0 15 */6 * * *", zone="Asia/Shanghai")
    clock = FastClock(START, end, datetime.now(UTC) + timedelta(seconds=1), 30 * 86400 / 10)
    deadline = time.monotonic() + 300  # it takes 15 s where the machine has nothing else to do
    for left in reversed(range(KILLS + 1)):
        before = len(log(tmp_path))
        with scheduler(tmp_path, clock) as process:
            if not left:
                process.wait(deadline - time.monotonic())
                assert process.returncode == 0, log(tmp_path)[-3000:]
                break
            if chance.random() < 0.8:  # most while it works, some while it comes up
                while "at work" not in log(tmp_path)[before:] and process.poll() is None:
                    time.sleep(0.02)
            time.sleep(chance.uniform(0, 1.5))
            kills += process.poll() is None
    assert kills >= KILLS / 2
    store = Schedules(tmp_path)
    for name in ("daily", "twice", "often"):
        ended = noted(tmp_path, name, "ended")
        claims = store.claims(name)
        assert set(ended.values()) == {1}, (seed, name, ended.most_common(3))
        assert {claim.status for claim in claims.all()} == {"ended"}
        assert noted(tmp_path, name, "begun").keys() == ended.keys()
        asked = {each.at.strftime(STAMP) for each in due(store.history(name), after=START, until=end)}
        done = set(ended)
        if name != "often":
            assert done == asked, (seed, name)
            continue
        passed = _passed_over(claims, asked)
        assert not done & passed
        assert done | passed == asked, (seed, name)
        assert passed, "nothing was coalesced"
    assert len(noted(tmp_path, "daily", "ended")) in (30, 31)


def _passed_over(claims: Claims, asked: set[str]) -> set[str]:
    stamps = set()
    for each in claims.handled()["skipped"]:
        first, last = (datetime.fromisoformat(each[edge]).strftime(STAMP) for edge in ("first", "last"))
        inside = {stamp for stamp in asked if first <= stamp <= last}
        # what lies between two that were passed over may have been claimed before
        stamps |= {stamp for stamp in inside if claims.read(_moment(stamp)) is None}
    return stamps


def _moment(stamp: str) -> datetime:
    return datetime.strptime(stamp, STAMP).replace(tzinfo=UTC)
