"""CSV files as parts: the header, the delimiter, and rows with too few or too many values."""

import csv
import io
import re
from collections.abc import Iterator
from typing import Any

from components.ingest.config import IngestConfig
from components.ingest.readers import text_stream
from components.ingest.readers.parts import Column, Part, json_object
from components.ingest.readers.text_stream import encoding_check, open_text
from rankline.errors import SourceError
from rankline.io.sources import File

MAX_HEADER_BYTES = 1 << 20
DELIMITERS = ",;\t|"


def csv_part(table: str, file: File, config: IngestConfig) -> Part:
    import pyarrow as pa

    settings = config.files
    stream, bytes_read = open_text(file, settings.encoding)
    header = _read_header(stream, settings.quote)
    delimiter = settings.delimiter or ("\t" if file.kind == "tsv" else "")
    if header.lower().startswith("sep=") and len(header) == 5:  # Excel writes the delimiter this way
        delimiter, header = delimiter or header[-1], _read_header(stream, settings.quote)
    delimiter = delimiter or max(DELIMITERS, key=_unquoted(header, settings.quote).count)
    quote = {"quotechar": settings.quote} if settings.quote else {"quoting": csv.QUOTE_NONE}
    try:
        names = next(csv.reader(io.StringIO(header, newline=""), delimiter=delimiter, **quote), [])
    except csv.Error:  # a cell beyond the csv module's limit
        names = []
    if _is_open(header, settings.quote):
        names = []
    names = [re.sub(r"\s*[\r\n]\s*", " ", name.strip()) for name in names]
    if not any(names) or len(set(names)) < len(names):
        raise SourceError(
            "a CSV file has no header that names every column once",
            expected="column names in the first line",
            found=repr(header[:80]),
            where=file.path,
            hint="write such a header; set ingest.files.quote='' if quotes enclose nothing",
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
        raw=f"coalesce(raw, {json_object(dict(zip(names, cells, strict=True)))})",
        checks=(
            ("broken", "wrong number of columns"),
            encoding_check(settings.encoding, f"coalesce(raw, concat_ws(' ', {', '.join(cells)}))"),
        ),
        split=file.split,
        bytes_read=bytes_read,
        size=file.size(),
    )


def _read_header(stream: Any, quote: str) -> str:
    """The first record that is not blank: one line, or several if a quoted name has line ends."""
    header = ""
    while len(header) < MAX_HEADER_BYTES and (line := _read_line(stream)):
        header = header + line if header.strip() else line
        if header.strip() and not _is_open(header, quote):
            break
    return header.strip("\r\n")


def _is_open(header: str, quote: str) -> bool:
    """Whether a quote is still open at the end of the text."""
    begins = rf"(^|[{DELIMITERS}\r\n]){re.escape(quote)}"
    return bool(quote) and re.search(begins, _unquoted(header, quote)) is not None


def _unquoted(text: str, quote: str) -> str:
    """A text without its quoted parts."""
    mark = re.escape(quote)
    return re.sub(f"{mark}[^{mark}]*{mark}", "", text) if quote else text


def _read_line(stream: Any) -> str:
    """The next line, which may end with a carriage return alone."""
    ahead = stream.peek()
    end = re.search(rb"\r\n?|\n", ahead)
    return str(stream.read(end.end() if end else len(ahead)).decode())


def _record_batches(stream: Any, schema: Any, cells: list[str], delimiter: str, quote: str) -> Iterator[Any]:
    """The records of a CSV file; one with too few or too many values comes as its raw text."""
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
        read_options=arrow_csv.ReadOptions(use_threads=False, column_names=cells, block_size=text_stream.CHUNK_BYTES),
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
        # broken records have row numbers as well: leave these out
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
