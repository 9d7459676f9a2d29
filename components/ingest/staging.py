"""Staging: the parts of a source become the DuckDB tables `items`, `users`, `queries` and `events`.

Each holds the canonical columns, the declared ones behind them, and three of ingest's own: `row` (the place in
the source, counted on through its parts), `raw` (the row as it came) and `wrong` (why it cannot be read, or null).
"""

from collections.abc import Callable, Iterable
from typing import Any

from components.ingest import fields as meaning
from components.ingest.config import Columns, IngestConfig
from components.ingest.fields import SELECTS, Fields, identifier
from components.ingest.parts import Part, cut_short


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

    db.execute(meaning.MOMENTS)
    config = config.model_copy(update={"columns": columns})
    places: dict[str, list[dict[str, Any]]] = {}
    absent: set[str] = set()
    last: dict[str, int] = {}
    before = outside = 0
    for part in parts:
        fields = Fields(part, config, tables)
        chosen = SELECTS[part.table](fields, columns)
        absent |= {f"{part.table}.{name}" for name in fields.absent}
        select = ", ".join(f"{expression} AS {identifier(name)}" for name, expression in chosen.items())
        offset = last.get(part.table, 0)
        query = (
            f"SELECT {offset} + row AS row, {part.raw} AS raw, {fields.wrong()} AS wrong, {select} FROM {part.relation}"
        )
        places.setdefault(part.table, []).append({"where": part.where, "first_row": offset + 1})
        db.register("arriving", part.schema.empty_table())
        _make_room(db, part.table, query)
        db.execute("BEGIN")
        try:
            for batch in part.batches:
                db.register("arriving", pa.table(batch))
                db.execute(f"INSERT INTO {part.table} BY NAME {query}")
                if len(batch):
                    last[part.table] = max(last.get(part.table, 0), offset + batch.column("row")[-1].as_py())
                progress(before + part.done(), total)
        except (OSError, EOFError, pa.ArrowInvalid) as error:
            raise cut_short(part.where, error) from error
        db.execute("COMMIT")
        before += part.size
        outside += part.outside
    db.unregister("arriving")
    return {"files": places, "absent_columns": sorted(absent), "outside_window": outside}


def _make_room(db: Any, table: str, query: str) -> None:
    """The table of a part with the columns it needs; an earlier part may have made it with fewer."""
    db.execute(f"CREATE TABLE IF NOT EXISTS {table} AS {query}")
    there = {name for name, *_ in db.execute(f"DESCRIBE {table}").fetchall()}
    for name, kind, *_ in db.execute(f"DESCRIBE {query}").fetchall():
        if name not in there:
            db.execute(f"ALTER TABLE {table} ADD COLUMN {identifier(name)} {kind}")
