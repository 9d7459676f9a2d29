"""The format `sql`: a DuckDB file, or Postgres through its Python driver.

A table is given by its name or a query. Rows are streamed. Only columns that the settings name are selected, only rows
in the window if the database can filter them, and in an order that does not depend on how they are stored.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.ingest.config import Columns, IngestConfig
from components.ingest.readers.parts import Part
from components.ingest.readers.transfer import transfer_type
from components.ingest.readers.typed import selected_columns, typed_part
from components.ingest.times import UNITS
from rankline.errors import SourceError
from rankline.io.sources import Files, is_file_database, postgres
from rankline.io.sql import identifier, is_single_select, source_database

FETCH_ROWS = 1 << 14  # rows fetched at once
TEXT_TYPES = ("BIT", "TIME WITH TIME ZONE", "VARIANT", "GEOMETRY")  # of DuckDB, which arrive as text


def read_parts(config: IngestConfig, files: Files) -> Iterator[Part]:
    """The parts of a database: one query per table.

    Raises:
        SourceError: the database does not exist, refuses, or stops answering.
    """
    yield from (_duckdb if is_file_database(config) else _postgres)(config)


def _duckdb(config: IngestConfig) -> Iterator[Part]:
    path = Path(config.source).expanduser()
    with _source_errors(config), source_database(path, memory_mb=config.memory_limit_mb) as db:
        for table, location in config.tables:
            if not location:
                continue
            query = postgres.select_statement(location)
            if not is_single_select(query):
                raise _not_one_query(table, location)
            kinds = {name: kind for name, kind, *_ in db.execute(f"DESCRIBE {query}").fetchall()}
            bounds = _window_condition(config, table, kinds)
            outside = _rows_outside_window(db, query, bounds)
            query = _with_plain_types(query, kinds)
            schema = db.sql(f"SELECT * FROM ({query}) AS source LIMIT 0").to_arrow_reader(FETCH_ROWS).schema
            selected = selected_columns(schema, config)
            select_list = ", ".join(map(identifier, selected)) or "1"
            reader = db.sql(f"SELECT {select_list} FROM ({query}) AS source{bounds}").to_arrow_reader(FETCH_ROWS)
            where = f"{config.source}, {location}"
            yield typed_part(table, where, schema, _batches(reader, config), selected=selected, outside_window=outside)


def _with_plain_types(query: str, kinds: dict[str, str]) -> str:
    """A query with the columns as text that lose what they say on the way to Arrow: bits, and the zone of a clock."""
    as_text = [name for name, kind in kinds.items() if kind.startswith(TEXT_TYPES)]
    casts = ", ".join(f"CAST({identifier(name)} AS VARCHAR) AS {identifier(name)}" for name in as_text)
    return f"SELECT * REPLACE ({casts}) FROM ({query})" if casts else query


def _not_one_query(table: str, location: str) -> SourceError:
    return SourceError(
        "a table of the source is more than a query",
        expected="the name of a table, or one SELECT",
        found=repr(location[:200]),
        where=f"ingest.tables.{table}",
        hint="write one SELECT without a semicolon; make it a view if it needs more",
    )


@contextlib.contextmanager
def _source_errors(config: IngestConfig) -> Iterator[None]:
    """Translate DuckDB's errors."""
    import duckdb

    try:
        yield
    except duckdb.IOException as error:
        raise SourceError(
            "the database cannot be read",
            expected="a complete DuckDB file of a version that this DuckDB reads, open for writing in no process",
            found=" ".join(str(error).split())[:400],
            where=config.source,
            hint="close the process that has the file open for writing, or fetch the file again",
        ) from error
    except duckdb.Error as error:  # an error in the query
        raise SourceError(
            "the database refuses a query",
            expected="tables or queries that can be read (ingest.tables)",
            found=" ".join(str(error).split())[:400],
            where=config.source,
            hint=f"the file has {_table_names(config) or 'no tables'}; try the query in DuckDB",
        ) from error


def _table_names(config: IngestConfig) -> str:
    """The names of a DuckDB file's tables and views."""
    import duckdb

    rows = []
    path = Path(config.source).expanduser()
    with contextlib.suppress(duckdb.Error), source_database(path, memory_mb=config.memory_limit_mb) as db:
        rows = db.execute(
            "SELECT table_schema, table_name FROM information_schema.tables ORDER BY ALL LIMIT 40"
        ).fetchall()
    return ", ".join(name if schema == "main" else f"{schema}.{name}" for schema, name in rows)


def _batches(reader: Any, config: IngestConfig) -> Iterator[Any]:
    """DuckDB's result, some rows at a time."""
    with _source_errors(config):
        yield from reader


def _rows_outside_window(db: Any, query: str, bounds: str) -> int:
    """The number of rows that the window leaves in the database."""
    if not bounds:
        return 0
    counts = f"SELECT (SELECT count(*) FROM ({query}) AS source) - (SELECT count(*) FROM ({query}) AS source{bounds})"
    ((count,),) = db.execute(counts).fetchall()
    return int(count)


