"""The order of answers: arithmetic over heads and numbers of items, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from rankline.errors import UsageError
from rankline.model.order import Order

COLUMNS = {"click": np.array([0.1, 0.5]), "purchase": np.array([0.02, 0.01]), "price": np.array([10.0, 3.0])}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("click", [0.1, 0.5]),
        ("0.2*click + purchase*price", [0.22, 0.13]),
        ("-(click - purchase) / 4", [-0.02, -0.1225]),
        ("2 * (click + +purchase)", [0.24, 1.02]),
    ],
)
def test_an_expression_is_computed_for_every_item(expression: str, expected: list[float]) -> None:
    np.testing.assert_allclose(Order(expression).values(COLUMNS), expected)


def test_its_names_are_read_once_in_their_order() -> None:
    assert Order("price*purchase + price + click").names == ["price", "purchase", "click"]


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('true')", "click.real", "click[0]", "click ** 9", "click if price else 1",
        "lambda: 1", "'click'", "True * click", "click or price", "click; price", "", "click +", "0.5", "1e999*click",
        "1e300*1e300*click", "click/1e-320", "click + 1e308 + 1e308",
        "click / price", "click / 0", "(" * 400 + "click" + ")" * 400, "click" + " + click" * 100, "9" * 400 + "*click",
    ],
)  # fmt: skip
def test_everything_else_is_refused(expression: str) -> None:
    with pytest.raises(UsageError, match="not an arithmetic expression"):
        Order(expression)


def test_a_name_is_a_head_or_a_number_of_the_items() -> None:
    order, heads = Order("click*price"), ["rank", "click"]
    order.check_names(heads, {"price": True, "title": False})
    with pytest.raises(UsageError, match="something unknown: price"):
        order.check_names(heads, {"title": False})
    with pytest.raises(UsageError, match=r"not a number: price(.|\n)*ingest\.columns\.price"):
        order.check_names(heads, {"price": False})
    with pytest.raises(UsageError, match=r"not a number: margin(.|\n)*item_numbers"):
        Order("margin*click").check_names(heads, {"margin": False})
    with pytest.raises(UsageError, match="something unknown: click"):
        order.check_names(["rank"], {"price": True})
