"""The tables as Great Expectations sees them: one row per row, one column per check.

DuckDB finds the failing rows within its memory. A check becomes a column that names the failing rows (by id or value)
and is null everywhere else, and the expectation is that it is null: a failure counts the rows and names some. Such a
column takes two bytes per row, so that ten million events fit: its names are categories, one for each of the first
`MAX_NAMED` failing rows and one for all others. Numbers and times are checked as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.validate.labels import Scale
from rankline.contracts import SPLIT, SPLITS, TABLES
from rankline.io.sql import identifier, literal
from rankline.labels import FEEDBACK

MAX_NAMED = 1_000  # failing rows of a check that are named
OTHERS = "(others)"
EVENT_KEY = ("user_id", "query_id", "item_id", "event_timestamp")
KEYS = {"items": "item_id", "users": "user_id", "queries": "query_id", "events": "event_id"}
LANGUAGE_CODE = r"^[a-zA-Z]{2,3}([-_][a-zA-Z0-9]{2,8})*$"


@dataclass(frozen=True)
class DatasetInfo:
    """What there is to check: tables, labels and their scales, a split column, vectors of items, events with users.

    ``feedback`` says whether events are positives and negatives, ``event_key`` what an event is known by.
    ``only_item`` is the single item of a data set of texts with labels in which every text has the same label.
    """

    tables: tuple[str, ...]
    labels: Mapping[str, Scale]
    feedback: bool
    event_key: tuple[str, ...]
    split: bool
    vectors: tuple[str, ...]
    names_users: bool
    only_item: str = ""


def present_tables(folder: Path) -> list[str]:
    """The canonical tables that exist."""
    return [table for table in TABLES if (folder / f"{table}.parquet").is_file()]


def create_views(
    db: Any, folder: Path, tables: Sequence[str], *, labels: Mapping[str, Scale], feedback: bool
) -> DatasetInfo:
    """Create a DuckDB view of every table, with row numbers; returns what there is to check."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for table in tables:
        path = literal(str(folder / f"{table}.parquet"))
        db.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet({path}, file_row_number = true)")
    names_users = bool(_rows(db, "SELECT 1 FROM events WHERE user_id IS NOT NULL LIMIT 1"))
    first = [item for (item,) in _rows(db, "SELECT item_id FROM items LIMIT 2")]
    items, columns = pq.read_schema(folder / "items.parquet"), pq.read_schema(folder / "events.parquet").names
    # events with feedback may differ in a label alone: an item that is clicked as it is shown
    further = [name for name in (*labels, "request_id") if feedback and name in columns]
    return DatasetInfo(
        tables=tuple(tables),
        labels=labels,
        feedback=feedback,
        event_key=(*EVENT_KEY, *map(identifier, further)),
        split=SPLIT in columns,
        vectors=tuple(
            field.name
            for field in items
            if field.name not in TABLES["items"].names
            and pa.types.is_list(field.type)
            and pa.types.is_floating(field.type.value_type)
        ),
        names_users=names_users,
        only_item=str(first[0]) if len(first) == 1 and "queries" in tables and not names_users else "",
    )


def schema(path: Path, table: str, labels: Collection[str]) -> Any:
    """One row per column of the contract and per label: its type there and its type in the file."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    file_schema = pq.read_schema(path)
    expected = {field.name: field.type for field in TABLES[table]}
    if table == "events":
        expected |= dict.fromkeys(labels, pa.float64())
        expected |= {SPLIT: pa.string()} if SPLIT in file_schema.names else {}
    rows = [
        {
            "column": name,
            "expected": f"{name}: {_type_name(type)}",
            "found": f"{name}: {_type_name(file_schema.field(name).type)}"
            if name in file_schema.names
            else f"{name}: absent",
        }
        for name, type in expected.items()
    ]
    return pd.DataFrame(rows)


def columns(path: Path) -> dict[str, str]:
    """A table's columns and their types."""
    import pyarrow.parquet as pq

    return {field.name: _type_name(field.type) for field in pq.read_schema(path)}


