"""The table of what a visit to a cluster found, in docs/cluster.md: each row names a test that exists, or a reason."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECTION = (ROOT / "docs/cluster.md").read_text().partition("### What that visit found\n")[2].partition("\n### ")[0]
ROWS = [line.strip("| ").split(" | ") for line in SECTION.splitlines() if re.match(r"\| [0-9]", line)]
NUMBERS = [
    *map(str, range(1, 14)), "13b", "13c", "13d", *map(str, range(14, 18)), "18a", "18b", "18c", "19", "20", "21",
    "21b", *map(str, range(22, 29)), "28b", "29", "30", "30b", *map(str, range(31, 39)),
]  # fmt: skip


def test_every_finding_has_a_row_with_a_change_and_a_test_or_a_reason() -> None:
    assert [row[0] for row in ROWS] == NUMBERS
    assert [row[0] for row in ROWS if len(row) != 4 or not all(row)] == []


def test_every_test_of_the_table_exists() -> None:
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    names = re.findall(r"`(test_\w+)`", SECTION)
    assert len(names) > 30
    assert [name for name in names if f"def {name}(" not in tests] == []
