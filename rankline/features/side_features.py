"""Side information: what a model is told of an item besides its words, and how it was taught to read it.

What the numbers mean is learnt from the items of training (which values are frequent, what a number's mean is, what
its least and its greatest value) and kept with the model, so that an item of tomorrow is read as those were. A number
beyond what training met counts as the nearest that it met: nobody knows what a model makes of a price a thousand times
higher, and a slip of the keyboard would be everybody's first answer.

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
MAX_CHOICES = 50  # values of a text column that tell items apart; rarer ones say nothing


class ValueRange(FrozenModel):
    """The least and the greatest value of a number among the items of training."""

    low: float
    high: float

    @classmethod
    def from_values(cls, values_I: Floats) -> ValueRange:
        """Where some numbers lie; 0 to 0, which tells nothing apart, where there is none."""
        finite = values_I[np.isfinite(values_I)]
        return cls(low=float(finite.min()), high=float(finite.max())) if len(finite) else cls(low=0.0, high=0.0)


class DeclaredColumn(FrozenModel):
    """How one declared column is read: as a number, as a vector made elsewhere, or as a choice among some values."""

    name: str
    kind: Literal["number", "vector", "choice"]
    mean: float = Field(default=0.0, description="of a number, among the items of training")
    spread: float = Field(default=0.0, description="its standard deviation there; 0 where it tells nothing apart")
    range: ValueRange | None = Field(default=None, description="where it lay there; none in bundles that kept none")
    size: int = Field(default=0, description="numbers of a vector")
    choices: list[str] = Field(default=[], description="the most frequent values, the most frequent one first")

    @property
    def width(self) -> int:
        """How many columns of side information it takes."""
        return {"number": 1, "vector": self.size, "choice": len(self.choices)}[self.kind]


class SideFeatures(FrozenModel):
    """How items become rows of side information."""

    categories: list[str]
    languages: list[str] = Field(default=[], description="where the items have several")
    declared: list[DeclaredColumn] = Field(default=[], description="columns behind the canonical ones")
    prices: ValueRange | None = Field(default=None, description="of training; none in bundles that kept none")

    @classmethod
    def of(cls, items: Any) -> SideFeatures:
        """What an Arrow table of items tells: its categories, its languages, and what the source declares.

        Of the columns behind the canonical ones a float is a number (standardized), a list of floats a vector made
        elsewhere, of a picture or a graph (brought to length 1), and a text a choice among its most frequent values.
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
        """S: categories, the price, languages, and what is declared."""
        return len(self.categories) + 1 + len(self.languages) + sum(each.width for each in self.declared)

    def matrix(self, items: Any) -> Floats:
        """[I, S] of an Arrow table of items; what is missing is 0, and so is a value that training never met.

        A number is kept to what training met; a price that training had none of is 0, for its weights are those that
        it began with. Categories are weighted to sum below one.

        Raises:
            IntegrityError: a declared column is of another type, or its vectors of another length, than in training.
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
    """[I] prices, NaN where there is none; below nothing is nothing."""
    return np.maximum(_to_float32(items["price"]), 0)


def _to_float32(column: Any) -> Floats:
    """[I] a column of numbers in single precision, NaN where there is none; what is too large for that is inf."""
    with np.errstate(over="ignore"):
        values_I: Floats = column.to_numpy(zero_copy_only=False).astype(np.float32)
    return values_I


def _clip_to_range(bounds: ValueRange | None, values_I: Floats) -> Floats:
    """Numbers, the nearest that training met where they lie beyond; NaN stays."""
    return values_I if bounds is None else np.clip(values_I, np.float32(bounds.low), np.float32(bounds.high))


def _fit_column(field: Any, column: Any) -> DeclaredColumn | None:
    """What the items of training tell of a declared column; None where it is of a kind that is not read."""
    import pyarrow.types as types

    if types.is_floating(field.type):
        values_I = _to_float32(column)
        values_I = np.where(np.isfinite(values_I), values_I, np.float32(np.nan))
        if not np.isfinite(values_I).any():
            return DeclaredColumn(name=field.name, kind="number")
        spread = float(np.nanstd(values_I))
        return DeclaredColumn(
            name=field.name,
            kind="number",
            mean=float(np.nanmean(values_I)),
            spread=spread if spread > 1e-6 else 0.0,
            range=ValueRange.from_values(values_I),
        )
    if types.is_list(field.type) and types.is_floating(field.type.value_type):
        size = max((len(row) for row in column.to_pylist() if row), default=0)
        return DeclaredColumn(name=field.name, kind="vector", size=size)
    if types.is_string(field.type):
        return DeclaredColumn(name=field.name, kind="choice", choices=_frequent_values(column.to_pylist()))
    return None


def _encode_column(declared: DeclaredColumn, column: Any) -> Floats:
    """[I, n] a declared column as numbers.

    Raises:
        IntegrityError: it is not what it was in training.
    """
    import pyarrow as pa
    import pyarrow.types as types

    if types.is_null(column.type):
        return np.zeros((len(column), declared.width), np.float32)
    if declared.kind == "number" and types.is_floating(column.type):
        values_I = _clip_to_range(declared.range, _to_float32(column))
        scaled_I = (values_I - declared.mean) / declared.spread if declared.spread else np.zeros_like(values_I)
        return np.asarray(np.nan_to_num(scaled_I)[:, None], np.float32)
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
    raise _column_mismatch(declared, {"number": str(pa.float64()), "vector": "a list of numbers", "choice": "text"}[declared.kind],
                 str(column.type))  # fmt: skip


def _column_mismatch(declared: DeclaredColumn, expected: str, found: str) -> IntegrityError:
    return IntegrityError(
        f"column {declared.name} of items is not what it was in training",
        expected=expected,
        found=found,
        where=f"{declared.name} of items",
        hint="bring the column back as it was, or train a model on what it is now",
    )


def _frequent_values(values: list[str | None]) -> list[str]:
    """The most frequent values; none where there is but one."""
    counted = Counter(value for value in values if value)
    frequent = sorted(counted, key=lambda value: (-counted[value], value))[:MAX_CHOICES]
    return frequent if len(frequent) > 1 else []


def _one_hot(values: list[str | None], choices: list[str]) -> Floats:
    """[I, n] of 0 and 1: which of some values each item has."""
    return category_matrix([[value] if value else [] for value in values], choices)
