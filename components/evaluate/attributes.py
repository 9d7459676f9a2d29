"""The groups that attributes put items, users and requests into: a category, a country, a quarter of the prices."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rankline.evaluation.snapshot_requests import SnapshotRequest

ITEM, USER, CONTEXT = "item", "user", "context"
NO_ATTRIBUTES = ("item_id", "title", "text", "created_at")  # columns of items that are no groups
QUARTERS = 4


@dataclass(frozen=True)
class Attribute:
    """The groups of every row, and of a number the edges of its quarters."""

    groups: Sequence[tuple[str, ...]]
    edges: tuple[float, ...] = ()

    @property
    def names(self) -> set[str]:
        """Every group."""
        return {name for groups in self.groups for name in groups}


def item_attributes(features: Path) -> dict[str, Attribute]:
    """Attribute ("item.category") -> the groups of every item, in the order of the rows.

    A column whose values hardly ever repeat, such as an address, is left out.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    schema = parquet.read_schema(features / "items.parquet")
    names = [field.name for field in schema if field.name not in NO_ATTRIBUTES and _is_groupable(field.type, pa)]
    columns = parquet.read_table(features / "items.parquet", columns=names).to_pydict() if names else {}
    return _attributes({f"{ITEM}.{name}": values for name, values in columns.items()})


def request_attributes(requests: Sequence[SnapshotRequest]) -> dict[str, Attribute]:
    """Attribute ("user.country", "context.device") -> the groups of every request's user or of the request itself."""
    columns: dict[str, list[Any]] = {}
    for source, given in ((USER, [r.state.profile for r in requests]), (CONTEXT, [r.state.context for r in requests])):
        for name in sorted({name for values in given for name in values}):
            columns[f"{source}.{name}"] = [values.get(name) for values in given]
    return _attributes(columns)


def _is_groupable(type: Any, pa: Any) -> bool:
    texts = pa.types.is_string(type) or (pa.types.is_list(type) and pa.types.is_string(type.value_type))
    return bool(texts or pa.types.is_boolean(type) or pa.types.is_integer(type) or pa.types.is_floating(type))


def _attributes(columns: Mapping[str, Sequence[Any]]) -> dict[str, Attribute]:
    by_name = {name: group(values) for name, values in columns.items()}
    repeating = {}
    for name, attribute in by_name.items():
        rows = sum(1 for groups in attribute.groups if groups)
        if rows and len(attribute.names) <= max(rows / 2, QUARTERS):
            repeating[name] = attribute
    return repeating


def group(values: Sequence[Any]) -> Attribute:
    """The groups of each value: itself, each value of a list, or the quarter of the numbers that it is in.

    Up to four different numbers are groups of their own. A value that is missing is in no group.
    """
    numbers = [float(value) for value in values if _is_number(value)]
    if not numbers or len(set(numbers)) <= QUARTERS:
        return Attribute([tuple(_texts(value)) for value in values])
    edges = np.quantile(numbers, np.arange(1, QUARTERS) / QUARTERS)

    def quarter(value: Any) -> tuple[str, ...]:
        place = int(np.searchsorted(edges, value, side="right")) + 1 if _is_number(value) else 0
        return (f"quarter {place}",) if place else ()

    return Attribute([quarter(value) for value in values], tuple(edges.tolist()))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _texts(value: Any) -> Iterable[str]:
    """The groups of a value that is no quarter of many numbers."""
    if isinstance(value, bool):
        return [str(value).lower()]
    if isinstance(value, list):
        return dict.fromkeys(str(each) for each in value if each)
    if _is_number(value):
        return [f"{value:g}"]
    return [value] if isinstance(value, str) and value else []
