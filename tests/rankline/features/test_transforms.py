"""How features become numbers."""

import numpy as np
import pytest

from rankline.features import transforms


def test_counts_become_logarithms_and_what_is_missing_is_zero() -> None:
    columns = {"item_events_7d": [0, None, 3], "item_trend": [0.5, np.nan, -1.0], "item_price": [-5.0, 0.0, 9.0]}
    actual = transforms.matrix(columns, ["item_trend", "item_events_7d", "item_rating_mean", "item_price"], 3)
    np.testing.assert_allclose(actual, [[0.5, 0, 0, 0], [0, 0, 0, 0], [-1.0, np.log1p(3), 0, np.log1p(9)]], rtol=1e-6)
    assert actual.dtype == np.float32


def test_items_without_features_are_zero_and_unknown_ones_are_left_out() -> None:
    index = {"a": 0, "b": 1, "c": 2}
    columns = {"item_id": ["c", "gone", "a"], "item_trend": [1.0, 2.0, 3.0]}
    assert transforms.item_matrix(columns, ["item_trend"], index).tolist() == [[3], [0], [1]]
    assert transforms.item_matrix({}, ["item_trend"], index).tolist() == [[0], [0], [0]]


def test_categories_are_marked_and_unknown_ones_ignored() -> None:
    actual = transforms.category_matrix([["b", "z"], None, [], ["a", "b"]], ["a", "b"])
    assert actual.tolist() == [[0, 1], [0, 0], [0, 0], [1, 1]]


def test_cross_features_are_the_sum_and_the_largest_share() -> None:
    categories = transforms.category_matrix([["a", "b"], ["c"], []], ["a", "b", "c"])
    actual = transforms.cross_matrix({"a": 0.5, "b": 0.25, "gone": 9.0}, ["a", "b", "c"], categories)
    assert actual.tolist() == [[0.75, 0.5], [0, 0], [0, 0]]
    assert transforms.cross_matrix({"a": 1.0}, [], np.zeros((2, 0), np.float32)).tolist() == [[0, 0], [0, 0]]


def test_fresh_popularity_is_the_last_week_before_all_else() -> None:
    index = {"a": 0, "b": 1, "c": 2}
    columns = {
        "item_id": ["a", "b", "gone"],
        "item_events_7d": [2, 2, 50],
        "item_events_30d": [9, 3, 50],
        "item_events_total": [None, 500, 50],
    }
    actual = transforms.fresh_popularity(columns, index)
    np.testing.assert_allclose(actual, [2.9, 2.8, 0], rtol=1e-6)


def test_a_known_instant() -> None:
    # Saturday 2024-03-02 06:00 UTC, an hour after the last event
    actual = transforms.request_context(
        request_time=np.array([1709359200.0, 1709359200.0]),
        last_event_time=np.array([1709355600.0, 0.0]),
        history_length=np.array([3, 0]),
    )
    assert actual["ctx_hour_sin"] == pytest.approx([1, 1])
    assert actual["ctx_hour_cos"] == pytest.approx([0, 0], abs=1e-9)
    assert actual["ctx_weekend"].tolist() == [1, 1]
    assert actual["ctx_log_hours_since_last"] == pytest.approx([np.log(2), 0])
    assert actual["ctx_log_history"] == pytest.approx([np.log(4), 0])
    monday = transforms.request_context(
        request_time=np.array([1709359200.0 + 2 * 86400]), last_event_time=np.zeros(1), history_length=np.zeros(1)
    )
    assert monday["ctx_weekend"].tolist() == [0]
    assert tuple(actual) == transforms.CONTEXT
