"""The rows that ingest rejected, and the items that they may belong to: those are not removed."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from rankline.contracts import SUPERSEDED

MAX_NAMED = 5  # items that a sentence names


@dataclass(frozen=True)
class RejectedItems:
    """The rejected rows of a source's items."""

    rows: int
    superseded: int  # rows of a change feed that a later row of the same item replaced
    items: frozenset[str]  # the known items that the rows belong to

    @classmethod
    def read(cls, raw: Path, known: Set[str]) -> RejectedItems:
        """The rejected rows of ``raw``; a row without a readable id counts for every known id among its words."""
        import pyarrow.parquet as parquet

        path = raw / "rejected.parquet"
        if not path.is_file():
            return cls(0, 0, frozenset())
        rows = [row for row in parquet.read_table(path).to_pylist() if row["table"] == "items"]
        unreadable = [row for row in rows if row["reason"] != SUPERSEDED]
        items: set[str] = set()
        for row in unreadable:
            unreadable_id = row["reason"] == "wrong number of columns" or (
                row["key"] is None and row["reason"] != "missing key"
            )
            if unreadable_id:  # the id may be anywhere
                words = {*re.split(r"[\s,;|\"':{}\[\]]+", row["raw"])}
                words |= {word.strip("\"' ") for word in re.split(r"[\t,;|]", row["raw"])}
                items |= words & known
            elif row["key"] in known:
                items.add(row["key"])
        return cls(len(unreadable), len(rows) - len(unreadable), frozenset(items))


def join_names(items: Sequence[str]) -> str:
    """The first few of some items, for a sentence."""
    return ", ".join(items[:MAX_NAMED]) + (", …" if len(items) > MAX_NAMED else "")
