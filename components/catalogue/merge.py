"""Changed items laid over those that are there: added, changed, withdrawn, taken out, or as they were."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from rankline.contracts import ITEMS
from rankline.errors import IntegrityError

YEAR = "release_year"  # beside the canonical columns, where a source tells no more than the year
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
    unknown: list[str]  # told of, but without words and not there: not added
    kept: list[str]  # not told, since their rows could not be read: not taken out

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


def merge(
    present: Any,
    told: Any,
    *,
    tell: Collection[str],
    whole: bool = False,
    only: bool = False,
    aside: Collection[str] = (),
) -> Merged:
    """The table ``present`` with the items ``told`` in it: each replaces the one of its id, or comes behind.

    ``tell`` are the canonical columns that the source has: in the others, and in declared ones that it lacks, an item
    keeps what it was. With ``whole`` the items that are not told are taken out, but for those ``aside``, whose rows
    could not be read. With ``only`` the source tells little of each: an empty cell leaves what was there, and an id
    that is not there comes only with words.

    Raises:
        IntegrityError: a declared column is of another type than in the catalogue.
    """
    import pyarrow as pa

    told = told.replace_schema_metadata(None)
    silent = {name for name in TOLD if name not in tell}
    if only and "created_at" not in tell and YEAR in told.column_names:
        years = dict(zip(told["item_id"].to_pylist(), told[YEAR].to_pylist(), strict=True))
        told = told.drop_columns([YEAR])  # it was read for the titles alone
    else:
        years = {}
    told = _typed(told, present)
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
        if only:
            now |= {name: before.get(name) for name in now if now[name] is None or now[name] == []}
            if "title" in tell and new[item]["title"] and not years.get(item):
                now["title"] = _dated(now["title"], before)
        out[item] = now
        if any(now.get(name) != before.get(name) for name in schema.names):
            changed.append(item)
            if now.get("available") is False and before.get("available") is not False:
                withdrawn.append(item)
    wordless = only and not {"title", "text"} & {*tell}
    unknown = [item for item in new if item not in rows] if wordless else []
    for item, row in new.items():
        if item not in rows and not wordless:
            added.append(item)
            out[item] = {"available": True, **{name: value for name, value in row.items() if name not in silent}}
            out[item].setdefault("category", [])
            if out[item]["available"] is None:
                out[item]["available"] = True
    missing = [item for item in order if item not in new] if whole else []
    aside = {*aside}
    gone = [item for item in missing if item not in aside]
    out_of_it = {*gone}
    left = [out[item] for item in out if item not in out_of_it]
    return Merged(
        items=pa.Table.from_pylist(left, schema=schema),
        before=len(order),
        available_before=sum(row.get("available") is not False for row in rows.values()),
        added=added,
        changed=changed,
        withdrawn=withdrawn,
        gone=gone,
        unchanged=len(order) - len(changed) - len(gone),
        unknown=unknown,
        kept=[item for item in missing if item in aside],
    )


def _typed(told: Any, present: Any) -> Any:
    """What is told, with the types that its columns have in the catalogue."""
    import pyarrow as pa

    for place, field in enumerate(told.schema):
        if field.name in TOLD or field.name not in present.column_names:
            continue
        there = present.schema.field(field.name).type
        if field.type != there:
            try:
                told = told.set_column(place, field.name, pa.array(told[field.name].to_pylist(), there))
            except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
                raise IntegrityError(
                    f"column {field.name} of the items is not what it was in training",
                    expected=str(there),
                    found=str(field.type),
                    hint="write it as training read it, or train again; ingest.columns.item_attributes, item_numbers "
                    "and item_vectors say how it is read",
                ) from error
    return told


def _dated(title: str, before: dict[str, Any]) -> str:
    """A title behind which stands the year that the item had, as ingest writes it where a source tells both."""
    year = before.get(YEAR)
    return title if not year or title.endswith(f" ({year})") else f"{title} ({year})"
