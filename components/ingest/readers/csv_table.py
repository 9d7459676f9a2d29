"""CSV files as parts: rows with too few or too many values, and rows that an unclosed quote swallowed."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from components.ingest.config import IngestConfig
from components.ingest.readers import escapes, text_stream
from components.ingest.readers.csv_layout import Layout, long_delimiter, read_layout, records
from components.ingest.readers.parts import Column, Part, json_object
from components.ingest.readers.text_stream import SEPARATOR, encoding_check, nul_check, open_text
from rankline.errors import SourceError
from rankline.io.sources import File
from rankline.io.sql import literal

WRONG_NUMBER = "wrong number of columns"
UNCLOSED_QUOTE = "inside a quote that is not closed"
BACKSLASH_QUOTE = "a quote after a backslash"


def csv_part(table: str, file: File, config: IngestConfig) -> Part:
    """A CSV file as a part.

    Raises:
        SourceError: its first line does not name the columns, or it is in another encoding.
    """
    import pyarrow as pa

    settings = config.files
    stream, bytes_read = open_text(file, settings.encoding, escape=settings.escape, delimiter=settings.delimiter)
    long = settings.delimiter if settings.delimiter else long_delimiter(stream)
    if len(long) > 1:
        if not settings.delimiter:
            stream.close()
            stream, bytes_read = open_text(file, settings.encoding, escape=settings.escape, delimiter=long)
        settings = settings.model_copy(update={"delimiter": SEPARATOR, "quote": settings.quote or ""})
    layout = read_layout(stream, table, file, settings, written=long if len(long) > 1 else "")
    if not layout.has_header:  # the first line is a row
        stream.close()
        stream, bytes_read = open_text(file, settings.encoding, escape=settings.escape, delimiter=long)
    cells = [f"c{position}" for position in range(len(layout.names))]
    schema = pa.schema(
        [("row", pa.int64()), ("raw", pa.string()), ("broken", pa.string()), *((cell, pa.string()) for cell in cells)]
    )
    values = [escapes.unescaped(cell) if settings.escape else cell for cell in cells]
    text = f"coalesce(raw, concat_ws(' ', {', '.join(cells)}))"
    checks = [
        nul_check(text),
        *((f"broken = {literal(reason)}", reason) for reason in (WRONG_NUMBER, UNCLOSED_QUOTE)),
        encoding_check(settings.encoding, text),
    ]
    if layout.has_backslash_quotes:
        ends = " OR ".join(rf"regexp_matches({cell}, '\\[^\"]*\"$')" for cell in cells)
        checks.append((f"coalesce({ends}, false)", BACKSLASH_QUOTE))
    return Part(
        table=table,
        where=file.path,
        columns={name: Column(value, "text") for name, value in zip(layout.names, values, strict=True) if name},
        schema=schema,
        batches=_record_batches(stream, schema, cells, layout, file.path),
        raw=f"coalesce(replace(raw, {literal(SEPARATOR)}, {literal(long)}), "
        f"{json_object(dict(zip(layout.names, values, strict=True)))})",
        checks=tuple(checks),
        split=file.split,
        bytes_read=bytes_read,
        size=file.size(),
    )


def _record_batches(stream: Any, schema: Any, cells: list[str], layout: Layout, where: str) -> Iterator[Any]:
    """The records of a CSV file; one that cannot be read comes as its raw text, or as its lines if it has several."""
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
        read_options=arrow_csv.ReadOptions(use_threads=False, column_names=cells, block_size=text_stream.CHUNK_BYTES),
        parse_options=arrow_csv.ParseOptions(
            delimiter=layout.delimiter,
            quote_char=layout.quote or False,
            newlines_in_values=bool(layout.quote),
            invalid_row_handler=collect_broken,
        ),
        convert_options=arrow_csv.ConvertOptions(column_types={cell: pa.string() for cell in cells}),
    )
    numbers = _RowNumbers()
    with _unclosed_quote_errors(layout, where):
        for batch in reader:
            yield from _batch_rows(batch, broken, numbers, schema, layout)
            broken.clear()
    if broken:
        yield from _batch_rows(schema.empty_table().select(cells), broken, numbers, schema, layout)


class _RowNumbers:
    """Row numbers: the records so far, and the lines that they were too few by."""

    def __init__(self) -> None:
        self.next_record, self.extra = 1, 0


def _batch_rows(batch: Any, broken: list[Any], numbers: _RowNumbers, schema: Any, layout: Layout) -> Iterator[Any]:
    """The good rows of a batch, then the broken ones."""
    import numpy as np
    import pyarrow as pa

    # broken records have numbers as well: leave these out
    broken_records = np.array([record.number for record in broken], dtype=np.int64)
    first = numbers.next_record
    records = np.setdiff1d(np.arange(first, first + len(batch) + len(broken)), broken_records)[: len(batch)]
    numbers.next_record = max(first, *(int(each[-1]) + 1 for each in (records, broken_records) if len(each)), 0)
    lines = {record.number: _lines(record.text) for record in broken}
    unclosed = {number for number, each in lines.items() if _are_records(each, layout)}
    whole = {number: cells for number, each in lines.items() if (cells := _with_blanks(each, layout))}
    swallowing = {int(records[place]): _lines(text) for place, text in _swallowed(batch, layout)}
    lines |= swallowing
    unclosed |= set(swallowing)

    extra = np.zeros(len(batch), np.int64)
    rows: list[dict[str, Any]] = []
    before = numbers.extra
    for number in sorted(lines):
        if number in whole:
            rows.append({"row": number + numbers.extra, **whole[number]})
            continue
        split = lines[number] if number in unclosed else ["\n".join(lines[number])]
        reason = UNCLOSED_QUOTE if number in unclosed else WRONG_NUMBER
        rows += [
            {"row": number + numbers.extra + line, "raw": text, "broken": reason} for line, text in enumerate(split)
        ]
        numbers.extra += len(split) - 1
        extra[records > number] = numbers.extra - before
    nulls = pa.nulls(len(batch)).cast(pa.string())
    table = pa.table([pa.array(records + before + extra), nulls, nulls, *batch.columns], schema=schema)
    if swallowing:
        table = table.filter(pa.array(~np.isin(records, list(swallowing))))
    yield table
    if rows:
        yield pa.Table.from_pylist(rows, schema=schema)


def _with_blanks(lines: list[str], layout: Layout) -> dict[str, str]:
    """The cells of a record with more or fewer empty values at its end than others; none if it has other faults."""
    if len(lines) > 1:
        return {}
    (values, *_) = records(lines[0], layout.delimiter, layout.quote) or [[]]
    if len(values) < layout.width or any(value.strip() for value in values[layout.width :]):
        return {}
    return {f"c{position}": value for position, value in enumerate(values[: len(layout.names)])}


def _swallowed(batch: Any, layout: Layout) -> Iterator[tuple[int, str]]:
    """The places and texts of the rows of a batch with a value that holds further records."""
    import pyarrow.compute as pc

    if not len(batch) or not layout.quote or len(layout.names) < 2:
        return
    places: set[int] = set()
    for column in batch.columns:
        with_lines = pc.match_substring_regex(column, pattern=r"[\r\n]")
        places |= set(pc.indices_nonzero(with_lines).to_pylist())
    for place in sorted(places):
        text = layout.delimiter.join(column[place].as_py() for column in batch.columns)
        if _are_records(_lines(text), layout):
            yield place, text


def _are_records(lines: list[str], layout: Layout) -> bool:
    """Whether the lines of one record look like records of their own: the same number of values, and ids alike."""
    if len(lines) < 2 or not layout.quote or len(layout.names) < 2:
        return False
    first, *later = (line.partition(layout.delimiter) for line in lines)
    alike = sum(bool(mark) and _shape(value) == _shape(first[0]) for value, mark, _ in later)
    whole = sum(line.count(layout.delimiter) == len(layout.names) - 1 for line in lines)
    if alike < 0.8 * len(later) or whole < 0.8 * len(lines):
        return False
    has_digits = re.search(r"\d", first[0]) is not None
    return len(lines) > (2 if len(layout.names) == 2 else 1) if has_digits else len(lines) > 4


def _lines(text: str) -> list[str]:
    return re.split(r"\r\n?|\n", text.rstrip("\r\n"))


def _shape(value: str) -> tuple[str, bool]:
    return re.sub(r"\w+", "x", value.strip()[:100]), re.search(r"\d", value) is not None


@contextlib.contextmanager
def _unclosed_quote_errors(layout: Layout, where: str) -> Iterator[None]:
    """Say of a value that has no end that its quote has none."""
    import pyarrow as pa

    try:
        yield
    except pa.ArrowInvalid as error:
        if not layout.quote or "straddling" not in str(error):
            raise
        raise SourceError(
            "a value of a CSV file has no end",
            expected=f"a closing {layout.quote} within {text_stream.CHUNK_BYTES >> 20} MB of the opening one",
            found="a quote that is not closed",
            where=where,
            hint="set ingest.files.quote='' if quotes enclose nothing, ingest.files.escape='\\' if a backslash "
            "precedes those inside a value",
        ) from error
