"""The rank of a target among scores, and nDCG of ranks.

Shapes: N candidates, R requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rankline.evaluation import metrics


def target_rank(scores_N: Any, target: int) -> int:
    """The rank of ``target`` among the scores (0 is the first); among equal scores it is in the middle.

    A model that gives all items one score is therefore not taken for a perfect one. A score that is not a number
    ranks last.
    """
    target_score = scores_N[target]
    if not np.isfinite(target_score):
        return len(scores_N) - 1
    return int((scores_N > target_score).sum() + (np.count_nonzero(scores_N == target_score) - 1) // 2)


def ndcg_of_ranks(ranks_R: Any, *, k: int) -> float:
    """Mean nDCG@k of requests with one target each, from the target's rank (0 is the first)."""
    return float(np.where(ranks_R < k, 1.0 / np.log2(ranks_R + 2.0), 0.0).mean())


def graded_ndcg(best_RK: Any, targets: Sequence[Any], gains: Sequence[Any], *, k: int) -> float:
    """Mean nDCG@k of ranked item rows (-1: none), by the gain of every target of a request."""
    ranked = [[item for item in best_K if item >= 0] for best_K in np.asarray(best_RK).tolist()]
    graded = [dict(zip(of.tolist(), map(float, gains_T))) for of, gains_T in zip(targets, gains)]
    return metrics.mean_graded_ndcg(ranked, graded, k=k)