def missing_columns(current: dict[str, dict[str, str]], before: dict[str, dict[str, str]]) -> Any:
    """One row per column of the last good run: a message if it is missing now, else null."""
    import pandas as pd

    messages: list[str | None] = []
    for table in (table for table in before if table in current):
        new = ", ".join(name for name in current[table] if name not in before[table]) or "none"
        messages += [
            None
            if name in current[table]
            else f"column {name} of {table} was in the last run and is missing; new: {new}"
            for name in before[table]
        ]
    return pd.DataFrame({"missing_column": pd.Series(messages, dtype="object")})


def _type_name(type: Any) -> str:
    """A type as text; the name of a list's inner field does not matter."""
    import pyarrow as pa

    return f"list<{type.value_type}>" if pa.types.is_list(type) or pa.types.is_large_list(type) else str(type)


def table(db: Any, name: str, dataset: DatasetInfo) -> Any:
    """The frame of a table, in the order of its rows."""
    import pandas as pd

    key, values = KEYS[name], _values(name, dataset)
    count = _rows(db, f"SELECT count(*) FROM {name}")[0][0]
    frame = db.sql(f"SELECT {', '.join(values)} FROM {name}").df() if values else pd.DataFrame(index=range(count))
    for column in (key, *({"events": ("event_timestamp", "known_at", "item_id")}.get(name, ()))):
        if column not in values:
            frame[column] = _presence(db, name, column, count)
    for check, query in _checks(name, key, dataset).items():
        frame[check] = _failing_column(db, query, count)
    return frame


def _values(name: str, dataset: DatasetInfo) -> list[str]:
    """The columns that are checked as they are."""
    if name == "items":
        return ["price", "created_at"]
    feedback = [FEEDBACK] if dataset.feedback else []
    return ["event_timestamp", *map(identifier, dataset.labels), *feedback] if name == "events" else []


def _checks(name: str, key: str, dataset: DatasetInfo) -> dict[str, str]:
    """Check -> query of (row, name): the failing rows, and how to name them."""
    checks = {
        f"repeated_{key}": f"""SELECT file_row_number, {key} FROM {name} WHERE {key} IN (
            SELECT {key} FROM {name} WHERE {key} IS NOT NULL GROUP BY {key} HAVING count(*) > 1)""",
    }
    if name != "events":
        # some tools turn a column of integers with a gap into floats
        checks[f"mixed_{key}"] = f"""SELECT file_row_number, {key} FROM {name} WHERE {key} LIKE '%.0' AND
            left({key}, -2) IN (SELECT {key} FROM {name})"""
    of_table = {"items": _item_checks, "users": _user_checks, "queries": _query_checks, "events": _event_checks}
    return checks | of_table[name](dataset)


def _item_checks(dataset: DatasetInfo) -> dict[str, str]:
    return {
        "without_text": """SELECT file_row_number, coalesce(item_id, 'no id') FROM items
            WHERE coalesce(nullif(trim(title), ''), nullif(trim(text), '')) IS NULL""",
        "unknown_language": f"""SELECT file_row_number, language FROM items
            WHERE language IS NOT NULL AND NOT regexp_matches(language, '{LANGUAGE_CODE}')""",
        "unavailable": "SELECT file_row_number, coalesce(item_id, 'no id') FROM items WHERE available = false",
        **{
            f"length_of_{vector}": f"""SELECT file_row_number, concat(item_id, ' (', len({name}), ')')
            FROM items WHERE {name} IS NOT NULL
            AND len({name}) <> (SELECT mode(len({name})) FROM items WHERE {name} IS NOT NULL)"""
            for vector, name in zip(dataset.vectors, map(identifier, dataset.vectors), strict=True)
        },
    }


def _user_checks(dataset: DatasetInfo) -> dict[str, str]:
    return {
        "without_events": """SELECT file_row_number, coalesce(user_id, 'no id') FROM users
            WHERE user_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM events e WHERE e.user_id = users.user_id)"""
    }


def _query_checks(dataset: DatasetInfo) -> dict[str, str]:
    return {
        "without_text": """SELECT file_row_number, coalesce(query_id, 'no id') FROM queries
            WHERE nullif(trim(text), '') IS NULL AND nullif(trim(array_to_string(turns, '')), '') IS NULL"""
    }


