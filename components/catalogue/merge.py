"""Changed items laid over those that are there: added, changed, withdrawn, taken out, or as they were."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from rankline.contracts import ITEMS
from rankline.errors import IntegrityError

YEAR_COLUMN = "release_year"  # beside the canonical columns, where a source tells no more than the year
ITEM_COLUMNS = tuple(name for name in ITEMS.names if name != "item_id")


@dataclass(frozen=True)
class MergeResult:
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
    retained: list[str]  # not told, since their rows could not be read: not taken out

    @property
    def is_unchanged(self) -> bool:
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
    current: Any,
    new_items: Any,
    *,
    provided: Collection[str],
    whole: bool = False,
    only: bool = False,
    rejected: Collection[str] = (),
) -> MergeResult:
    """The table ``present`` with the items ``told`` in it: each replaces the one of its id, or comes behind.

    ``tell`` are the canonical columns that the source has: in the others, and in declared ones that it lacks, an item
    keeps what it was. With ``whole`` the items that are not told are taken out, but for those ``aside``, whose rows
    could not be read. With ``only`` the source tells little of each: an empty cell leaves what was there, and an id
    that is not there comes only with words.

    Raises:
        IntegrityError: a declared column is of another type than in the catalogue.
    """
    import pyarrow as pa

    new_items = new_items.replace_schema_metadata(None)
    absent = {name for name in ITEM_COLUMNS if name not in provided}
    if only and "created_at" not in provided and YEAR_COLUMN in new_items.column_names:
        years = dict(zip(new_items["item_id"].to_pylist(), new_items[YEAR_COLUMN].to_pylist(), strict=True))
        new_items = new_items.drop_columns([YEAR_COLUMN])  # it was read for the titles alone
    else:
        years = {}
    new_items = _cast_to(new_items, current)
    extra = [field for field in new_items.schema if field.name not in current.column_names]
    schema = pa.schema([*current.schema.remove_metadata(), *extra])
    kept = [name for name in schema.names if name in absent or name not in new_items.column_names]
    rows = {row["item_id"]: row for row in current.to_pylist()}
    order = list(rows)
    new = {row["item_id"]: row for row in new_items.to_pylist()}
    added, changed, withdrawn = [], [], []
    merged: dict[str, dict[str, Any]] = {}
    for item in order:
        before = rows[item]
        if item not in new:
            merged[item] = before
            continue
        now = {**new[item], **{name: before.get(name) for name in kept}}
        if only:
            now |= {name: before.get(name) for name in now if now[name] is None or now[name] == []}
            if "title" in provided and new[item]["title"] and not years.get(item):
                now["title"] = _with_year(now["title"], before)
        merged[item] = now
        if any(now.get(name) != before.get(name) for name in schema.names):
            changed.append(item)
            if now.get("available") is False and before.get("available") is not False:
                withdrawn.append(item)
    wordless = only and not {"title", "text"} & {*provided}
    unknown = [item for item in new if item not in rows] if wordless else []
    for item, row in new.items():
        if item not in rows and not wordless:
            added.append(item)
            merged[item] = {"available": True, **{name: value for name, value in row.items() if name not in absent}}
            merged[item].setdefault("category", [])
            if merged[item]["available"] is None:
                merged[item]["available"] = True
    missing = [item for item in order if item not in new] if whole else []
    rejected = {*rejected}
    gone = [item for item in missing if item not in rejected]
    removed = {*gone}
    remaining = [merged[item] for item in merged if item not in removed]
    return MergeResult(
        items=pa.Table.from_pylist(remaining, schema=schema),
        before=len(order),
        available_before=sum(row.get("available") is not False for row in rows.values()),
        added=added,
        changed=changed,
        withdrawn=withdrawn,
        gone=gone,
        unchanged=len(order) - len(changed) - len(gone),
        unknown=unknown,
        retained=[item for item in missing if item in rejected],
    )


def _cast_to(new_items: Any, current: Any) -> Any:
    """What is told, with the types that its columns have in the catalogue."""
    import pyarrow as pa

    for index, field in enumerate(new_items.schema):
        if field.name in ITEM_COLUMNS or field.name not in current.column_names:
            continue
        expected_type = current.schema.field(field.name).type
        if field.type != expected_type:
            try:
                new_items = new_items.set_column(
                    index, field.name, pa.array(new_items[field.name].to_pylist(), expected_type)
                )
            except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
                raise IntegrityError(
                    f"column {field.name} of the items is not what it was in training",
                    expected=str(expected_type),
                    found=str(field.type),
                    hint="write it as training read it, or train again; ingest.columns.item_attributes, item_numbers "
                    "and item_vectors say how it is read",
                ) from error
    return new_items


def _with_year(title: str, before: dict[str, Any]) -> str:
    """A title behind which stands the year that the item had, as ingest writes it where a source tells both."""
    year = before.get(YEAR_COLUMN)
    return title if not year or title.endswith(f" ({year})") else f"{title} ({year})"
