"""A part: one file or query of a source, whose rows arrive a few megabytes at a time.

A reader only says which parts a source has; `expressions.py` says what their columns mean. Rows arrive as Arrow tables
with a column `row` (the place in the part) and either the columns c0, c1… or the line itself as `raw`.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

from rankline.errors import SourceError
from rankline.io.sql import literal

MAX_MEMBERS = 100  # of an object whose members are columns


class Column(NamedTuple):
    """A column of a part: an SQL expression over the rows as they arrive, and its type.

    `kind` is a type of RecBole (token, token_seq, float, float_seq), text, or the source's own type: number (a float),
    decimal, integer, flag (a boolean), naive (a time without a zone), instant (a time with one), list, object or other.
    """

    sql: str
    kind: str


class Part(NamedTuple):
    """One file or query of a table."""

    table: str
    where: str
    columns: dict[str, Column]
    schema: Any  # of the batches
    batches: Iterator[Any]
    raw: str  # SQL: the row as it came
    relation: str = "arriving"
    checks: tuple[tuple[str, str], ...] = ()  # an SQL condition, and the reason it rejects a row for
    split: str = ""
    bytes_read: Callable[[], int] = lambda: 0  # bytes read so far
    size: int = 0
    outside_window: int = 0  # rows outside the window that the source itself left out
    others_have: Callable[[str], bool] = lambda name: False  # whether another part of the table has a column


def first_rows(parts: Iterator[Part], table: str, rows: int) -> Iterator[Part]:
    """The same parts with only the first rows of one table."""
    remaining = rows

    def limited(batches: Iterator[Any]) -> Iterator[Any]:
        nonlocal remaining
        for batch in batches:
            if len(batch):
                yield batch.slice(0, remaining)
                remaining = max(0, remaining - len(batch))
            if not remaining:
                return

    for part in parts:
        if part.table != table:
            yield part
        elif remaining:
            yield part._replace(batches=limited(part.batches))


def truncated_error(where: str, error: BaseException) -> SourceError:
    """The error for a file that cannot be read to its end."""
    return SourceError(
        "a file cannot be read to its end",
        expected="a complete file",
        found=" ".join(str(error).split()) or type(error).__name__,
        where=where,
        hint="fetch it again: it is truncated or damaged",
    )


def json_object(columns: dict[str, str]) -> str:
    """SQL for a row as a JSON object; ``columns`` are name -> SQL."""
    pairs = ", ".join(f"{literal(name)}, {cell}" for name, cell in columns.items() if name)
    return f"CAST(json_object({pairs}) AS VARCHAR)"


def without_members_of_large_objects(names: Collection[str], *, named: Collection[str]) -> list[str]:
    """The columns of a part, without the members (outer.inner) of objects that have hundreds; ``named`` ones stay."""
    members = Counter(name.rpartition(".")[0] for name in names)
    large = tuple(f"{name}." for name, count in members.items() if name and count > MAX_MEMBERS)
    return [name for name in names if not name.startswith(large) or name in named]
