"""Parts whose columns the source itself types: Parquet files, and results of databases."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from components.ingest.config import IngestConfig
from components.ingest.readers.parts import Column, Part, json_object
from components.ingest.readers.transfer import batch_error, is_list, plain_type, transfer_type, transferred
from rankline.errors import SourceError
from rankline.io.sources import File
from rankline.io.sql import literal

ROWS = 1 << 16  # of Parquet in one batch


def parquet_part(table: str, file: File, config: IngestConfig) -> Part:
    import pyarrow as pa
    import pyarrow.parquet as pq

    stored = file.open_stored()
    try:
        reader = pq.ParquetFile(pa.PythonFile(stored, "r") if "://" in file.path else stored, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise batch_error(file.path, error) from error
    selected = list(dict.fromkeys(selected_columns(reader.schema_arrow, config)))
    return typed_part(
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
    """The columns that the settings name, or that contain one they name."""
    return [
        field.name
        for field in schema
        if any(config.columns.wants(name) for name, _, _ in _flattened(field.name, "", field.type))
    ]


def _flattened(name: str, sql: str, type: Any) -> Iterator[tuple[str, str, Any]]:
    """A column and, if it is an object, the columns inside it: names (outer.inner), SQL, types."""
    from pyarrow import types

    type = plain_type(type)
    yield name, sql, type
    if types.is_struct(type):
        for field in type:
            yield from _flattened(f"{name}.{field.name}", f"{sql}[{literal(field.name)}]", field.type)


def typed_part(
    table: str, where: str, schema: Any, batches: Iterator[Any], *, selected: list[str], **more: Any
) -> Part:
    """A part whose columns the source types; only the ``selected`` columns arrive."""
    import pyarrow as pa

    if len(set(schema.names)) < len(schema.names):
        raise SourceError(
            f"a table of {table} has two columns of one name",
            expected="every column named once",
            found=", ".join(name for name, count in Counter(schema.names).items() if count > 1),
            where=where,
            hint="export it again with other names, or name the columns in a query",
        )
    names = {name: f"c{position}" for position, name in enumerate(selected)}
    columns: dict[str, Column] = {}
    for field in schema:
        for name, sql, type in _flattened(field.name, names.get(field.name, ""), field.type):
            columns.setdefault(name, Column(*_sql_and_kind(sql, type)))

    def numbered() -> Iterator[Any]:
        row = 1
        for batch in batches:
            arrays = [pa.array(range(row, row + len(batch)), pa.int64())]
            arrays += [transferred(each, where, name) for each, name in zip(batch.columns, selected, strict=True)]
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
        raw=json_object(plain_columns),
        **more,
    )


def _sql_and_kind(name: str, type: Any) -> tuple[str, str]:
    """A column's SQL and its kind, by its Arrow type."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_null(type) or types.is_union(type):
        return name, "text"
    if types.is_string(type) or types.is_large_string(type) or types.is_string_view(type):
        return name, "text"
    if types.is_binary(type) or types.is_large_binary(type) or types.is_binary_view(type):
        return f"TRY(decode({name}))", "text"
    if types.is_integer(type):
        return name, "integer"
    if types.is_floating(type):
        return name, "number"
    if types.is_decimal(type):
        return name, "decimal"
    if types.is_boolean(type) or isinstance(type, pa.Bool8Type):
        return name, "flag"
    if types.is_timestamp(type):
        return name, "naive" if type.tz is None else "instant"
    if types.is_date(type):
        return name, "naive"
    if is_list(type):
        return name, "list"
    if types.is_struct(type) or types.is_map(type):
        return name, "object"
    return name, "other"