def _window_condition(config: IngestConfig, table: str, kinds: dict[str, str]) -> str:
    """The window as a condition, if the column's type allows one; it keeps rows without a time, to be rejected."""
    columns: Columns = config.columns
    kind = kinds.get(columns.timestamp, "").upper()
    if table != "events" or not (config.window_start or config.window_end) or not kind:
        return ""
    bounds = []
    for sign, bound in ((">=", config.window_start), ("<", config.window_end)):
        if bound is None:
            continue
        if kind.startswith(("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ")):
            bounds.append(f"{identifier(columns.timestamp)} {sign} TIMESTAMPTZ '{bound}'")
        elif kind in NUMBERS and columns.timestamp_unit in UNITS:
            us = f"{identifier(columns.timestamp)} * {UNITS[columns.timestamp_unit]}"
            bounds.append(f"{us} {sign} extract(epoch FROM TIMESTAMPTZ '{bound}') * 1000000")
    if not bounds:
        return ""
    return f" WHERE {' AND '.join(bounds)} OR {identifier(columns.timestamp)} IS NULL"


# types of DuckDB, then of Postgres
NUMBERS = ("BIGINT", "INTEGER", "HUGEINT", "DOUBLE", "FLOAT", "INT8", "INT4", "FLOAT8", "FLOAT4", "NUMERIC")


def _postgres(config: IngestConfig) -> Iterator[Part]:
    with postgres.connect(config) as connection:
        for table, location in config.tables:
            if not location:
                continue
            query = postgres.select_statement(location)
            # a prepared statement is one statement, so that what follows a semicolon is refused and not run
            description = connection.execute(f"SELECT * FROM ({query}) AS source LIMIT 0", prepare=True).description
            bounds = _window_condition(config, table, {each.name: each.type_display.upper() for each in description})
            outside = _rows_outside_window(connection, query, bounds)
            schema, selects = _arrow_schema(description)
            selected = selected_columns(schema, config)
            select_list = ", ".join(selects[name] for name in selected) or "1"
            # Postgres stores rows in no order: a query without one is ordered by the rows' own text
            order = "" if re.search(r"\border\s+by\b", query, re.IGNORECASE) else ' ORDER BY source::text COLLATE "C"'
            with connection.cursor(name=f"rankline_{table}", binary=True) as cursor:
                cursor.itersize = FETCH_ROWS
                cursor.execute(f"SELECT {select_list} FROM ({query}) AS source{bounds}{order}")
                batches = _fetch_batches(cursor, [transfer_type(schema.field(name).type) for name in selected], config)
                where = f"{postgres.database_label(config)}, {location}"
                yield typed_part(table, where, schema, batches, selected=selected, outside_window=outside)


def _arrow_schema(description: Any) -> tuple[Any, dict[str, str]]:
    """The Arrow schema of a result, and each column's SELECT expression; other types become text."""
    import pyarrow as pa

    fields, selects, types = [], {}, _type_map()
    for each in description:
        kind = re.sub(r"\(.*?\)", "", each.type_display)  # without the length: varchar(9)[] is a list of texts
        arrow, cast = types.get(kind, (pa.string(), "text"))
        fields.append(pa.field(each.name, arrow))
        value = f"source.{identifier(each.name)}"
        if kind in ("timestamp", "timestamptz", "date"):  # infinity, or a year that Python's times do not have
            value = (
                f"CASE WHEN {value} >= '9999-12-31' THEN '9999-12-31' WHEN {value} < '0001-01-02' THEN '0001-01-02' "
                f"ELSE {value} END"
            )
        selects[each.name] = f"({value})::{cast} AS {identifier(each.name)}"
    return pa.schema(fields), selects


def _type_map() -> dict[str, tuple[Any, str]]:
    """Postgres type -> Arrow type, and the type to cast to."""
    import pyarrow as pa

    integer, float64 = (pa.int64(), "bigint"), (pa.float64(), "double precision")
    timestamps = {"timestamp": pa.timestamp("us"), "timestamptz": pa.timestamp("us", "UTC")}
    return {
        **dict.fromkeys(("int2", "int4", "int8"), integer),
        **dict.fromkeys(("float4", "float8"), float64),
        "numeric": (pa.decimal256(76), "text"),
        "bool": (pa.bool_(), "boolean"),
        "timestamp": (timestamps["timestamp"], "timestamp"),
        "timestamptz": (timestamps["timestamptz"], "timestamptz"),
        "date": (pa.timestamp("us"), "timestamp"),
        **dict.fromkeys(("text[]", "varchar[]", "bpchar[]"), (pa.list_(pa.string()), "text[]")),
        **dict.fromkeys(
            ("float4[]", "float8[]", "numeric[]", "int2[]", "int4[]", "int8[]"),
            (pa.list_(pa.float64()), "double precision[]"),
        ),
    }


def _fetch_batches(cursor: Any, types: list[Any], config: IngestConfig) -> Iterator[Any]:
    """The rows of a server-side cursor as Arrow batches."""
    import pyarrow as pa

    while True:
        with postgres.translate_errors(config):
            rows = cursor.fetchmany(FETCH_ROWS)
        if not rows:
            return
        arrays = [pa.array(values, type) for values, type in zip(zip(*rows, strict=True), types, strict=True)]
        yield pa.record_batch(arrays, [f"c{position}" for position in range(len(types))])
