"""The adapter for tables in files: Parquet, CSV and JSON lines, one file or many, here or behind a URL."""

import csv
import io
import re
from collections.abc import Iterator
from typing import Any

from components.ingest import parts
from components.ingest.config import IngestConfig
from components.ingest.fields import identifier, literal
from components.ingest.parts import Column, Part
from rankline.errors import SourceError
from rankline.io.sources import File, Files

ROWS = 1 << 16  # of Parquet in one batch
SAMPLED_LINES = 10_000  # of JSON, to know its keys
MAX_HEADER_BYTES = 1 << 20
DELIMITERS = ",;\t|"


def read_parts(config: IngestConfig, files: Files) -> Iterator[Part]:
    """The parts of a source whose tables are files.

    Raises:
        SourceError: where a file is not what its name says, is cut short, or is in another encoding.
    """
    for table, each in files.items():
        for file in each:
            yield file_part(table, file, config)


def file_part(table: str, file: File, config: IngestConfig) -> Part:
    """One file as a part of a table; the folders it lies in may add columns."""
    if file.kind not in READERS:
        raise SourceError(
            "no reader knows this kind of file",
            expected=f"a name that ends in {', '.join(READERS)}, compressed as .gz, .zst, .bz2 or not at all",
            found=file.path.rsplit("/", 1)[-1],
            where=file.path,
            hint=f"rename or convert it, or point ingest.tables.{table} at the files alone (a pattern such as *.csv)",
        )
    part = READERS[file.kind](table, file, config)
    for name, value in file.partitions.items():
        part.columns.setdefault(name, Column("NULL::VARCHAR" if value is None else literal(value), "text"))
    return part


def _csv(table: str, file: File, config: IngestConfig) -> Part:
    import pyarrow as pa

    settings = config.files
    stream, bytes_read = parts.open_text(file, settings.encoding)
    header = _read_header(stream, settings.quote)
    delimiter = settings.delimiter or ("\t" if file.kind == "tsv" else "")
    if header.lower().startswith("sep=") and len(header) == 5:  # Excel's own way to name it
        delimiter, header = delimiter or header[-1], _read_header(stream, settings.quote)
    delimiter = delimiter or max(DELIMITERS, key=_unquoted(header, settings.quote).count)
    quote = {"quotechar": settings.quote} if settings.quote else {"quoting": csv.QUOTE_NONE}
    try:
        names = next(csv.reader(io.StringIO(header, newline=""), delimiter=delimiter, **quote), [])  # type: ignore[arg-type]
    except csv.Error:  # a name longer than any is
        names = []
    if _is_open(header, settings.quote):
        names = []
    names = [re.sub(r"\s*[\r\n]\s*", " ", name.strip()) for name in names]
    if not any(names) or len(set(names)) < len(names):
        raise SourceError(
            "a table begins with a header that names every column once",
            expected="names of columns",
            found=repr(header[:80]),
            where=file.path,
            hint="write such a header as the file's first line; ingest.files.quote='' where quotes enclose nothing",
        )
    cells = [f"c{position}" for position in range(len(names))]
    schema = pa.schema(
        [("row", pa.int64()), ("raw", pa.string()), ("broken", pa.bool_()), *((cell, pa.string()) for cell in cells)]
    )
    return Part(
        table=table,
        where=file.path,
        columns={name: Column(cell, "text") for name, cell in zip(names, cells, strict=True) if name},
        schema=schema,
        batches=_record_batches(stream, schema, cells, delimiter, settings.quote),
        raw=f"coalesce(raw, {_json_object(dict(zip(names, cells, strict=True)))})",
        checks=(
            ("broken", "wrong number of columns"),
            parts.encoding_check(settings.encoding, f"coalesce(raw, concat_ws(' ', {', '.join(cells)}))"),
        ),
        split=file.split,
        bytes_read=bytes_read,
        size=file.size(),
    )


def _read_header(stream: Any, quote: str) -> str:
    """The first record that is not blank: a line, or several where a name in quotes holds line ends."""
    header = ""
    while len(header) < MAX_HEADER_BYTES and (line := _read_line(stream)):
        header = header + line if header.strip() else line
        if header.strip() and not _is_open(header, quote):
            break
    return header.strip("\r\n")


def _is_open(header: str, quote: str) -> bool:
    """Does a quote enclose what comes next?"""
    begins = rf"(^|[{DELIMITERS}\r\n]){re.escape(quote)}"
    return bool(quote) and re.search(begins, _unquoted(header, quote)) is not None


