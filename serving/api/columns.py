"""Checks the columns of item features that a frozen state brings.

Steps build such states by the thousand and from their own tables, so only the server checks them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rankline.contracts import MAX_NUMBER


def check_columns(columns: Mapping[str, list[Any]]) -> None:
    """Check that ids are strings, and that every other column has a number that a float32 holds, or none, for each.

    Raises:
        ValueError: they are not; the message begins with the column.
    """
    ids = columns.get("item_id", [])
    if not all(isinstance(item, str) for item in ids):
        raise ValueError("item_id: ids are strings")
    for name, values in columns.items():
        if len(values) != len(ids):
            raise ValueError(f"{name}: {len(values)} values for {len(ids)} items in item_id")
        if name != "item_id" and not _largest(values, name) <= MAX_NUMBER:
            raise ValueError(f"{name}: a value is infinite, or none, as a float32")


def _largest(values: list[Any], name: str) -> float:
    try:
        array = np.asarray(values)
    except ValueError:  # lists of different lengths
        array = np.empty(0, object)
    if array.ndim == 1 and array.dtype.kind in "biuf":
        return float(np.abs(array.astype(np.float64)).max(initial=0.0))
    numbers = [value for value in values if value is not None]
    if not all(isinstance(value, int | float) for value in numbers):
        raise ValueError(f"{name}: values are numbers")
    try:
        return float(np.abs(np.asarray(numbers, np.float64)).max(initial=0.0))
    except OverflowError:
        return float("inf")
