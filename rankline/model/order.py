"""The order of an answer: an arithmetic expression over the heads' values and numbers of the items.

    0.2*click + purchase*price

An expression has names, numbers, + - * /, and parentheses. It is parsed, never executed as code. Only a number may be
a divisor, so that no score is infinite because an item's price is 0.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

from rankline.errors import UsageError

HEADS = ("click", "like")  # of a model without declared labels
RANK = "rank"  # the head that says which item comes first by default
SETTING = "distill.order"
MAX_LENGTH = 500
_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


class Order:
    """A parsed expression; ``names`` are what it reads, in the order of their first use."""

    def __init__(self, expression: str) -> None:
        """Parse an expression.

        Raises:
            UsageError: it is not such an expression.
        """
        self.expression = expression
        if len(expression) > MAX_LENGTH:
            raise _refused(expression, f"{len(expression)} characters; at most {MAX_LENGTH} are read")
        try:
            self._root = ast.parse(expression.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise _refused(expression, f"{expression!r} cannot be read as one") from error
        names: list[str] = []
        _check(self._root, expression, names)
        if not names:
            raise _refused(expression, f"{expression!r} names no head, so that all items would be equal")
        self.names = list(dict.fromkeys(names))
        if not all(_is_finite(float(self.values(dict.fromkeys(self.names, value)))) for value in (0.0, 1.0)):
            raise _refused(expression, f"{expression!r}, whose numbers multiply to infinity")

    def values(self, columns: Mapping[str, Any]) -> Any:
        """[N] the value of every item, from an array [N] for each name."""
        import numpy as np

        with np.errstate(over="ignore", invalid="ignore"):  # a server refuses scores that are not finite
            doubles = {name: np.asarray(columns[name], np.float64) for name in self.names}
            return np.asarray(_evaluate(self._root, doubles), np.float64)

    def check_names(self, heads: Sequence[str], columns: Mapping[str, bool]) -> None:
        """Check that every name is a head, or a column of the items that is a number (``columns``: name -> it is).

        Raises:
            UsageError: a name is neither.
        """
        for name in self.names:
            if name in heads or columns.get(name, False):
                continue
            numbers = ", ".join(sorted(column for column, is_number in columns.items() if is_number))
            raise UsageError(
                f"the order of answers names a column that is not a number: {name}"
                if name in columns
                else f"the order of answers names something unknown: {name}",
                expected=f"heads ({', '.join(heads)}) and numbers of the items ({numbers or 'there are none'})",
                found=f"{SETTING}={self.expression}",
                hint=_hint(name, is_column=name in columns),
            )


def _hint(name: str, *, is_column: bool) -> str:
    if name == "price":
        return "name the column of prices in ingest.columns.price"
    if is_column:
        return f"declare {name} in ingest.columns.item_numbers, so that it is read as a number"
    return "declare the label in ingest.labels, or the number in ingest.columns.item_numbers"


def _check(node: ast.AST, expression: str, names: list[str]) -> None:
    """Refuse everything but arithmetic, and collect the names."""
    if isinstance(node, ast.Name):
        names.append(node.id)
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool) or not isinstance(node.value, int | float) or not _is_finite(node.value):
            raise _refused(expression, f"{ast.unparse(node)}, which is not a number")
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        _check(node.operand, expression, names)
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        if isinstance(node.op, ast.Div) and not _is_divisor(node.right):
            raise _refused(expression, f"a division by {ast.unparse(node.right)}; only a number but 0 may be a divisor")
        _check(node.left, expression, names)
        _check(node.right, expression, names)
    else:
        raise _refused(expression, f"{ast.unparse(node)}, which is not arithmetic")


def _is_divisor(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float) and bool(node.value)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _evaluate(node: ast.AST, columns: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Name):
        return columns[node.id]
    if isinstance(node, ast.Constant):
        return float(node.value)  # type: ignore[arg-type]  # _check let only numbers through
    if isinstance(node, ast.UnaryOp):
        value = _evaluate(node.operand, columns)
        return -value if isinstance(node.op, ast.USub) else value
    assert isinstance(node, ast.BinOp)
    return _OPERATORS[type(node.op)](_evaluate(node.left, columns), _evaluate(node.right, columns))


def _refused(expression: str, problem: str) -> UsageError:
    return UsageError(
        "the order of answers is not an arithmetic expression",
        expected="heads and numbers of the items with + - * / and parentheses, such as 0.2*click + purchase*price",
        found=problem,
        where=SETTING,
        hint=f"set {SETTING} to such an expression, or leave it empty to order by the rank head",
    )
