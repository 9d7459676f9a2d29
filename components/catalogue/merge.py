"""Changed items laid over those that are there: added, changed, withdrawn, taken out, or as they were."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from rankline.contracts import ITEMS

TOLD = tuple(name for name in ITEMS.names if name != "item_id")


@dataclass(frozen=True)
class Merged:
    """The items of a new catalogue, and what became of each item, by id."""

    items: Any  # an Arrow table: those that were there in their order, then the new ones in theirs
    before: int
    available_before: int
    added: list[str]
    changed: list[str]
    withdrawn: list[str]  # there and no longer available; also among the changed
    gone: list[str]
    unchanged: int

    @property
    def nothing(self) -> bool:
        """Whether everything is as it was."""
        return not (self.added or self.changed or self.gone)

    @property
    def counts(self) -> dict[str, int]:
        """For people."""
        return {
            "items": len(self.items),
            "added": len(self.added),
            "changed": len(self.changed),
            "withdrawn": len(self.withdrawn),
            "gone": len(self.gone),
            "unchanged": self.unchanged,
        }


def merge(present: Any, told: Any, *, tell: Collection[str], whole: bool = False) -> Merged:
    """The table ``present`` with the items ``told`` in it: each replaces the one of its id, or comes behind.

    ``tell`` are the canonical columns that the source has: in the others, and in declared ones that it lacks, an item
    keeps what it was. With ``whole`` the items that are not told are taken out.
    """
    import pyarrow as pa

    told = told.replace_schema_metadata(None)
    silent = {name for name in TOLD if name not in tell}
    extra = [field for field in told.schema if field.name not in present.column_names]
    schema = pa.schema([*present.schema.remove_metadata(), *extra])
    kept = [name for name in schema.names if name in silent or name not in told.column_names]
    rows = {row["item_id"]: row for row in present.to_pylist()}
    order = list(rows)
    new = {row["item_id"]: row for row in told.to_pylist()}
    added, changed, withdrawn = [], [], []
    out: dict[str, dict[str, Any]] = {}
    for item in order:
        before = rows[item]
        if item not in new:
            out[item] = before
            continue
        now = {**new[item], **{name: before.get(name) for name in kept}}
        out[item] = now
        if any(now.get(name) != before.get(name) for name in schema.names):
            changed.append(item)
            if now.get("available") is False and before.get("available") is not False:
                withdrawn.append(item)
    for item, row in new.items():
        if item not in rows:
            added.append(item)
            out[item] = {"available": True, **{name: value for name, value in row.items() if name not in silent}}
            out[item].setdefault("category", [])
    gone = [item for item in order if item not in new] if whole else []
    left = [out[item] for item in out if not whole or item in new]
    return Merged(
        items=pa.Table.from_pylist(left, schema=schema),
        before=len(order),
        available_before=sum(row.get("available") is not False for row in rows.values()),
        added=added,
        changed=changed,
        withdrawn=withdrawn,
        gone=gone,
        unchanged=len(order) - len(changed) - len(gone),
    )
