"""Merge changed items into a catalogue: added, changed, withdrawn, removed, or unchanged."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from rankline.contracts import ITEMS
from rankline.errors import IntegrityError

YEAR_COLUMN = "release_year"  # beside the canonical columns, if a source has no more than the year
ITEM_COLUMNS = tuple(name for name in ITEMS.names if name != "item_id")

Row = dict[str, Any]


@dataclass(frozen=True)
class Changes:
    """What the new items say: ``provided`` are the canonical columns that the source has.

    ``whole``: the items are the whole catalogue, so those that are missing are removed, except for the ``rejected``
    ones, whose rows could not be read. ``partial``: the source has few columns of each item, so an empty cell changes
    nothing, and a new item is added only if the source has its words.
    """

    provided: Collection[str]
    whole: bool = False
    partial: bool = False
    rejected: Collection[str] = ()

    @property
    def has_words(self) -> bool:
        """Whether the source has the words that a new item needs."""
        return not self.partial or bool({"title", "text"} & {*self.provided})


@dataclass(frozen=True)
class MergeResult:
    """The items of the new catalogue, and the ids of the items that differ."""

    items: Any  # an Arrow table: the existing items in their order, then the new ones in theirs
    before: int
    available_before: int
    added: list[str]
    changed: list[str]
    withdrawn: list[str]  # no longer available; also among the changed
    gone: list[str]
    unchanged: int
    unknown: list[str]  # new ids without words, not added
    retained: list[str]  # missing, but with rows that could not be read: not removed

    @property
    def is_unchanged(self) -> bool:
        """Whether every item is as it was."""
        return not (self.added or self.changed or self.gone)

    @property
    def counts(self) -> dict[str, int]:
        """The number of items of each kind."""
        return {
            "items": len(self.items),
            "added": len(self.added),
            "changed": len(self.changed),
            "withdrawn": len(self.withdrawn),
            "gone": len(self.gone),
            "unchanged": self.unchanged,
        }


@dataclass
class Merged:
    """The rows of the new catalogue by id while it is built."""

    rows: dict[str, Row]
    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)


def merge(current: Any, new_items: Any, changes: Changes) -> MergeResult:
    """Merge the table ``new_items`` into the table ``current``: each item replaces the one of its id, or is added.

    In columns that the source does not have, an existing item keeps its values.

    Raises:
        IntegrityError: a declared column has another type than in the catalogue.
    """
    import pyarrow as pa

    new_items = new_items.replace_schema_metadata(None)
    years: dict[str, Any] = {}
    if changes.partial and "created_at" not in changes.provided and YEAR_COLUMN in new_items.column_names:
        years = dict(zip(new_items["item_id"].to_pylist(), new_items[YEAR_COLUMN].to_pylist(), strict=True))
        new_items = new_items.drop_columns([YEAR_COLUMN])  # it was read for the titles alone
    new_items = _cast_to(new_items, current)
    extra = [column for column in new_items.schema if column.name not in current.column_names]
    schema = pa.schema([*current.schema.remove_metadata(), *extra])
    absent = {name for name in ITEM_COLUMNS if name not in changes.provided}
    unchanged_columns = [name for name in schema.names if name in absent or name not in new_items.column_names]

    before = {row["item_id"]: row for row in current.to_pylist()}
    new = {row["item_id"]: row for row in new_items.to_pylist()}
    merged = Merged(dict(before))
    for item in (item for item in before if item in new):
        row = {**new[item], **{name: before[item].get(name) for name in unchanged_columns}}
        if changes.partial:
            row = _fill_partial(row, new[item], before[item], changes, year=years.get(item))
        _update(merged, item, row, before[item], schema.names)
    new_ids = [item for item in new if item not in before]
    if changes.has_words:
        for item in new_ids:
            merged.added.append(item)
            merged.rows[item] = _new_row(new[item], absent)

    missing = [item for item in before if item not in new] if changes.whole else []
    rejected = {*changes.rejected}
    gone = [item for item in missing if item not in rejected]
    removed = {*gone}
    remaining = [row for item, row in merged.rows.items() if item not in removed]
    return MergeResult(
        items=pa.Table.from_pylist(remaining, schema=schema),
        before=len(before),
        available_before=sum(row.get("available") is not False for row in before.values()),
        added=merged.added,
        changed=merged.changed,
        withdrawn=merged.withdrawn,
        gone=gone,
        unchanged=len(before) - len(merged.changed) - len(gone),
        unknown=[] if changes.has_words else new_ids,
        retained=[item for item in missing if item in rejected],
    )


def _fill_partial(row: Row, new: Row, before: Row, changes: Changes, *, year: Any) -> Row:
    """A row with its empty cells as they were, and the year behind its title where the source has none."""
    filled = row | {name: before.get(name) for name in row if row[name] is None or row[name] == []}
    if "title" in changes.provided and new["title"] and not year:
        filled["title"] = _with_year(filled["title"], before)
    return filled


def _update(merged: Merged, item: str, row: Row, before: Row, columns: Collection[str]) -> None:
    merged.rows[item] = row
    if any(row.get(name) != before.get(name) for name in columns):
        merged.changed.append(item)
        if row.get("available") is False and before.get("available") is not False:
            merged.withdrawn.append(item)


def _new_row(new: Row, absent: Collection[str]) -> Row:
    """A new item: available unless the source says otherwise, with a list of categories."""
    row = {"available": True, **{name: value for name, value in new.items() if name not in absent}}
    row.setdefault("category", [])
    if row["available"] is None:
        row["available"] = True
    return row


def _cast_to(new_items: Any, current: Any) -> Any:
    """The new items with the catalogue's types of declared columns."""
    import pyarrow as pa

    for index, column in enumerate(new_items.schema):
        if column.name in ITEM_COLUMNS or column.name not in current.column_names:
            continue
        expected_type = current.schema.field(column.name).type
        if column.type != expected_type:
            try:
                new_items = new_items.set_column(
                    index, column.name, pa.array(new_items[column.name].to_pylist(), expected_type)
                )
            except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
                raise IntegrityError(
                    f"column {column.name} of the items has another type than in training",
                    expected=str(expected_type),
                    found=str(column.type),
                    hint="write it as it was in training, or train again; ingest.columns.item_attributes, item_numbers "
                    "and item_vectors select the type",
                ) from error
    return new_items


def _with_year(title: str, before: dict[str, Any]) -> str:
    """A title followed by the item's year, as ingest writes it if a source has both."""
    year = before.get(YEAR_COLUMN)
    return title if not year or title.endswith(f" ({year})") else f"{title} ({year})"
