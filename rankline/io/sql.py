"""DuckDB for the steps: quoting, and databases that keep to their memory and spill to disk."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def identifier(name: str) -> str:
    """A column's or table's name, quoted."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text, quoted."""
    return "'" + text.replace("'", "''") + "'"


@contextlib.contextmanager
def spill_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder under ``folder`` for what does not fit into memory."""
    with tempfile.TemporaryDirectory(prefix=".spill-", dir=folder) as name:
        yield Path(name)


@contextlib.contextmanager
def temporary_database(folder: Path, *, memory_mb: int) -> Iterator[Any]:
    """A DuckDB in a temporary file under ``folder``; what exceeds its memory spills beside the file."""
    import duckdb

    with spill_folder(folder) as spill, duckdb.connect(str(spill / "tables.duckdb")) as db:
        _configure(db, memory_mb)
        yield db


def memory_database(spill: Path | None = None, *, memory_mb: int) -> Any:
    """A DuckDB in memory that spills into an existing folder, or where DuckDB does; the caller closes it."""
    import duckdb

    db = duckdb.connect(config={"temp_directory": str(spill)} if spill else {})
    _configure(db, memory_mb)
    return db


def source_database(path: Path, *, memory_mb: int) -> Any:
    """A DuckDB file of somebody else, read-only: its views and the queries over it reach no other file.

    The caller closes it.
    """
    import duckdb

    db = duckdb.connect(str(path), read_only=True)
    _configure(db, memory_mb)
    db.execute("SET enable_external_access = false")
    db.execute("SET lock_configuration = true")
    return db


def is_single_select(query: str) -> bool:
    """Whether a text is one SELECT and nothing else, in DuckDB's syntax.

    Raises:
        duckdb.Error: it is no SQL.
    """
    import duckdb

    statements = duckdb.extract_statements(query)
    return [statement.type for statement in statements] == [duckdb.StatementType.SELECT]


def fetch_row(db: Any, query: str) -> tuple[Any, ...]:
    """The only row of a query, read completely: DuckDB does no other work beside an unfinished result."""
    (row,) = db.execute(query).fetchall()
    return tuple(row)


def _configure(db: Any, memory_mb: int) -> None:
    db.execute(f"SET memory_limit = '{memory_mb}MB'")
    db.execute("SET TimeZone = 'UTC'")
    db.execute("SET enable_progress_bar = false")  # it would be among the output
