"""Files without the rows or the words of users: what may be written anew instead of being removed."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sqlite3

from pipelines.erasure.ids import ERASED, UserIds
from pipelines.erasure.search import ITEM_COLUMNS, as_text, cell_holds, cells, opened, rows_of_users
from rankline.io.sql import identifier

_DELIMITERS = "\t,;|"


def redacted(content: bytes, ids: UserIds) -> bytes | None:
    """A text or a database in which the users are replaced by a placeholder; None for another kind of file."""
    if content.startswith(b"SQLite format 3"):
        return _redacted_database(content, ids)
    text = as_text(content)
    return None if text is None else ids.redact(text).encode()


def _redacted_database(content: bytes, ids: UserIds) -> bytes:
    with opened(content) as (db, path):
        for table, column, row, value in list(cells(db)):
            if cell_holds(column, value, ids):
                new = ids.redact(value) if isinstance(value, str) and value not in ids.forms else ERASED
                _update(db, table, column, row, new)
        db.commit()
        db.execute("VACUUM")
        return path.read_bytes()


def _update(db: sqlite3.Connection, table: str, column: str, row: int, value: str) -> None:
    db.execute(f"UPDATE {identifier(table)} SET {identifier(column)} = ? WHERE rowid = ?", [value, row])


def without_rows(content: bytes, ids: UserIds) -> bytes | None:
    """A table without the rows of the users: Parquet, JSON lines, or text with a header; None for another file.

    A table that has no such row stays as it is, to the byte.
    """
    if content.startswith(b"PAR1"):
        return _parquet_without(content, ids)
    if content.startswith(b"\x1f\x8b"):
        before = gzip.decompress(content)
        inner = without_rows(before, ids)
        return content if inner == before else None if inner is None else gzip.compress(inner, mtime=0)
    text = as_text(content)
    if text is None:
        return None
    lines = text.splitlines(keepends=True)
    if lines and lines[0].lstrip().startswith("{"):
        return "".join(line for line in lines if not _is_record_of(line, ids)).encode()
    return _delimited_without(lines, ids)


def _parquet_without(content: bytes, ids: UserIds) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    file = parquet.ParquetFile(io.BytesIO(content))
    table = file.read()
    names = [name for name in table.column_names if name not in ITEM_COLUMNS]
    rows = {row for name in names for row in rows_of_users(name, table[name], ids)}
    if not rows:
        return content
    remaining = table.filter(pa.array([row not in rows for row in range(len(table))]))
    sink = io.BytesIO()
    parquet.write_table(remaining, sink, compression=file.metadata.row_group(0).column(0).compression)
    return sink.getvalue()


def _is_record_of(line: str, ids: UserIds) -> bool:
    """Whether a line of JSON is of one of the users, or cannot be read and names one."""
    try:
        record = json.loads(line)
    except ValueError:
        return ids.is_in(line)
    if not isinstance(record, dict):
        return ids.is_in(line)
    return any(ids.are_in_column(name) and str(value) in ids.forms for name, value in record.items())


def _delimited_without(lines: list[str], ids: UserIds) -> bytes | None:
    """Lines of text without those of the users; None if the header names no column of users."""
    header = lines[0] if lines else ""
    delimiter = max(_DELIMITERS, key=header.count)
    names = _fields(header, delimiter)
    places = [place for place, name in enumerate(names) if ids.are_in_column(name)]
    if not places:
        return None

    def is_of_users(line: str) -> bool:
        fields = _fields(line, delimiter)
        if len(fields) != len(names):  # a row that cannot be read
            return any(field in ids.forms for field in fields)
        return any(fields[place] in ids.forms for place in places)

    return "".join([header, *(line for line in lines[1:] if not is_of_users(line))]).encode()


def _fields(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter), [])
