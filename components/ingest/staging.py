"""Staging: the parts of a source become the DuckDB tables `items`, `users`, `queries` and `events`.

Each holds the canonical columns, the declared ones behind them, and three of ingest's own: `row` (the place in
the source, counted on through its parts), `raw` (the row as it came) and `wrong` (why it cannot be read, or null).
"""

from collections.abc import Callable, Iterable
from typing import Any

from components.ingest import fields as field_sql
from components.ingest.config import Columns, IngestConfig
from components.ingest.fields import SELECTS, Fields, identifier
from components.ingest.parts import Part, truncated_error


def stage(
    db: Any,
    parts: Iterable[Part],
    config: IngestConfig,
    columns: Columns,
    *,
    tables: list[str],
    total: int,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Fill the tables; returns which files each came from, with their first rows, and which columns were absent.

    Raises:
        SourceError: where a part lacks a column that the settings name, or cannot be read to its end.
    """
    import pyarrow as pa

    db.execute(field_sql.TIME_ZONE_MACROS)
    config = config.model_copy(update={"columns": columns})
    files: dict[str, list[dict[str, Any]]] = {}
    absent: set[str] = set()
    last_row: dict[str, int] = {}
    bytes_before = outside = 0
    for part in parts:
        fields = Fields(part, config, tables)
        expressions = SELECTS[part.table](fields, columns)
        absent |= {f"{part.table}.{name}" for name in fields.absent}
        select = ", ".join(f"{expression} AS {identifier(name)}" for name, expression in expressions.items())
        offset = last_row.get(part.table, 0)
        query = f"SELECT {offset} + row AS row, {part.raw} AS raw, {fields.rejection_reason()} AS wrong, {select} FROM {part.relation}"
        files.setdefault(part.table, []).append({"where": part.where, "first_row": offset + 1})
        db.register("arriving", part.schema.empty_table())
        _ensure_columns(db, part.table, query)
        db.execute("BEGIN")
        try:
            for batch in part.batches:
                db.register("arriving", pa.table(batch))
                db.execute(f"INSERT INTO {part.table} BY NAME {query}")
                if len(batch):
                    last_row[part.table] = max(last_row.get(part.table, 0), offset + batch.column("row")[-1].as_py())
                progress(bytes_before + part.bytes_read(), total)
        except (OSError, EOFError, pa.ArrowInvalid) as error:
            raise truncated_error(part.where, error) from error
        db.execute("COMMIT")
        bytes_before += part.size
        outside += part.outside_window
    db.unregister("arriving")
    return {"files": files, "absent_columns": sorted(absent), "outside_window": outside}


def _ensure_columns(db: Any, table: str, query: str) -> None:
    """The table of a part with the columns it needs; an earlier part may have made it with fewer."""
    db.execute(f"CREATE TABLE IF NOT EXISTS {table} AS {query}")
    existing = {name for name, *_ in db.execute(f"DESCRIBE {table}").fetchall()}
    for name, kind, *_ in db.execute(f"DESCRIBE {query}").fetchall():
        if name not in existing:
            db.execute(f"ALTER TABLE {table} ADD COLUMN {identifier(name)} {kind}")
