"""The rows that ingest set aside, and whose items they may be: set aside is not gone."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from rankline.contracts import SUPERSEDED

MAX_NAMED = 5  # items that a sentence names


@dataclass(frozen=True)
class RejectedItems:
    """What of a source's items could not be read."""

    rows: int
    superseded: int  # rows of a change feed that a later one of the same item made void
    items: frozenset[str]  # the known ones that the rows tell of

    @classmethod
    def of(cls, raw: Path, known: Set[str]) -> RejectedItems:
        """Those of ``raw``; of a row whose id cannot be read, every known id that stands in it as a word counts."""
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
    """The first of some items, as a sentence names them."""
    return ", ".join(items[:MAX_NAMED]) + (", …" if len(items) > MAX_NAMED else "")
