"""The survey: samples of tables in several files, and the summaries that profiles are made of."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from onboarding.survey.survey import survey
from onboarding.tables import canonical_tables, summarize
from rankline.io.sql import memory_database


def test_files_with_other_columns_and_types_are_one_table(tmp_path: Path) -> None:
    for name, columns in (("log-1", "i AS user_id, i % 9 AS item_id"), ("log-2", "'u' || i AS user_id, 0.5 AS rating")):
        duckdb.sql(f"COPY (SELECT {columns} FROM range(40) AS t(i)) TO '{tmp_path / name}.parquet'")
    (table,) = survey(str(tmp_path)).tables.values()
    assert (table.place, table.files, table.rows, table.is_complete) == ("log-*.parquet", 2, 80, True)
    assert {name: stats.values for name, stats in table.columns.items()} == {
        "user_id": 80, "item_id": 40, "rating": 40,
    }  # fmt: skip
    assert table.columns["user_id"].examples == ("0", "1", "2")
    assert table.columns["user_id"].numbers == 0.5


@pytest.mark.parametrize(("rows", "complete"), [(39, False), (40, False), (41, True)])
def test_a_sample_is_complete_if_a_row_more_would_fit(tmp_path: Path, rows: int, complete: bool) -> None:
    duckdb.sql(f"COPY (SELECT i AS user_id FROM range(40) AS t(i)) TO '{tmp_path / 'log'}.parquet'")
    (table,) = survey(str(tmp_path), rows=rows).tables.values()
    assert (table.rows, table.is_complete) == (min(rows, 40), complete)


def test_a_summary_has_bounds_and_the_mean_of_numbers() -> None:
    with memory_database(memory_mb=100) as db:
        db.execute("CREATE TABLE t AS SELECT i / 2 AS number, 'a' || i AS text, [i] AS list FROM range(10) AS t(i)")
        summaries = summarize(db, "t")
        assert (summaries["number"].low, summaries["number"].high, summaries["number"].mean) == ("0.0", "4.5", 2.25)
        assert (summaries["text"].low, summaries["text"].high, summaries["text"].mean) == ("a0", "a9", None)
        assert summaries["list"].type == "BIGINT[]"
        db.execute("DELETE FROM t")
        assert summarize(db, "t")["number"].mean is None


def test_a_folder_may_have_a_quote_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "o'neill"
    folder.mkdir()
    duckdb.from_query("SELECT 1 AS item_id").write_parquet(str(folder / "items.parquet"))
    with canonical_tables(folder) as db:
        assert db.execute("SELECT * FROM items").fetchall() == [(1,)]
