"""JSON lines as parts: the keys of the first objects become columns."""

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

from components.ingest.config import IngestConfig
from components.ingest.readers import text_stream
from components.ingest.readers.parts import Column, Part, without_members_of_large_objects
from rankline.errors import SourceError, no_rows_error
from rankline.io.sources import File
from rankline.io.sql import literal

MAX_METADATA_BYTES = 1 << 20  # a larger file without lines is data in another layout
SAMPLED_LINES = 10_000  # objects whose keys become columns
MAX_DEPTH = 100  # an object that lies deeper is one column


def json_part(table: str, file: File, config: IngestConfig) -> Part:
    """A file of JSON lines as a part; of its keys, those that the settings name are read.

    Raises:
        SourceError: no line is an object.
    """
    settings = config.files
    stream, _ = text_stream.open_text(file, settings.encoding)
    with stream:
        keys = _sample_keys(stream, file, may_be_empty=config.changes)
    stream, bytes_read = text_stream.open_text(file, settings.encoding)
    paths = {".".join(key): _path(key) for key in keys}
    names = without_members_of_large_objects(list(paths), named=config.columns.source_columns())
    wanted = [name for name in names if config.columns.wants(name)]
    object_sql = "CASE WHEN json_valid(raw) AND json_type(raw) = 'OBJECT' THEN raw END"
    cells = f"json_extract_string(object, [{', '.join(literal(paths[name]) for name in wanted)}])" if wanted else "[]"
    columns = {name: Column("NULL::VARCHAR", "text") for name in names}  # those that nothing asks for
    columns |= {name: Column(f"cell[{position}]", "text") for position, name in enumerate(wanted, start=1)}
    return Part(
        table=table,
        where=file.path,
        columns=columns,
        schema=text_stream.line_schema(),
        batches=text_stream.line_batches(stream, first=1),
        raw="raw",
        relation=f"(SELECT *, {cells} AS cell "
        f"FROM (SELECT *, {object_sql} AS object FROM arriving WHERE trim(raw) <> ''))",
        checks=(
            text_stream.encoding_check(settings.encoding),
            text_stream.nul_check(),
            ("object IS NULL", "not a JSON object"),
        ),
        split=file.split,
        bytes_read=bytes_read,
        size=file.size(),
    )


def _path(key: tuple[str, ...]) -> str:
    """Where a member is, as DuckDB writes it: a pointer if a path could not quote it."""
    if any(sign in step for step in key for sign in '"\\'):
        return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in key)
    return "$" + "".join(f'."{step}"' for step in key)


def _sample_keys(stream: Any, file: File, *, may_be_empty: bool) -> list[tuple[str, ...]]:
    """The keys of the first objects, nested ones as paths."""
    keys: dict[tuple[str, ...], None] = {}
    objects, first = 0, b""
    for line in itertools.islice(stream, SAMPLED_LINES):
        first = first if re.fullmatch(rb"\s*\[?\s*", first) is None else first + line.strip()
        if first.startswith(b"[") and not objects and first != b"[":
            error = _no_lines_error("a JSON file is one array, not lines", first, file, "jq -c '.[]'")
            error.has_no_rows &= re.match(rb"\[\s*\{", first) is None  # these would be rows
            raise error
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            objects += 1
            keys |= dict.fromkeys(_nested_keys(record))
    if not keys and not (may_be_empty and not first):
        hint = "jq -c ." if first.startswith(b"{") else "jq -c '{value: .}'"
        raise _no_lines_error("a JSON file holds no line that is an object with keys", first, file, hint)
    return list(keys)


def _no_lines_error(message: str, first: bytes, file: File, command: str) -> SourceError:
    error = no_rows_error(
        message,
        expected="one object per line",
        found=repr(first[:60].decode("utf-8", "replace")) if first else "an empty file",
        where=file.path,
        hint=f"write one object per line: {command} file.json > file.jsonl; jq -c '.data[]' for a list inside of it",
    )
    error.has_no_rows = file.size() < MAX_METADATA_BYTES
    return error


def _nested_keys(record: dict[str, Any], parents: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The keys of an object and of the objects inside it, as deep as objects become columns."""
    for key, value in record.items():
        if not key:
            continue
        yield (*parents, key)
        if isinstance(value, dict) and len(parents) < MAX_DEPTH:
            yield from _nested_keys(value, (*parents, key))
