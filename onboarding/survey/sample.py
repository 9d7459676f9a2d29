"""The first rows of a table, read as ingest reads them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

from components.ingest.readers.parts import Part, without_members_of_large_objects
from components.ingest.readers.transfer import batch_error
from rankline.errors import no_rows_error
from rankline.io.sql import identifier


class Sample(NamedTuple):
    """What a sample holds: the kind of each column, as ingest reads it, and whether it has all the rows there are."""

    kinds: dict[str, str]
    is_complete: bool


def load_sample(db: Any, name: str, parts: Iterable[Part], *, max_rows: int, rows_of_part: int) -> Sample:
    """Create the table ``name`` from the first rows of some parts.

    Rows that ingest cannot read are left out. Parts with different columns make one table with all of them.
    """
    import duckdb
    import pyarrow as pa

    kinds: dict[str, str] = {}
    batches, remaining, is_complete = [], max_rows, True
    for part in parts:
        if remaining <= 0:
            break
        left = min(rows_of_part, remaining)
        names = without_members_of_large_objects(part.columns, named=())
        if not names:
            continue
        part = part._replace(columns={column: part.columns[column] for column in names})
        kinds |= {column: each.kind for column, each in part.columns.items()}
        batches.append(_query(db, part, part.schema.empty_table()))  # a part without rows has columns all the same
        try:
            for batch in part.batches:
                batches.append(_query(db, part, pa.table(batch.slice(0, left))))
                remaining -= min(len(batch), left)
                left -= len(batch)
                if left <= 0:
                    is_complete = False
                    break
        except (OSError, EOFError, pa.ArrowException) as error:
            raise batch_error(part.where, error) from error
    if not kinds:
        raise no_rows_error(
            "a table has no column",
            expected="columns with names",
            found="none",
            where=name,
            hint="export it again, or leave it out with --events and --items",
        )
    groups = [pa.concat_tables(group) for _, group in itertools.groupby(batches, key=lambda table: table.schema)]
    for number, group in enumerate(groups):
        db.register(f"sample_{number}", group)
    samples = [f"SELECT * FROM sample_{number}" for number in range(len(groups))]
    try:
        db.execute(f"CREATE TABLE {identifier(name)} AS {' UNION ALL BY NAME '.join(samples)}")
    except duckdb.Error:  # types that have nothing in common, such as a list and a number
        texts = [sample.replace("*", "CAST(COLUMNS(*) AS VARCHAR)") for sample in samples]
        db.execute(f"CREATE TABLE {identifier(name)} AS {' UNION ALL BY NAME '.join(texts)}")
        kinds = dict.fromkeys(kinds, "text")
    for number in range(len(groups)):
        db.unregister(f"sample_{number}")
    return Sample(kinds, is_complete and remaining > 0)


def _query(db: Any, part: Part, batch: Any) -> Any:
    """A batch of a part as an Arrow table of its columns."""
    columns = ", ".join(f"{column.sql} AS {identifier(name)}" for name, column in part.columns.items())
    unreadable = " OR ".join(f"coalesce({check}, false)" for check, _ in part.checks)
    db.register("arriving", batch)
    try:
        where = f" WHERE NOT ({unreadable})" if unreadable else ""
        return db.sql(f"SELECT {columns} FROM {part.relation}{where}").to_arrow_table()
    finally:
        db.unregister("arriving")
