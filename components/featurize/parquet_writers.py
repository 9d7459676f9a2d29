"""Parquet files written a part at a time, so that no table has to fit into memory."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self


class ParquetWriters:
    """Parquet files in a folder that grow part by part; ``rows`` counts the rows of each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, Any] = {}
        self.rows: dict[str, int] = {}

    def write(self, name: str, table: Any) -> None:
        """Append an Arrow table to <name>.parquet; the first table sets the file's columns and types."""
        import pyarrow.parquet as parquet

        if name not in self._writers:
            self._writers[name] = parquet.ParquetWriter(
                self._folder / f"{name}.parquet", table.schema, compression="zstd"
            )
            self.rows[name] = 0
        schema = self._writers[name].schema
        self._writers[name].write_table(table.select(schema.names).cast(schema))
        self.rows[name] += len(table)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for writer in self._writers.values():
            writer.close()
