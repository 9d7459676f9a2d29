"""What attributes put items, users and requests into which groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from components.evaluate.attributes import group, item_attributes, request_attributes
from rankline.contracts import FrozenState
from rankline.evaluation.snapshot_requests import SnapshotRequest


@pytest.mark.parametrize(
    ("values", "groups"),
    [
        (["DE", None, "", "AT"], [("DE",), (), (), ("AT",)]),
        ([["a", "b", "a"], [], None], [("a", "b"), (), ()]),
        ([True, False, None], [("true",), ("false",), ()]),
        ([1.0, 2.5, float("nan"), 1.0], [("1",), ("2.5",), (), ("1",)]),  # few numbers are groups of their own
        ([1, 2, 3, 4, 5, 6, 7, 8, None],
         [*[(f"quarter {n}",) for n in (1, 1, 2, 2, 3, 3, 4, 4)], ()]),
        ([0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4], [*[("quarter 3",)] * 8, *[("quarter 4",)] * 3]),  # most are the same
    ],
)  # fmt: skip
def test_values_are_grouped(values: list[Any], groups: list[tuple[str, ...]]) -> None:
    assert list(group(values).groups) == groups


def test_columns_whose_values_hardly_repeat_and_those_that_are_no_values_are_left_out(
    tmp_path: Path,
) -> None:
    table = pa.table(
        {
            "item_id": [f"i{n}" for n in range(12)],
            "title": ["Film"] * 12,
            "category": [["Drama"], *[["Comedy", "Drama"]] * 11],
            "address": [f"https://shop/{n}" for n in range(12)],
            "vector": pa.array([[0.5, 0.5]] * 12, pa.list_(pa.float32())),
            "available": [True] * 6 + [False] * 6,
            "language": pa.nulls(12, pa.string()),
        }
    )
    parquet.write_table(table, tmp_path / "items.parquet")
    attributes = item_attributes(tmp_path)
    assert {name: each.names for name, each in attributes.items()} == {
        "item.category": {"Drama", "Comedy"},
        "item.available": {"true", "false"},
    }


def test_a_request_has_the_groups_of_its_user_and_its_own() -> None:
    def request(n: int) -> SnapshotRequest:
        profile = {"country": "DE"} if n else {}
        state = FrozenState(at=0.0, profile=profile, context={"device": "phone", "age_of_page": float(n)})
        return SnapshotRequest(f"r{n}", f"u{n}", None, state, ["i1"], [0.0])

    attributes = request_attributes([request(n) for n in range(8)])
    assert list(attributes["user.country"].groups) == [(), *[("DE",)] * 7]
    assert list(attributes["context.device"].groups) == [("phone",)] * 8
    assert len(attributes["context.age_of_page"].edges) == 3