def _event_checks(dataset: DatasetInfo) -> dict[str, str]:
    # an id that no row of its table has
    unknown = {
        f"unknown_{noun}": f"""SELECT file_row_number, {key} FROM events e WHERE {key} IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM {table} t WHERE t.{key} = e.{key})"""
        for table, (key, noun) in REFERENCES.items()
        if table in dataset.tables
    }
    event_name = "coalesce(event_id, 'no id')"
    checks = {
        **unknown,
        "without_entity": f"""SELECT file_row_number, {event_name} FROM events
            WHERE user_id IS NULL AND query_id IS NULL""",
        "duplicate": f"""SELECT file_row_number, {event_name} FROM events e JOIN (
            SELECT {", ".join(dataset.event_key)} FROM events GROUP BY ALL HAVING count(*) > 1) d
            ON {" AND ".join(f"e.{name} IS NOT DISTINCT FROM d.{name}" for name in dataset.event_key)}""",
        "known_before_event": f"SELECT file_row_number, {event_name} FROM events WHERE known_at < event_timestamp",
        # compared in the order of the file; only the names of failing rows are fetched
        "out_of_order": f"""SELECT file_row_number, {event_name} FROM events SEMI JOIN (
            SELECT file_row_number, event_timestamp < lag(event_timestamp) OVER (ORDER BY file_row_number) AS back
            FROM events QUALIFY back) USING (file_row_number)""",
    }
    if dataset.feedback:
        for check, condition in (("no_positive", f"coalesce({FEEDBACK}, 0) <= 0"), ("unused", f"{FEEDBACK} IS NULL")):
            checks[check] = f"SELECT file_row_number, {event_name} FROM events WHERE {condition}"
    if dataset.split:
        splits = ", ".join(f"'{split}'" for split in SPLITS)
        checks["unknown_split"] = f"""SELECT file_row_number, coalesce({SPLIT}, 'none') FROM events
            WHERE {SPLIT} IS NULL OR {SPLIT} NOT IN ({splits})"""
    return checks


REFERENCES = {"items": ("item_id", "item"), "users": ("user_id", "user"), "queries": ("query_id", "query")}


def _presence(db: Any, name: str, column: str, count: int) -> Any:
    """A column of which only the presence of a value matters."""
    import numpy as np

    codes = np.zeros(count, np.int8)
    missing = db.sql(f"SELECT file_row_number AS row FROM {name} WHERE {column} IS NULL").fetchnumpy()["row"]
    codes[np.asarray(missing, np.int64)] = -1
    return _categorical(codes, ["present"])


def _failing_column(db: Any, query: str, count: int) -> Any:
    """A column with the names of failing rows, null elsewhere."""
    import numpy as np

    db.execute(f"CREATE OR REPLACE TEMP TABLE failing AS SELECT * FROM ({query}) AS failing (row, name)")
    named = _rows(db, f"SELECT row, name::VARCHAR FROM failing ORDER BY row LIMIT {MAX_NAMED}")
    codes = np.full(count, -1, np.int16)
    if named:
        code_of = {name: code for code, name in enumerate(dict.fromkeys(name for _, name in named))}
        codes[np.asarray(db.sql("SELECT row FROM failing").fetchnumpy()["row"], np.int64)] = len(code_of)
        for row, name in named:
            codes[row] = code_of[name]
        return _categorical(codes, [*code_of, OTHERS])
    return _categorical(codes, [OTHERS])


def _categorical(codes: Any, categories: Any) -> Any:
    import pandas as pd

    return pd.Categorical.from_codes(codes, categories)


def single_row(numbers: dict[str, float]) -> Any:
    """A frame with one row, one column per number."""
    import pandas as pd

    return pd.DataFrame([numbers])


def _rows(db: Any, query: str) -> list[tuple[Any, ...]]:
    """All rows of a query: DuckDB does no other work beside an unfinished result."""
    rows: list[tuple[Any, ...]] = db.execute(query).fetchall()
    return rows
