"""Side features: an item's features besides its text, and how they are encoded.

The encoding (frequent values, means, ranges) is fitted to the items of training and saved with the model, so that new
items are encoded in the same way. A number outside training's range is clipped to it: a model's behaviour there is
unknown, and a typo in a price could put an item first for every request.

Shapes: I items, S side size.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from rankline.contracts import ITEMS, FrozenModel
from rankline.errors import IntegrityError
from rankline.features.transforms import category_matrix

Floats = npt.NDArray[np.float32]
MAX_CHOICES = 50  # most frequent values of a text column that are encoded


class ValueRange(FrozenModel):
    """The range of a number among the items of training."""

    low: float
    high: float

    @classmethod
    def from_values(cls, values_I: Floats) -> ValueRange:
        """The range of some numbers; 0 to 0 without any."""
        finite = values_I[np.isfinite(values_I)]
        return cls(low=float(finite.min()), high=float(finite.max())) if len(finite) else cls(low=0.0, high=0.0)


class DeclaredColumn(FrozenModel):
    """How a declared column is encoded: as a number, a precomputed vector, or a choice among values."""

    name: str
    kind: Literal["number", "vector", "choice"]
    mean: float = Field(default=0.0, description="of a number, among the items of training")
    spread: float = Field(default=0.0, description="its standard deviation there; 0 for a constant")
    range: ValueRange | None = Field(default=None, description="its range there; none in bundles of earlier versions")
    size: int = Field(default=0, description="size of a vector")
    choices: list[str] = Field(default=[], description="the most frequent values, the most frequent one first")

    @property
    def width(self) -> int:
        """The number of columns in the encoding."""
        return {"number": 1, "vector": self.size, "choice": len(self.choices)}[self.kind]


class SideFeatures(FrozenModel):
    """How items are encoded as rows of side features."""

    categories: list[str]
    languages: list[str] = Field(default=[], description="of the items, if there are several")
    declared: list[DeclaredColumn] = Field(default=[], description="the declared columns")
    prices: ValueRange | None = Field(
        default=None, description="range in training; none in bundles of earlier versions"
    )

    @classmethod
    def of(cls, items: Any) -> SideFeatures:
        """Fit the encoding to an Arrow table of items: categories, languages, prices and declared columns.

        A declared column of floats is a number (standardized), one of lists of floats a precomputed vector (normalized
        to length 1), and one of texts a choice among its most frequent values.
        """
        names = {name for each in items["category"].to_pylist() for name in each or []}
        columns = (_fit_column(field, items[field.name]) for field in items.schema if field.name not in ITEMS.names)
        return cls(
            categories=sorted(names),
            languages=_frequent_values(items["language"].to_pylist()),
            declared=[each for each in columns if each is not None],
            prices=ValueRange.from_values(_prices(items)),
        )

    @property
    def size(self) -> int:
        """S: categories, the price, languages, and declared columns."""
        return len(self.categories) + 1 + len(self.languages) + sum(each.width for each in self.declared)

    def matrix(self, items: Any) -> Floats:
        """[I, S] of an Arrow table of items; missing values and values unknown to training are 0.

        Numbers are clipped to training's range. Prices are 0 if training had none, since their weights are untrained.
        Categories are weighted to sum below one.

        Raises:
            IntegrityError: a declared column has another type, or vectors of another length, than in training.
        """
        categories_IC = category_matrix(items["category"].to_pylist(), self.categories)
        prices_I = np.nan_to_num(_clip_to_range(self.prices, _prices(items)))
        parts = [
            categories_IC / (categories_IC.sum(1, keepdims=True) + 1.0),
            np.log1p(prices_I)[:, None],
            _one_hot(items["language"].to_pylist(), self.languages),
        ]
        for each in self.declared:
            is_present = each.name in items.column_names
            parts.append(
                _encode_column(each, items[each.name]) if is_present else np.zeros((len(items), each.width), np.float32)
            )
        return np.concatenate(parts, 1).astype(np.float32)


def _prices(items: Any) -> Floats:
    """[I] prices, at least 0; NaN for none."""
    return np.maximum(_to_float32(items["price"]), 0)


def _to_float32(column: Any) -> Floats:
    """[I] a column of numbers in single precision; NaN for none, inf for numbers that are too large."""
    with np.errstate(over="ignore"):
        values_I: Floats = column.to_numpy(zero_copy_only=False).astype(np.float32)
    return values_I


def _clip_to_range(bounds: ValueRange | None, values_I: Floats) -> Floats:
    """Numbers clipped to a range; NaN stays."""
    return values_I if bounds is None else np.clip(values_I, np.float32(bounds.low), np.float32(bounds.high))


def fit_number(name: str, values_I: Floats) -> DeclaredColumn:
    """Fit the encoding of a number; NaN and infinity do not count."""
    values_I = np.where(np.isfinite(values_I), values_I, np.float32(np.nan))
    if not np.isfinite(values_I).any():
        return DeclaredColumn(name=name, kind="number")
    spread = float(np.nanstd(values_I))
    return DeclaredColumn(
        name=name,
        kind="number",
        mean=float(np.nanmean(values_I)),
        spread=spread if spread > 1e-6 else 0.0,
        range=ValueRange.from_values(values_I),
    )


def standardize(declared: DeclaredColumn, values_I: Floats) -> Floats:
    """[I] numbers with mean 0 and deviation 1 in training, clipped to training's range; 0 for none."""
    values_I = _clip_to_range(declared.range, values_I)
    scaled_I = (values_I - declared.mean) / declared.spread if declared.spread else np.zeros_like(values_I)
    return np.asarray(np.nan_to_num(scaled_I), np.float32)


