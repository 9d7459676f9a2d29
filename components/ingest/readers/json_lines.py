"""JSON lines as parts: the keys of the first objects become columns."""

import json
from collections.abc import Iterator
from typing import Any

from components.ingest.config import IngestConfig
from components.ingest.readers import text_stream
from components.ingest.readers.parts import Column, Part
from rankline.errors import SourceError
from rankline.io.sources import File
from rankline.io.sql import identifier, literal

SAMPLED_LINES = 10_000  # objects whose keys become columns


def json_part(table: str, file: File, config: IngestConfig) -> Part:
    settings = config.files
    stream, _ = text_stream.open_text(file, settings.encoding)
    with stream:
        keys = _sample_keys(stream, file)
    stream, bytes_read = text_stream.open_text(file, settings.encoding)
    paths = ", ".join(literal(f"$.{'.'.join(identifier(step) for step in key)}") for key in keys)
    object_sql = "CASE WHEN json_valid(raw) AND json_type(raw) = 'OBJECT' THEN raw END"
    cells = f"json_extract_string(object, [{paths}])" if keys else "[]::VARCHAR[]"
    return Part(
        table=table,
        where=file.path,
        columns={".".join(key): Column(f"cell[{position}]", "text") for position, key in enumerate(keys, start=1)},
        schema=text_stream.line_schema(),
        batches=text_stream.line_batches(stream, first=1),
        raw="raw",
        relation=f"(SELECT *, {cells} AS cell "
        f"FROM (SELECT *, {object_sql} AS object FROM arriving WHERE trim(raw) <> ''))",
        checks=(text_stream.encoding_check(settings.encoding), ("object IS NULL", "not a JSON object")),
        split=file.split,
        bytes_read=bytes_read,
        size=file.size(),
    )


def _sample_keys(stream: Any, file: File) -> list[tuple[str, ...]]:
    """The keys of the first objects, nested ones as paths."""
    keys: dict[tuple[str, ...], None] = {}
    for position, line in zip(range(SAMPLED_LINES), stream, strict=False):
        if position == 0 and line.lstrip().startswith(b"["):
            raise SourceError(
                "a JSON file is one array, not lines",
                expected="one object per line",
                found=repr(line[:60].decode("utf-8", "replace")),
                where=file.path,
                hint="write one object per line: jq -c '.[]' file.json > file.jsonl",
            )
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            keys |= dict.fromkeys(_nested_keys(record))
    return list(keys)


def _nested_keys(record: dict[str, Any], parents: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The keys of an object and of the objects inside it."""
    for key, value in record.items():
        yield (*parents, key)
        if isinstance(value, dict):
            yield from _nested_keys(value, (*parents, key))
