"""Ranks of targets, and nDCG."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rankline.train.ranks import graded_ndcg, ndcg_of_ranks, target_rank


def test_ndcg_by_hand() -> None:
    assert ndcg_of_ranks(np.array([0, 1, 9, 10]), k=10) == pytest.approx(
        (1 + 1 / math.log2(3) + 1 / math.log2(11) + 0) / 4
    )


@pytest.mark.parametrize(
    ("scores", "target", "rank"),
    [
        ([3.0, 2.0, 1.0], 0, 0),
        ([3.0, 2.0, 1.0], 2, 2),
        ([1.0] * 101, 7, 50),  # equal scores are not a perfect ranking
        ([5.0, 1.0, 1.0, 0.0], 1, 1),
        ([math.nan] * 5, 2, 4),  # neither are broken scores
        ([1.0, -math.inf, 0.0], 1, 2),
    ],
)
def test_the_rank_of_a_target(scores: list[float], target: int, rank: int) -> None:
    assert target_rank(np.array(scores), target) == rank


def test_graded_ndcg_counts_every_target_by_its_gain() -> None:
    targets, gains = [np.array([4, 2])], [np.array([1.0, 3.0], np.float32)]
    second = 1 / np.log2(3)
    assert graded_ndcg(np.array([[2, 4, -1]]), targets, gains, k=10) == pytest.approx(1.0)
    worse = graded_ndcg(np.array([[4, 2, -1]]), targets, gains, k=10)
    assert worse == pytest.approx((1 + 3 * second) / (3 + second))
