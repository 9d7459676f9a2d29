"""The format `tables`: Parquet, CSV and JSON lines, one file or many, local or behind a URL."""

import functools
from collections.abc import Callable, Iterator

from components.ingest.config import IngestConfig
from components.ingest.readers.csv_table import csv_part
from components.ingest.readers.json_lines import json_part
from components.ingest.readers.parts import Column, Part
from components.ingest.readers.typed import parquet_part
from rankline.errors import SourceError
from rankline.io.sources import File, Files
from rankline.io.sql import literal

READERS: dict[str, Callable[[str, File, IngestConfig], Part]] = {
    **dict.fromkeys(("csv", "tsv", "txt", "dat", "data", "tab", "psv"), csv_part),
    **dict.fromkeys(("jsonl", "ndjson", "json"), json_part),
    **dict.fromkeys(("parquet", "pq"), parquet_part),
}


def read_parts(config: IngestConfig, files: Files) -> Iterator[Part]:
    """The parts of a source whose tables are files.

    Raises:
        SourceError: a file does not match its name, is truncated, or is in another encoding.
    """
    for table, each in files.items():
        filled = [file for file in each if not file.is_empty()]
        others = _Columns(table, filled, config)
        for file in filled:
            yield file_part(table, file, config)._replace(others_have=others.have)


class _Columns:
    """The columns of all files of a table, which are only read if a column is not in all of them."""

    def __init__(self, table: str, files: list[File], config: IngestConfig) -> None:
        self._table, self._files, self._config = table, files, config

    def have(self, name: str) -> bool:
        return len(self._files) > 1 and name in self._names

    @functools.cached_property
    def _names(self) -> set[str]:
        return {name for file in self._files for name in file_part(self._table, file, self._config).columns}


def file_part(table: str, file: File, config: IngestConfig) -> Part:
    """One file as a part of a table; its partition folders (name=value) add columns."""
    if file.kind not in READERS:
        raise SourceError(
            "there is no reader for this kind of file",
            expected=f"a name that ends in {', '.join(READERS)}, optionally with .gz, .zst or .bz2",
            found=file.path.rsplit("/", 1)[-1],
            where=file.path,
            hint=f"rename or convert it, or set ingest.tables.{table} to a pattern such as *.csv",
        )
    part = READERS[file.kind](table, file, config)
    for name, value in file.partitions.items():
        part.columns.setdefault(name, Column("NULL::VARCHAR" if value is None else literal(value), "text"))
    return part
