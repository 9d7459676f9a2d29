"""Sources of a workspace: which of their rows are of users, and the files without those rows.

A row is of a user if a column of users' ids equals the id, as ingest reads it. A word in another column is a mention.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipelines.erasure.ids import UserIds
from pipelines.erasure.layouts import Layout
from pipelines.erasure.search import ITEM_COLUMNS, holds, rows_of_users, without_view

_DELIMITERS = "\t,;|"
_TABLES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".inter", ".user", ".item", ".parquet", ".pq")
_CLOSED = (".xlsx", ".xls", ".ods", ".avro", ".orc", ".feather", ".arrow", ".pkl", ".pickle", ".tar", ".tgz", ".7z")
_PACKED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}


@dataclass(frozen=True)
class Examined:
    """A file of rows: itself without the rows of users, whether text mentions them, and why they cannot be removed."""

    remaining: bytes
    mentioned: bool = False
    fault: str = ""


def examine(name: str, content: bytes, ids: UserIds, layout: Layout) -> Examined:
    """What a file of a source holds of users."""
    import pyarrow as pa

    suffix = "." + name.lower().rpartition(".")[2]
    try:
        if suffix in _PACKED or content.startswith(b"\x1f\x8b"):
            return _packed(name, content, ids, layout)
        if content.startswith(b"PAR1"):
            return _parquet(content, ids, layout)
        if content.startswith(b"PK\x03\x04") and suffix not in _CLOSED:
            return _archive(content, ids, layout)
    except (pa.ArrowException, zipfile.BadZipFile, EOFError, OSError, RuntimeError):
        return Examined(content, fault="not searched: it is damaged, or encrypted")
    if suffix in _CLOSED:
        return Examined(content, fault=f"not searched: {suffix} files cannot be read")
    is_table = suffix in _TABLES
    text = None if content.startswith(b"SQLite format 3") or content[8:12] == b"DUCK" else layout.decode(content)
    if text is None:
        held = holds(name, content, ids)
        unread = "not searched: its encoding is not known (ingest.files.encoding)" if is_table else ""
        return Examined(content, fault="a user cannot be removed from such a file" if held else unread)
    return _text(*text, content, ids, layout)


def _packed(name: str, content: bytes, ids: UserIds, layout: Layout) -> Examined:
    import pyarrow as pa

    method = next((method for suffix, method in _PACKED.items() if name.lower().endswith(suffix)), "gzip")
    with pa.CompressedInputStream(pa.BufferReader(content), method) as stream:
        before = stream.read()
    inner = examine(name.rpartition(".")[0] or name, before, ids, layout)
    if inner.remaining == before:
        return replace(inner, remaining=content)
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, method) as out:
        out.write(inner.remaining)
    return replace(inner, remaining=sink.getvalue().to_pybytes())


def _archive(content: bytes, ids: UserIds, layout: Layout) -> Examined:
    """An archive, of which nothing is written anew."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {each.filename: archive.read(each) for each in archive.infolist()}
    inner = {name: examine(name, each, ids, layout) for name, each in members.items()}
    faults = [each.fault for each in inner.values() if each.fault]
    if any(each.remaining != members[name] for name, each in inner.items()):
        faults.append("a user cannot be removed from an archive")
    return Examined(content, any(each.mentioned for each in inner.values()), faults[-1] if faults else "")


def _parquet(content: bytes, ids: UserIds, layout: Layout) -> Examined:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    file = parquet.ParquetFile(io.BytesIO(content))
    stored = file.schema_arrow
    table = file.read()
    table = table.cast(pa.schema([without_view(field) for field in table.schema]))  # views cannot be filtered
    users = [name for name in layout.users(table.column_names, ids) if name not in ITEM_COLUMNS]
    nested = [name for name in table.column_names if pa.types.is_nested(table.schema.field(name).type)]
    rows = {row for name in users if name not in nested for row in rows_of_users(name, table[name], ids, users=True)}
    remaining = table.filter(pa.array([row not in rows for row in range(len(table))], pa.bool_())) if rows else table
    fault, mentioned = "", False
    for name in table.column_names:
        if name in nested and rows_of_users(name, remaining[name], ids, users=name in users):
            fault = f"a user cannot be removed from the lists or records of {name}"
        elif name not in nested and name not in users:
            mentioned |= any(map(ids.is_mentioned, _texts(remaining[name])))
    if not rows:
        return Examined(content, mentioned, fault)
    sink = io.BytesIO()
    remaining = remaining.cast(stored)
    parquet.write_table(remaining, sink, compression=file.metadata.row_group(0).column(0).compression)
    return Examined(sink.getvalue(), mentioned, fault)


def _texts(column: Any) -> list[str]:
    return [each for each in column.unique().to_pylist() if isinstance(each, str)]


