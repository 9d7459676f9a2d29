"""DuckDB over the tables of a source: views of canonical tables, column summaries."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rankline.contracts import TABLES
from rankline.io.sql import literal, temporary_database

MEMORY_MB = 1000  # what exceeds it spills to disk


@contextmanager
def canonical_tables(folder: Path) -> Iterator[Any]:
    """A temporary database with a view of each canonical table that a folder holds."""
    with temporary_database(Path(tempfile.gettempdir()), memory_mb=MEMORY_MB) as db:
        for table in TABLES:
            if (path := folder / f"{table}.parquet").is_file():
                db.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet({literal(str(path))})")
        yield db


class ColumnSummary(NamedTuple):
    """What DuckDB's SUMMARIZE says of a column; bounds are text, ``approximate_distinct`` is an estimate."""

    type: str
    low: str | None
    high: str | None
    mean: float | None
    approximate_distinct: int


def summarize(db: Any, table: str) -> dict[str, ColumnSummary]:
    """Column -> its summary, from one scan of a table."""
    rows = db.execute(
        f"SELECT column_name, column_type, min, max, avg, approx_unique FROM (SUMMARIZE {table})"
    ).fetchall()
    return {
        name: ColumnSummary(kind, low, high, float(mean) if mean and is_number(kind) else None, int(distinct))
        for name, kind, low, high, mean, distinct in rows
    }


def is_number(kind: str) -> bool:
    """Whether a DuckDB type is one of the numbers that canonical tables hold."""
    return kind in ("DOUBLE", "FLOAT", "BIGINT", "INTEGER")
