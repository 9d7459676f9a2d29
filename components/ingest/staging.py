"""Staging: the parts of a source become the DuckDB tables `items`, `users`, `queries` and `events`.

Each has the canonical columns, the declared ones, and three internal ones: `row` (the place in the source, counted
through its parts), `raw` (the row as it came) and `reject_reason` (why the row cannot be read, or null).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from components.ingest.canonical import SELECTS
from components.ingest.config import IngestConfig
from components.ingest.expressions import ColumnExpressions
from components.ingest.identity import Identity
from components.ingest.lists import LIST_MACROS
from components.ingest.numbers import NUMBER_MACROS
from components.ingest.readers.parts import Part
from components.ingest.readers.transfer import batch_error
from components.ingest.times import TIME_MACROS
from rankline.io.sql import identifier

TABLES = ("items", "users", "queries", "events")


class StagedFile(NamedTuple):
    """A file or query that rows came from, and the place of its first row in the table."""

    where: str
    first_row: int


@dataclass
class Staged:
    """Where each table's rows came from, and what the source left out."""

    files: dict[str, list[StagedFile]] = field(default_factory=dict)
    absent_columns: list[str] = field(default_factory=list)
    outside_window: int = 0
    rows_without: dict[str, int] = field(default_factory=dict)  # column -> rows of the files that have no such column


def stage(
    db: Any,
    parts: Iterable[Part],
    config: IngestConfig,
    *,
    tables: list[str],
    identity: Identity,
    total: int,
    progress: Callable[[int, int], None],
) -> Staged:
    """Fill the tables from the parts; ``total`` is the size of the source in bytes.

    Raises:
        SourceError: a part lacks a column that the settings name, or is truncated.
    """
    db.execute(TIME_MACROS + NUMBER_MACROS + LIST_MACROS)
    staged = Staged()
    absent: set[str] = set()
    last_row: dict[str, int] = {}
    bytes_before = 0
    for part in parts:
        source = ColumnExpressions(part, config, tables)
        expressions = SELECTS[part.table](source, config.columns)
        absent |= {f"{part.table}.{name}" for name in source.absent}
        offset = last_row.get(part.table, 0)
        select = ", ".join(f"{expression} AS {identifier(name)}" for name, expression in expressions.items())
        query = (
            f"SELECT {offset} + row AS row, {identity.raw(source)} AS raw, {source.reject_reason()} AS reject_reason, "
            f"{select} FROM {source.relation(part.relation)}"
        )
        stays = identity.condition(source)
        query += f" WHERE {stays}" if stays else ""
        staged.files.setdefault(part.table, []).append(StagedFile(part.where, offset + 1))
        for rows_read in _insert(db, part, query):
            identity.count_removed(part.table, source.relation(part.relation), stays)
            last_row[part.table] = max(last_row.get(part.table, 0), offset + rows_read)
            progress(bytes_before + part.bytes_read(), total)
        for name in source.empty:
            column = f"{part.table}.{name}"
            staged.rows_without[column] = staged.rows_without.get(column, 0) + last_row.get(part.table, 0) - offset
        bytes_before += part.size
        staged.outside_window += part.outside_window
    db.unregister("arriving")
    staged.absent_columns = sorted(absent)
    return staged


def _insert(db: Any, part: Part, query: str) -> Iterable[int]:
    """Insert the batches of a part in one transaction; yields the last row of each (0 for an empty one)."""
    import pyarrow as pa

    db.register("arriving", part.schema.empty_table())
    _ensure_columns(db, part.table, query)
    db.execute("BEGIN")
    try:
        for batch in part.batches:
            db.register("arriving", pa.table(batch))
            db.execute(f"INSERT INTO {part.table} BY NAME {query}")
            yield batch.column("row")[-1].as_py() if len(batch) else 0
    except (OSError, EOFError, pa.ArrowException) as error:
        raise batch_error(part.where, error) from error
    db.execute("COMMIT")


def _ensure_columns(db: Any, table: str, query: str) -> None:
    """Create the table of a part, or add the columns that an earlier part did not have."""
    db.execute(f"CREATE TABLE IF NOT EXISTS {table} AS {query}")
    existing = column_names(db, table)
    for name, kind, *_ in db.execute(f"DESCRIBE {query}").fetchall():
        if name not in existing:
            db.execute(f"ALTER TABLE {table} ADD COLUMN {identifier(name)} {kind}")


def create_empty_events(db: Any) -> None:
    """Create `events` without rows, if the items alone are read."""
    db.execute(
        "CREATE TABLE events AS SELECT 0::BIGINT AS row, NULL::VARCHAR AS raw, NULL::VARCHAR AS reject_reason, "
        "NULL::VARCHAR AS user_id, NULL::VARCHAR AS query_id, NULL::VARCHAR AS item_id, "
        "NULL::TIMESTAMPTZ AS event_timestamp, NULL::TIMESTAMPTZ AS known_at LIMIT 0"
    )


def create_missing_tables(db: Any) -> None:
    """Create the tables that the source does not have, from its events or empty."""
    existing = {name for (name,) in db.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    query_columns = "arg_min(event_query_text, row) AS text, arg_min(event_query_turns, row) AS turns"
    if "event_query_text" not in column_names(db, "events"):
        query_columns = "NULL::VARCHAR AS text, NULL::VARCHAR[] AS turns"
    item_columns = (
        "NULL::VARCHAR AS title, NULL::VARCHAR AS text, NULL::VARCHAR AS language, []::VARCHAR[] AS category, "
        "NULL::DOUBLE AS price, true AS available, NULL::TIMESTAMPTZ AS created_at"
    )
    for table, key, columns in (
        ("items", "item_id", item_columns),
        ("users", "user_id", ""),
        ("queries", "query_id", query_columns),
    ):
        if table not in existing:
            db.execute(
                f"CREATE TABLE {table} AS SELECT min(row) AS row, NULL::VARCHAR AS raw, "
                f"NULL::VARCHAR AS reject_reason, {key}, {columns} "
                f"FROM events WHERE reject_reason IS NULL AND {key} IS NOT NULL GROUP BY {key} "
                f"{'LIMIT 0' if table == 'users' else ''}"
            )


def column_names(db: Any, table: str) -> set[str]:
    return {name for name, *_ in db.execute(f"DESCRIBE {table}").fetchall()}