def _text(text: str, encoding: str, content: bytes, ids: UserIds, layout: Layout) -> Examined:
    first = text.lstrip("\ufeff \t\r\n")[:1]
    rows: Sequence[tuple[str, bool]] = []
    try:
        if first and first in "[{":
            rows, fault = _json(text, ids, layout)
        else:
            rows, fault = _delimited(text, ids, layout)
    except csv.Error as error:
        return Examined(content, fault=f"not searched: {error}")
    remaining = "".join(row for row, is_user in rows if not is_user)
    mentioned = ids.is_mentioned(remaining)
    if not any(is_user for _, is_user in rows):
        return Examined(content, mentioned, fault)
    return Examined(remaining.encode(encoding), mentioned, fault)


# -- JSON ------------------------------------------------------------------------------------------------------


def _json(text: str, ids: UserIds, layout: Layout) -> tuple[list[tuple[str, bool]], str]:
    """(line, whether it is of a user) of lines of JSON, or one whole document; and what cannot be taken out."""
    stuck = "a user cannot be removed from nested JSON"
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, list) or (isinstance(document, dict) and "\n" in text.strip()):
        return [(text, False)], stuck if _names_user(document, ids, layout) else ""
    rows, fault = [], ""
    for line in io.StringIO(text, newline=""):
        try:
            record = json.loads(line) if line.strip() else {}
        except (ValueError, RecursionError):
            fault = fault or ("a line that cannot be read names a user" if ids.is_in(line) else "")
            record = {}
        users = layout.users([name for name, _ in _leaves(record)], ids)
        top = [value for name, value in _leaves(record) if name in users and not isinstance(value, list)]
        is_user = bool(ids.among(top))
        if not is_user and _names_user(record, ids, layout):
            fault = stuck
        rows.append((line, is_user))
    return rows, fault


def _names_user(document: Any, ids: UserIds, layout: Layout) -> bool:
    records = document if isinstance(document, list) else [document]
    leaves = [leaf for record in records for leaf in _leaves(record, lists=True)]
    users = layout.users({name for name, _ in leaves}, ids)
    return bool(ids.among(value for name, value in leaves if name in users or ids.are_in_column(name)))


def _leaves(record: Any, *, lists: bool = False) -> Iterator[tuple[str, Any]]:
    """(path, value) of the values of a record; of those in lists only where they are wanted."""
    waiting = [("", record)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{name}.{key}" if name else str(key), each) for key, each in reversed(value.items())]
        elif isinstance(value, list):
            waiting += [(name, each) for each in reversed(value)] if lists else []
        else:
            yield name, value


# -- delimited text --------------------------------------------------------------------------------------------


def _delimited(text: str, ids: UserIds, layout: Layout) -> tuple[list[tuple[str, bool]], str]:
    """(record, whether it is of a user) of delimited text, a line break between quotes being part of its record."""
    records, unended = _records(text, layout)
    if not records:
        return [], ""
    names = [name.lstrip("\ufeff").strip() for name in records[0][1]]
    body = records[1:]
    if not layout.users(names, ids) and (given := layout.names_of(len(names))):
        names, body = list(given), records
    header = [(raw, False) for raw, _ in records[: len(records) - len(body)]]
    users = [place for place, name in enumerate(names) if name in layout.users(names, ids)]
    fault = "not searched: a quote that does not end" if unended else ""
    if not users:
        items = {place for place, name in enumerate(names) if name.partition(":")[0] in ITEM_COLUMNS}
        cells = {field for _, fields in records for place, field in enumerate(fields) if place not in items}
        if len(names) > 1 and any(map(ids.is_clear, ids.among(cells))):
            fault = fault or "no column is known to hold the ids of users, and one does (ingest.columns.user_id)"
        return [(raw, False) for raw, _ in records], fault
    matches = ids.among({fields[place] for _, fields in body for place in users if place < len(fields)})
    of_users = [(raw, any(fields[place] in matches for place in users if place < len(fields))) for raw, fields in body]
    return [*header, *of_users], fault


def _records(text: str, layout: Layout) -> tuple[list[tuple[str, list[str]]], bool]:
    """(text, fields) of every record, and whether the last one has a quote that does not end."""
    header = text.partition("\n")[0]
    delimiter = layout.delimiter or max(_DELIMITERS, key=header.count)
    quote = layout.quote if layout.quote is not None else "" if delimiter == "\t" else '"'
    dialect: dict[str, Any] = {"delimiter": delimiter, "escapechar": layout.escape or None}
    dialect |= {"quotechar": quote} if quote else {"quoting": csv.QUOTE_NONE}
    taken: list[str] = []

    def lines() -> Iterator[str]:
        for line in io.StringIO(text, newline=""):
            taken.append(line)
            yield line

    records = []
    for fields in csv.reader(lines(), **dialect):
        records.append(("".join(taken), fields))
        taken.clear()
    try:
        list(csv.reader(io.StringIO(records[-1][0] if records else "", newline=""), strict=True, **dialect))
    except csv.Error as error:
        return records, "end of data" in str(error)
    return records, False
