"""The tables as Great Expectations sees them: the columns that are checked, and columns of faults.

A fault that needs another row or another table (an unknown item, an event out of order) becomes a column that
holds the offender's name and is null everywhere else; the expectation is that it is null, and a failure shows
who it was.
"""

from pathlib import Path
from typing import Any

from rankline.contracts import LABELS, TABLES

# an event's reference is at fault where it names something and nothing has that name
_UNKNOWN = (
    "CASE WHEN e.{key} IS NOT NULL AND NOT EXISTS (SELECT 1 FROM {table} t WHERE t.{key} = e.{key}) "
    "THEN e.{key} END AS unknown_{noun}"
)


def present(folder: Path) -> list[str]:
    """The canonical tables that are there."""
    return [table for table in TABLES if (folder / f"{table}.parquet").is_file()]


def attach(db: Any, folder: Path, tables: list[str]) -> None:
    """Make a DuckDB view of every table, with the place of its rows."""
    for table in tables:
        path = str(folder / f"{table}.parquet").replace("'", "''")
        db.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet('{path}', file_row_number = true)")


def schema(path: Path, table: str) -> Any:
    """One row a column that the contract names, and a label: its type there and its type in the file."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = pq.read_schema(path)
    expected = {field.name: field.type for field in TABLES[table]}
    if table == "events":
        expected |= {label: pa.float64() for label in LABELS if label in found.names}
    rows = [
        {
            "column": name,
            "expected": f"{name}: {_type(type)}",
            "found": f"{name}: {_type(found.field(name).type)}" if name in found.names else f"{name}: absent",
        }
        for name, type in expected.items()
    ]
    return pd.DataFrame(rows)


def _type(type: Any) -> str:
    """A type in words; what the inside of a list is called does not matter."""
    import pyarrow as pa

    return f"list<{type.value_type}>" if pa.types.is_list(type) or pa.types.is_large_list(type) else str(type)


def table(db: Any, name: str, *, present: list[str], labels: list[str]) -> Any:
    """The pandas frame of a table: the columns that are checked, in the order of its rows."""
    return db.sql({"items": ITEMS, "users": USERS, "queries": QUERIES, "events": _events(present, labels)}[name]).df()


ITEMS = """
    SELECT item_id, coalesce(nullif(trim(title), ''), nullif(trim(text), '')) AS words, price, created_at
    FROM items ORDER BY file_row_number
"""
USERS = "SELECT user_id FROM users ORDER BY file_row_number"
QUERIES = "SELECT query_id, nullif(trim(text), '') AS words FROM queries ORDER BY file_row_number"


def _events(present: list[str], labels: list[str]) -> str:
    references = {
        "items": ("item_id", "item"),
        "users": ("user_id", "user"),
        "queries": ("query_id", "query"),
    }
    unknown = [
        _UNKNOWN.format(key=key, table=name, noun=noun) for name, (key, noun) in references.items() if name in present
    ]
    return f"""
        SELECT {", ".join([*TABLES["events"].names, *labels, *unknown])},
            CASE WHEN user_id IS NULL AND query_id IS NULL THEN coalesce(event_id, 'no id') END AS nobody,
            CASE WHEN known_at < event_timestamp THEN coalesce(event_id, 'no id') END AS known_too_early,
            CASE WHEN event_timestamp < lag(event_timestamp) OVER (ORDER BY file_row_number)
                THEN coalesce(event_id, 'no id') END AS out_of_order
        FROM events e ORDER BY file_row_number
    """
