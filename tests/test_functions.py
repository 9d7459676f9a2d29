"""A function fits on a screen: none of ours is longer than 70 lines."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.test_layers import LAYERS, ROOT

MAX_LINES = 70


def long_functions(source: str) -> Iterator[str]:
    """Name and lines of each function that is too long."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > MAX_LINES:
                yield f"{node.name}: {lines}"


@pytest.mark.parametrize("package", [*LAYERS, "benchmarks", "docs", "tests"])
def test_no_function_is_longer_than_a_screen(package: str) -> None:
    paths = sorted((ROOT / package).rglob("*.py"))
    assert paths
    assert [f"{path.relative_to(ROOT)} {each}" for path in paths for each in long_functions(path.read_text())] == []


@pytest.mark.parametrize(("lines", "expected"), [(69, []), (70, ["each: 71"])])
def test_a_long_function_is_named(lines: int, expected: list[str]) -> None:
    source = "class A:\n    async def each():\n" + "        x = 1\n" * lines
    assert list(long_functions(source)) == expected
