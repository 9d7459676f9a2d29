"""Sources of several files: logs of one kind of event each, parts with other columns, tables that would be left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.onboarding.proposals import Cell, csv, log, proposed, tried

START_S = 1_680_000_000
ITEMS = csv(rows=5, item_id=lambda n: f"i{n}", title=lambda n: f"a thing called {n}")


def more(rows: int, **columns: Cell) -> str:
    return log(rows, timestamp=lambda n: START_S + 1 + 7 * n, **columns)


@pytest.mark.parametrize(
    ("names", "types"),
    [
        (("clicks.csv", "impressions.csv"), {"clicks.csv": "click", "impressions.csv": "impression"}),
        (("log/clicks.csv", "log/orders.csv"), {"log/clicks.csv": "click", "log/orders.csv": "purchase"}),
        (
            ("click/part-0.csv", "impression/part-0.csv"),
            {"click/part-0.csv": "click", "impression/part-0.csv": "impression"},
        ),
    ],
)
def test_logs_that_are_named_after_what_happened_are_one(
    tmp_path: Path, names: tuple[str, str], types: dict[str, str]
) -> None:
    files: dict[str, str | bytes] = {names[0]: log(), names[1]: more(80, position=lambda n: n % 5 + 1)}
    result = tried(tmp_path, {**files, "items.csv": ITEMS})
    columns = result.proposal.settings["columns"]
    assert (columns["event_type"], columns["event_types"]) == ("source_file", types)
    assert (result.result.rows_kept["events"], result.rejected) == (120, {})
    assert result.result.rows_without_column == {"events.position": 40}


def test_files_of_two_kinds_with_the_same_columns_are_one_table(tmp_path: Path) -> None:
    rows = [{"user_id": f"u{n}", "item_id": "i1", "timestamp": START_S + n} for n in range(20)]
    files: dict[str, str | bytes] = {"a.csv": log(), "b.jsonl": "\n".join(map(json.dumps, rows))}
    assert tried(tmp_path, files).result.rows_read["events"] == 60


@pytest.mark.integration
@pytest.mark.parametrize("name", ["events_backup.csv", "tagged.csv", "old/events.csv"])
def test_a_large_table_with_the_keys_of_events_is_not_left_out_in_silence(tmp_path: Path, name: str) -> None:
    files: dict[str, str | bytes] = {"events.csv": log(), name: more(10, tag=lambda n: f"tag {n % 3}")}
    gaps = [gap for gap in proposed(tmp_path, files).gaps if gap.flag]
    assert [gap.flag for gap in gaps] == ["--events"]
    assert f"{name} (10 rows)" in gaps[0].what
    answered = proposed(tmp_path, files, roles={"events": "events.csv"})
    assert not [gap for gap in answered.gaps if gap.flag]


def test_a_small_one_is_named_alone(tmp_path: Path) -> None:
    proposal = proposed(tmp_path, {"events.csv": log(), "tagged.csv": more(3, tag=lambda n: f"tag {n % 3}")})
    assert not [gap for gap in proposal.gaps if gap.flag]


def test_lookup_tables_with_the_same_columns_stay_apart(tmp_path: Path) -> None:
    lookup = csv(rows=3, id=lambda n: n, name=lambda n: f"name {n}")
    tables = proposed(tmp_path, {"events.csv": log(), "brands.csv": lookup, "colors.csv": lookup}).survey.tables
    assert set(tables) == {"events", "brands", "colors"}


def test_a_part_without_bytes_is_left_out_and_one_without_a_later_column_is_read(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "log/part-1.csv": log(),
        "log/part-2.csv": "",
        "log/part-3.csv": more(20, rating=lambda n: n % 5 + 1),
    }
    result = tried(tmp_path, files)
    assert (result.result.rows_read["events"], result.settings["rating"]) == (60, "labels.rating")
    assert result.result.rows_without_column == {"events.rating": 40}
    assert [Path(path).name for path in result.result.empty_files] == ["part-2.csv"]