def _fit_column(field: Any, column: Any) -> DeclaredColumn | None:
    """Fit the encoding of a declared column; None for types that are not encoded."""
    import pyarrow.types as types

    if types.is_floating(field.type):
        return fit_number(field.name, _to_float32(column))
    if types.is_list(field.type) and types.is_floating(field.type.value_type):
        size = max((len(row) for row in column.to_pylist() if row), default=0)
        return DeclaredColumn(name=field.name, kind="vector", size=size)
    if types.is_string(field.type):
        return DeclaredColumn(name=field.name, kind="choice", choices=_frequent_values(column.to_pylist()))
    return None


def _encode_column(declared: DeclaredColumn, column: Any) -> Floats:
    """[I, n] a declared column, encoded.

    Raises:
        IntegrityError: its type or size differs from training.
    """
    import pyarrow as pa
    import pyarrow.types as types

    if types.is_null(column.type):
        return np.zeros((len(column), declared.width), np.float32)
    if declared.kind == "number" and types.is_floating(column.type):
        return standardize(declared, _to_float32(column))[:, None]
    if declared.kind == "vector" and types.is_list(column.type):
        rows = column.to_pylist()
        if wrong_size := next((len(row) for row in rows if row and len(row) != declared.size), None):
            raise _column_mismatch(declared, f"vectors of {declared.size} numbers", f"one of {wrong_size}")
        vectors_IV = np.array([row if row else [0.0] * declared.size for row in rows], np.float32)
        vectors_IV = vectors_IV.reshape(len(rows), declared.size)
        lengths_I1 = np.linalg.norm(vectors_IV, axis=1, keepdims=True)
        return np.asarray(vectors_IV / np.maximum(lengths_I1, 1e-9), np.float32)
    if declared.kind == "choice" and types.is_string(column.type):
        return _one_hot(column.to_pylist(), declared.choices)
    expected = {"number": str(pa.float64()), "vector": "a list of numbers", "choice": "text"}[declared.kind]
    raise _column_mismatch(declared, expected, str(column.type))


def _column_mismatch(declared: DeclaredColumn, expected: str, matches: str) -> IntegrityError:
    return IntegrityError(
        f"column {declared.name} of items has another type than in training",
        expected=expected,
        found=matches,
        where=f"{declared.name} of items",
        hint="restore the column, or train a model on the new one",
    )


def _frequent_values(values: list[str | None]) -> list[str]:
    """The most frequent values; empty for a single value."""
    counted = Counter(value for value in values if value)
    frequent = sorted(counted, key=lambda value: (-counted[value], value))[:MAX_CHOICES]
    return frequent if len(frequent) > 1 else []


def _one_hot(values: list[str | None], choices: list[str]) -> Floats:
    """[I, n] of 0 and 1: which of the ``choices`` each item has."""
    return category_matrix([[value] if value else [] for value in values], choices)
