"""benchmarks/scale: the joins can be measured at several sizes, one row for each."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_joins_are_timed_for_each_size() -> None:
    command = [sys.executable, "-m", "benchmarks.scale", "--joins", "--join-rows", "2000", "4000"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()]
    assert rows[0] == ["rows", "join", "seconds", "seconds per million rows", "against plain"]
    assert [row[0] for row in rows[2:]] == ["2,000"] * 4 + ["4,000"] * 4
    assert len({row[1] for row in rows[2:]}) == 4
    assert [row[4] for row in rows[2:] if row[1].startswith("plain")] == ["1.0", "1.0"]