def _unquoted(text: str, quote: str) -> str:
    """A text without what quotes enclose."""
    mark = re.escape(quote)
    return re.sub(f"{mark}[^{mark}]*{mark}", "", text) if quote else text


def _read_line(stream: Any) -> str:
    """The next line, whatever ends it: old programs write a carriage return alone."""
    ahead = stream.peek()
    end = re.search(rb"\r\n?|\n", ahead)
    return str(stream.read(end.end() if end else len(ahead)).decode())


def _record_batches(stream: Any, schema: Any, cells: list[str], delimiter: str, quote: str) -> Iterator[Any]:
    """The records of a CSV file; one with too few or too many values comes as it stood in the file."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    if not stream.peek(1):
        return
    broken: list[Any] = []

    def collect_broken(record: Any) -> str:
        broken.append(record)
        return "skip"

    reader = arrow_csv.open_csv(
        pa.PythonFile(stream, "r"),
        read_options=arrow_csv.ReadOptions(use_threads=False, column_names=cells, block_size=parts.CHUNK_BYTES),
        parse_options=arrow_csv.ParseOptions(
            delimiter=delimiter,
            quote_char=quote or False,
            newlines_in_values=bool(quote),
            invalid_row_handler=collect_broken,
        ),
        convert_options=arrow_csv.ConvertOptions(column_types={cell: pa.string() for cell in cells}),
    )
    row = 1
    for batch in reader:
        # rows that were set aside have numbers, too: leave them out of the sound ones'
        broken_rows = np.array([record.number for record in broken], dtype=np.int64)
        rows = np.setdiff1d(np.arange(row, row + len(batch) + len(broken_rows)), broken_rows)[: len(batch)]
        row = int(rows[-1]) + 1 if len(rows) else row
        nulls = pa.nulls(len(batch))
        yield pa.table([pa.array(rows), nulls.cast(pa.string()), nulls.cast(pa.bool_()), *batch.columns], schema=schema)
        if broken:
            yield _broken_rows(broken, schema)
            row = max(row, broken[-1].number + 1)
            broken.clear()
    if broken:
        yield _broken_rows(broken, schema)


def _broken_rows(records: list[Any], schema: Any) -> Any:
    import pyarrow as pa

    rows = [{"row": record.number, "raw": record.text, "broken": True} for record in records]
    return pa.Table.from_pylist(rows, schema=schema)


def _json(table: str, file: File, config: IngestConfig) -> Part:
    settings = config.files
    stream, _ = parts.open_text(file, settings.encoding)
    with stream:
        keys = _sample_keys(stream, file)
    stream, bytes_read = parts.open_text(file, settings.encoding)
    paths = ", ".join(literal(f"$.{'.'.join(identifier(step) for step in key)}") for key in keys)
    object_sql = "CASE WHEN json_valid(raw) AND json_type(raw) = 'OBJECT' THEN raw END"
    cells = f"json_extract_string(object, [{paths}])" if keys else "[]::VARCHAR[]"
    return Part(
        table=table,
        where=file.path,
        columns={".".join(key): Column(f"cell[{position}]", "text") for position, key in enumerate(keys, start=1)},
        schema=parts.line_schema(),
        batches=parts.line_batches(stream, first=1),
        raw="raw",
        relation=f"(SELECT *, {cells} AS cell FROM (SELECT *, {object_sql} AS object FROM arriving WHERE trim(raw) <> ''))",
        checks=(parts.encoding_check(settings.encoding), ("object IS NULL", "not a JSON object")),
        split=file.split,
        bytes_read=bytes_read,
        size=file.size(),
    )


def _sample_keys(stream: Any, file: File) -> list[tuple[str, ...]]:
    """The keys of the first objects."""
    import json

    found: dict[tuple[str, ...], None] = {}
    for position, line in zip(range(SAMPLED_LINES), stream, strict=False):
        if position == 0 and line.lstrip().startswith(b"["):
            raise SourceError(
                "a JSON file holds one array, not lines",
                expected="an object a line",
                found=repr(line[:60].decode("utf-8", "replace")),
                where=file.path,
                hint="write one object a line: jq -c '.[]' file.json > file.jsonl",
            )
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            found |= dict.fromkeys(_nested_keys(record))
    return list(found)


def _nested_keys(record: dict[str, Any], parents: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The keys of an object, and those of objects within it."""
    for key, value in record.items():
        yield (*parents, key)
        if isinstance(value, dict):
            yield from _nested_keys(value, (*parents, key))


