"""Side information: what is read of an item besides its words, and that later items are read as training's were."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rankline.contracts import ITEMS
from rankline.errors import IntegrityError
from rankline.features.side_features import SideFeatures


def test_side_information_is_shares_of_categories_and_the_price() -> None:
    rows = [{"category": ["a", "b", "c"], "price": 9.0}, {"category": ["b"], "price": None}, {}]
    items = pa.Table.from_pylist([{"item_id": str(n), **row} for n, row in enumerate(rows)], schema=ITEMS)
    actual = SideFeatures.of(items).matrix(items)
    np.testing.assert_allclose(actual, [[0.25, 0.25, 0.25, np.log1p(9)], [0, 0.5, 0, 0], [0, 0, 0, 0]], rtol=1e-6)


def test_what_a_source_declares_of_its_items_is_side_information_too() -> None:
    items = _declared()
    actual = SideFeatures.of(items).matrix(items)
    price, language, weight, brand, picture = actual[:, :1], actual[:, 1:3], actual[:, 3], actual[:, 4:6], actual[:, 6:]
    assert (price == 0).all()
    assert language.tolist() == [[1, 0], [0, 1], [1, 0], [0, 0]]
    np.testing.assert_allclose(weight, [-np.sqrt(1.5), 0, 0, np.sqrt(1.5)], rtol=1e-6)
    assert brand.tolist() == [[1, 0], [0, 1], [1, 0], [1, 0]]  # a shape that all share tells nothing apart
    np.testing.assert_allclose(picture, [[0.6, 0.8], [0, 0], [0, 1], [1, 0]], rtol=1e-6)


def test_a_table_of_other_items_is_read_as_the_first_one_was() -> None:
    """One item alone has no mean and no frequent value of its own: it keeps the numbers that it had among many."""
    items = _declared()
    side = SideFeatures.of(items)
    whole = side.matrix(items)
    assert whole.shape[1] == side.size
    for row in range(len(items)):
        np.testing.assert_array_equal(side.matrix(items.slice(row, 1))[0], whole[row])
    assert SideFeatures.model_validate_json(side.model_dump_json()) == side


def _with(items: pa.Table, name: str, values: list[float | None]) -> pa.Table:
    column = pa.array(values, pa.float64())
    return items.set_column(items.column_names.index(name), name, column)


def test_a_number_beyond_those_of_training_is_the_nearest_of_them() -> None:
    items = _with(_declared(), "price", [2.0, 30.0, None, 4.0])
    side = SideFeatures.model_validate_json(SideFeatures.of(items).model_dump_json())
    met = side.matrix(items)
    np.testing.assert_array_equal(met[:, 0], np.log1p(np.array([2, 30, 0, 4], np.float32)))
    dear = side.matrix(_with(items, "price", [1e30, 1e300, None, 1.0]))
    assert dear[:, 0].tolist() == [met[1, 0], met[1, 0], 0, met[0, 0]]
    heavy = side.matrix(_with(items, "weight", [1e30, None, -1e30, 3.0]))[:, 3]
    assert heavy.tolist() == [met[3, 3], 0, met[0, 3], met[2, 3]]


@pytest.mark.parametrize("then", [[None] * 4, [7.0] * 4])
def test_a_price_that_was_constant_in_training_separates_nothing(then: list[float | None]) -> None:
    items = _with(_declared(), "price", then)
    side = SideFeatures.of(items)
    actual = side.matrix(_with(items, "price", [1.0, 20.0, 3e6, 7.0]))
    np.testing.assert_array_equal(actual, side.matrix(items))


def test_values_unseen_in_training_contribute_nothing() -> None:
    side = SideFeatures.of(_declared())
    other = _declared().slice(0, 1)
    for name, value in (("brand", "z"), ("language", "fi")):
        other = other.set_column(other.column_names.index(name), name, pa.array([value]))
    actual = side.matrix(other)[0]
    assert actual[1:3].tolist() == [0, 0]
    assert actual[4:6].tolist() == [0, 0]
    assert side.matrix(other.drop_columns(["weight", "picture"]))[0, 3:].tolist() == [0] * 5


@pytest.mark.parametrize(
    ("name", "value", "reported"),
    [
        ("picture", pa.array([[1.0, 2.0, 3.0]]), "vectors of 2 numbers"),
        ("weight", pa.array(["heavy"]), "double"),
        ("brand", pa.array([1.0]), "text"),
    ],
)
def test_a_column_of_another_kind_is_refused(name: str, value: Any, reported: str) -> None:
    items = _declared()
    side, other = SideFeatures.of(items), items.slice(0, 1)
    with pytest.raises(IntegrityError, match=f"column {name} of items has another type") as caught:
        side.matrix(other.set_column(other.column_names.index(name), name, value))
    assert reported in caught.value.expected


def _declared() -> pa.Table:
    return pa.table(
        {
            **{name: pa.nulls(4, ITEMS.field(name).type) for name in ITEMS.names},
            "language": ["en", "sv", "en", None],
            "weight": [1.0, None, 3.0, 5.0],
            "brand": ["b", "a", "b", "b"],
            "shape": ["round", "round", "round", None],
            "picture": pa.array([[3.0, 4.0], None, [0.0, 2.0], [1.0, 0.0]], pa.list_(pa.float32())),
        }
    )
