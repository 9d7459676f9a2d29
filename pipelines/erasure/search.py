"""Whether a file holds the id of a user: Parquet, SQLite, text, and what is compressed.

In tables a user is a whole value of a column of users; items of the same name are none. In text an id is a whole word.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import sqlite3
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.promote.erasure import entity_keys
from pipelines.erasure.ids import UserIds
from rankline.io.sql import identifier, source_database

# columns of catalogues and of what users did, whose values name items and their words
ITEM_COLUMNS = {
    "item_id", "item_ids", "items", "title", "text", "language", "category", "categories", "affinity_categories",
    "history_items", "seen", "seen_items", "shown", "targets", "event_id", "query", "turns", "system", "slice",
}  # fmt: skip
JOURNALS = ("-wal", "-journal")  # of SQLite
VOCABULARIES = ("tokenizer.json", "vocab.json")  # the words of a language, among which short ids are


def holds(name: str, content: bytes, ids: UserIds) -> bool:
    """Whether a file with this name and content holds the id of one of the users.

    A file that cannot be read as what it seems to be is searched for the id as a word.
    """
    import duckdb
    import pyarrow as pa

    base = name.rpartition("/")[2]
    try:
        if content.startswith(b"PAR1"):
            return _parquet_holds(content, ids)
        if content.startswith(b"SQLite format 3"):
            return _sqlite_holds(content, ids)
        if content[8:12] == b"DUCK":
            return _duckdb_holds(content, ids)
        if content.startswith(b"\x1f\x8b"):
            return holds(name.removesuffix(".gz"), gzip.decompress(content), ids)
        if content.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                return any(holds(each.filename, archive.read(each), ids) for each in archive.infolist())
    except (pa.ArrowException, sqlite3.DatabaseError, duckdb.Error, zipfile.BadZipFile, EOFError, OSError, zlib.error):
        return ids.is_in(content.decode("latin-1"))
    text = as_text(content)
    if text is not None and base not in VOCABULARIES:
        return ids.is_in(text)
    return ids.is_in_bytes(content) or (base.endswith(JOURNALS) and ids.is_in(content.decode("latin-1")))


def as_text(content: bytes) -> str | None:
    """A file as text; None for one that is none."""
    with contextlib.suppress(UnicodeDecodeError):
        return content.decode("utf-8") if b"\0" not in content else None
    return None


# -- Parquet ---------------------------------------------------------------------------------------------------


def _parquet_holds(content: bytes, ids: UserIds) -> bool:
    import pyarrow.parquet as parquet

    file = parquet.ParquetFile(io.BytesIO(content))
    names = [field.name for field in file.schema_arrow if field.name not in ITEM_COLUMNS]
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, columns=names)
        if any(rows_of_users(name, column, ids) for name, column in zip(table.column_names, table.columns)):
            return True
    return False


def rows_of_users(name: str, column: Any, ids: UserIds, *, users: bool | None = None) -> list[int]:
    """The rows of a column of an Arrow table that name one of the users; ``users`` says whether it holds their ids."""
    import pyarrow as pa
    import pyarrow.compute as compute

    are_users = ids.are_in_column(name) if users is None else users
    if pa.types.is_nested(column.type):
        return [row for row, value in enumerate(column.to_pylist()) if _nested_holds(value, are_users, ids)]
    column = _plain(column)
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if not len(column) or not (is_text or are_users):
        return []
    if are_users:
        matches = list(ids.among(column.unique().to_pylist()))
        return _true_rows(compute.is_in(column, pa.array(matches, column.type))) if matches else []
    is_named = ids.is_in_request if name == "request_id" else ids.is_in
    candidates = {row for form in ids.forms for row in _true_rows(compute.match_substring(column, form))}
    return sorted(row for row in candidates if is_named(column[row].as_py()))


def _plain(column: Any) -> Any:
    """A column without a dictionary or views, and bytes as text where they are text."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string_view(column.type):
        return column.cast(pa.string())
    if pa.types.is_binary_view(column.type) or pa.types.is_fixed_size_binary(column.type):
        column = column.cast(pa.binary())
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        with contextlib.suppress(pa.ArrowInvalid):
            return column.cast(pa.string())
    return column


def without_view(field: Any) -> Any:
    """A field of an Arrow schema with a type that all functions know."""
    import pyarrow as pa

    plain = pa.string() if pa.types.is_string_view(field.type) else pa.binary()
    is_view = pa.types.is_string_view(field.type) or pa.types.is_binary_view(field.type)
    return field.with_type(plain) if is_view else field


def _nested_holds(value: Any, are_users: bool, ids: UserIds) -> bool:
    """Whether a list or a record has a user in it: a value of users, or a word of another text."""
    if isinstance(value, dict):
        return any(_nested_holds(each, are_users or ids.are_in_column(name), ids) for name, each in value.items())
    if isinstance(value, list | tuple):
        return any(_nested_holds(each, are_users, ids) for each in value)
    return bool(ids.among([value])) if are_users else isinstance(value, str) and ids.is_in(value)


def _true_rows(is_true: Any) -> list[int]:
    return [row for row, each in enumerate(is_true.to_pylist()) if each]


# -- SQLite ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(content: bytes) -> Iterator[tuple[sqlite3.Connection, Path]]:
    """A SQLite database with this content, and its file."""
    with tempfile.TemporaryDirectory(prefix="erase-") as folder:
        path = Path(folder) / "database"
        path.write_bytes(content)
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.text_factory = lambda value: value.decode("utf-8", "replace")
            yield db, path


def cells(db: sqlite3.Connection) -> Iterator[tuple[str, str, int, Any]]:
    """(table, column, row, value) of every text and blob of a database."""
    tables = db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE '%WITHOUT ROWID%'")
    for (table,) in tables.fetchall():
        for _, column, *_ in db.execute(f"PRAGMA table_info({identifier(table)})").fetchall():
            name = identifier(column)
            query = f"SELECT rowid, {name} FROM {identifier(table)} WHERE typeof({name}) IN ('text', 'blob')"
            for row, value in db.execute(query):
                yield table, column, row, value


def cell_holds(column: str, value: Any, ids: UserIds) -> bool:
    """Whether a cell of a database names one of the users."""
    if isinstance(value, bytes):
        return value in entity_keys(ids.forms) or ids.is_in_bytes(value)
    return value in ids.forms if ids.are_in_column(column) else ids.is_in(value)


def _sqlite_holds(content: bytes, ids: UserIds) -> bool:
    if ids.is_in_bytes(content):  # also what was removed and is still in a free page
        return True
    with opened(content) as (db, _):
        return any(cell_holds(column, value, ids) for _, column, _, value in cells(db))


# -- DuckDB ----------------------------------------------------------------------------------------------------


def _duckdb_holds(content: bytes, ids: UserIds) -> bool:
    with tempfile.TemporaryDirectory(prefix="erase-") as folder:
        path = Path(folder) / "database"
        path.write_bytes(content)
        with contextlib.closing(source_database(path, memory_mb=1024)) as db:
            columns = db.execute(
                "SELECT schema_name, table_name, column_name FROM duckdb_columns() WHERE NOT internal"
            ).fetchall()
            for schema, table, column in columns:
                query = f"SELECT {identifier(column)} FROM {identifier(schema)}.{identifier(table)}"
                if column not in ITEM_COLUMNS and rows_of_users(column, db.sql(query).to_arrow_table()[column], ids):
                    return True
    return False
