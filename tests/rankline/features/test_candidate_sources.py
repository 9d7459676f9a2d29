"""Co-visitation and popularity, held against numbers worked out by hand."""

import math

import numpy as np
import pytest

from rankline.features import candidate_sources
from rankline.features.candidate_sources import covisit_scores, covisitation, popularity


def histories(*lists: list[int]) -> list[np.ndarray]:
    return [np.array(items, np.int64) for items in lists]


def test_one_history_by_hand() -> None:
    actual = covisitation(histories([0, 1, 2]), 4, window=3, step_decay=0.1, max_neighbours=10, shrink=1.0).toarray()
    near, far = 1 / 1.1, 1 / 1.2  # one and two steps apart; backward pairs weigh 0.7 of that
    sums = np.array([near + far, 1.7 * near, 0.7 * (near + far), 0])
    raw = np.array([[0, near, far, 0], [0.7 * near, 0, near, 0], [0.7 * far, 0.7 * near, 0, 0], [0] * 4])
    np.testing.assert_allclose(actual, raw / np.sqrt(np.outer(sums + 1, sums + 1)), rtol=1e-6)


def test_pairs_as_far_apart_as_the_window_do_not_count() -> None:
    actual = covisitation(histories([0, 1, 2]), 3, window=2, step_decay=0.1, max_neighbours=10)
    assert actual[0, 1] > 0
    assert actual[0, 2] == 0


def test_an_item_is_not_its_own_neighbour_and_pairs_add_up() -> None:
    once = covisitation(histories([0, 0, 1]), 2, window=3, step_decay=0.0, max_neighbours=10, shrink=100.0)
    more = covisitation(histories([0, 0, 1], [0, 1]), 2, window=3, step_decay=0.0, max_neighbours=10, shrink=100.0)
    assert once[0, 0] == 0
    assert more[0, 1] > once[0, 1]


def test_only_the_best_neighbours_are_stored() -> None:
    rng = np.random.default_rng(0)
    lists = [rng.permutation(30)[:8].astype(np.int64) for _ in range(200)]
    every = covisitation(lists, 30, window=8, step_decay=0.1, max_neighbours=30)
    best = covisitation(lists, 30, window=8, step_decay=0.1, max_neighbours=4)
    assert (np.diff(best.indptr) == 4).all()
    for item in range(30):
        np.testing.assert_array_equal(np.sort(best[item].data), np.sort(every[item].data)[-4:])


def test_rare_pairs_are_shrunk_below_common_ones() -> None:
    lists = histories(*[[0, 1]] * 50, [2, 3])
    actual = covisitation(lists, 4, window=3, step_decay=0.1, max_neighbours=4)
    assert actual[0, 1] > 5 * actual[2, 3]


@pytest.mark.parametrize("lists", [[], [[]], [[2]]])
def test_without_pairs_there_are_no_neighbours(lists: list[list[int]]) -> None:
    actual = covisitation(histories(*lists), 3, window=3, step_decay=0.1, max_neighbours=5)
    assert actual.shape == (3, 3)
    assert actual.nnz == 0
    assert covisit_scores(actual, np.array([0, 1]), decay=0.9, last=5).tolist() == [0, 0, 0]


def test_a_history_decays_step_by_step() -> None:
    matrix = covisitation(histories([0, 3], [1, 3], [1, 4]), 5, window=2, step_decay=0.0, max_neighbours=5)
    row = matrix.toarray()
    np.testing.assert_allclose(
        covisit_scores(matrix, np.array([2, 0, 1]), decay=0.5, last=9), row[1] + 0.5 * row[0] + 0.25 * row[2]
    )
    np.testing.assert_allclose(covisit_scores(matrix, np.array([2, 0, 1]), decay=0.5, last=1), row[1])
    assert covisit_scores(matrix, np.array([], np.int64), decay=0.5, last=9).tolist() == [0] * 5


def test_the_later_of_two_histories_weighs_more() -> None:
    matrix = covisitation(histories([0, 1], [2, 3]), 4, window=2, step_decay=0.0, max_neighbours=5)
    scores = covisit_scores(matrix, np.array([0, 2]), decay=0.8, last=9)
    assert math.isclose(scores[1], 0.8 * scores[3], rel_tol=1e-6)


def test_popularity_counts() -> None:
    assert popularity(histories([0, 2, 2], [2]), 4).tolist() == [1, 0, 3, 0]
    assert popularity([], 2).tolist() == [0, 0]


def test_blocks_of_pairs_add_up_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    lists = [rng.permutation(30)[: rng.integers(0, 9)].astype(np.int64) for _ in range(50)]
    whole = covisitation(lists, 30, window=8, step_decay=0.1, max_neighbours=30)
    monkeypatch.setattr(candidate_sources, "PAIRS_AT_ONCE", 100)
    blocks = covisitation(lists, 30, window=8, step_decay=0.1, max_neighbours=30)
    assert whole.nnz > 100
    np.testing.assert_allclose(blocks.toarray(), whole.toarray(), rtol=1e-5)
