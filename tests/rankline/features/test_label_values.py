"""Which values of labels count, and what their heads are to predict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rankline.features.label_values import liked_from, outcomes, reached
from rankline.labels import Label

NAN = float("nan")


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (Label(), [False, True, True, False]),
        (Label(at_least=2.0), [False, False, True, False]),
        (Label(type="graded", at_least=0.0), [True, True, True, False]),
    ],
)
def test_a_value_counts_from_its_limit_on(label: Label, expected: list[bool]) -> None:
    assert reached(label, [0.0, 1.0, 2.0, NAN]).tolist() == expected


def test_a_head_predicts_whether_and_how_much_after_what_happened() -> None:
    labels = {"click": Label(), "dwell": Label(type="continuous", after="click"), "stars": Label(type="graded")}
    values = {"click": [1.0, 0.0, NAN, 2.0], "dwell": [8.0, 9.0, 7.0, NAN], "stars": [NAN, 3.0, 1.0, 5.0]}
    actual = outcomes(labels, values)
    np.testing.assert_array_equal(actual["click"], [1.0, 0.0, NAN, 1.0])
    np.testing.assert_array_equal(actual["dwell"], [8.0, NAN, NAN, NAN])
    np.testing.assert_array_equal(actual["stars"], values["stars"])


@pytest.mark.parametrize(
    ("labels", "liked"),
    [
        ({}, 4.0),
        ({"click": {}}, 4.0),
        ({"rating": {"type": "graded", "at_least": 4.0, "scale": [1, 5]}}, 4.0),
        ({"rating": {"type": "graded", "at_least": 7.5, "scale": [1, 10]}}, 7.5),
        ({"score": {"type": "graded", "at_least": 50.0, "scale": [0, 100]}}, 50.0),
    ],
)
def test_what_counts_as_liked_is_the_limit_of_the_declared_rating(labels: dict[str, Any], liked: float) -> None:
    assert liked_from({"labels": labels}) == pytest.approx(liked)


def test_without_a_limit_every_rating_is_liked() -> None:
    assert 0 < liked_from({"labels": {"rating": {"type": "graded", "scale": [0.5, 5]}}}) < 1e-300