def _parquet(table: str, file: File, config: IngestConfig) -> Part:
    import pyarrow as pa
    import pyarrow.parquet as pq

    stored = file.open_stored()
    try:
        reader = pq.ParquetFile(pa.PythonFile(stored, "r") if "://" in file.path else stored, pre_buffer=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise parts.truncated_error(file.path, error) from error
    selected = selected_columns(reader.schema_arrow, config)
    return typed(
        table,
        file.path,
        reader.schema_arrow,
        reader.iter_batches(ROWS, columns=selected),
        selected=selected,
        split=file.split,
        bytes_read=stored.tell,
        size=file.size(),
    )


def selected_columns(schema: Any, config: IngestConfig) -> list[str]:
    """The columns that the settings name, or of which they name something inside."""
    return [
        field.name
        for field in schema
        if any(config.columns.wants(name) for name, _, _ in _flattened(field.name, "", field.type))
    ]


def transfer_type(type: Any) -> Any:
    """The type as which a column arrives: decimals as text, since DuckDB knows none of more than 38 digits."""
    import pyarrow as pa

    return pa.string() if pa.types.is_decimal(type) else type


def _flattened(name: str, sql: str, type: Any) -> Iterator[tuple[str, str, Any]]:
    """A column and what is inside of it, if it is an object: names (outer.inner), SQL, types."""
    from pyarrow import types

    yield name, sql, type
    if types.is_struct(type):
        for field in type:
            yield from _flattened(f"{name}.{field.name}", f"{sql}[{literal(field.name)}]", field.type)


def typed(table: str, where: str, schema: Any, batches: Iterator[Any], *, selected: list[str], **more: Any) -> Part:
    """A part whose columns the source itself types, and of which only those that are ``kept`` arrive."""
    import pyarrow as pa

    names = {name: f"c{position}" for position, name in enumerate(selected)}
    columns: dict[str, Column] = {}
    for field in schema:
        for name, sql, type in _flattened(field.name, names.get(field.name, ""), field.type):
            columns.setdefault(name, Column(*_sql_and_kind(sql, type)))

    def numbered() -> Iterator[Any]:
        row = 1
        for batch in batches:
            arrays = [pa.array(range(row, row + len(batch)), pa.int64())]
            arrays += [each.cast(pa.string()) if pa.types.is_decimal(each.type) else each for each in batch.columns]
            yield pa.table(arrays, names=["row", *names.values()])
            row += len(batch)

    arriving_schema = pa.schema(
        [("row", pa.int64()), *((names[name], transfer_type(schema.field(name).type)) for name in selected)]
    )
    plain_columns = {name: names[name] for name in names if columns[name].kind != "list"}
    return Part(
        table=table,
        where=where,
        columns=columns,
        schema=arriving_schema,
        batches=numbered(),
        raw=_json_object(plain_columns),
        **more,
    )


def _sql_and_kind(name: str, type: Any) -> tuple[str, str]:
    """A column's SQL and how it is to be read, by its Arrow type."""
    from pyarrow import types

    if types.is_dictionary(type):
        type = type.value_type
    if types.is_string(type) or types.is_large_string(type) or types.is_string_view(type):
        return name, "text"
    if types.is_binary(type) or types.is_large_binary(type):
        return f"TRY(decode({name}))", "text"
    if types.is_integer(type):
        return name, "integer"
    if types.is_floating(type):
        return name, "number"
    if types.is_decimal(type):
        return name, "decimal"
    if types.is_boolean(type):
        return name, "flag"
    if types.is_timestamp(type):
        return name, "naive" if type.tz is None else "moment"
    if types.is_date(type):
        return name, "naive"
    if types.is_list(type) or types.is_large_list(type) or types.is_fixed_size_list(type):
        return name, "list"
    if types.is_struct(type) or types.is_map(type):
        return name, "object"
    return name, "other"


def _json_object(columns: dict[str, str]) -> str:
    """A row as a JSON object, in SQL."""
    pairs = ", ".join(f"{literal(name)}, {cell}" for name, cell in columns.items() if name)
    return f"CAST(json_object({pairs}) AS VARCHAR)"


READERS = {
    "csv": _csv, "tsv": _csv, "txt": _csv, "jsonl": _json, "ndjson": _json, "json": _json, "parquet": _parquet,
    "pq": _parquet,
}  # fmt: skip
