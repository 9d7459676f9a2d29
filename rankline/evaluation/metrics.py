"""Ranking metrics: one number per request, so that two systems can be compared request by request.

Shapes: R requests, K positions of a list (best first), N candidates, I items, C categories, B bins.
Relevance is binary, and graded in nDCG where the targets have gains. A request may have any number of targets; a target
that is not in the list is missed. An item that was judged as not relevant is no target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Judged:
    """Ranked lists compared with their targets: which positions hit, and the number of targets.

    With graded targets also the gain at each position, and the gains of the best list.
    """

    hits_RK: Bools
    targets_R: Ints
    gains_RK: Floats | None = None
    best_gains_RK: Floats | None = None


def judge(
    ranked: Sequence[Sequence[str]],
    targets: Sequence[Sequence[str]],
    *,
    depth: int,
    gains: Sequence[Sequence[float]] | None = None,
) -> Judged:
    """Mark the hits among the first ``depth`` items of each list; short lists end in misses.

    ``gains`` are the grades of the targets, parallel to them; a request without gains has 1 for each.

    Raises:
        ValueError: the two differ in length, a request has no target, or a list has an item twice.
    """
    if len(ranked) != len(targets):
        raise ValueError(f"{len(ranked)} ranked lists for {len(targets)} requests")
    hits_RK = np.zeros((len(ranked), depth), np.bool_)
    targets_R = np.zeros(len(ranked), np.int64)
    for r, (items, wanted) in enumerate(zip(ranked, targets)):
        top, relevant = list(items[:depth]), set(wanted)
        if not relevant:
            raise ValueError(f"request {r} has no target")
        if len(set(top)) < len(top):
            raise ValueError(f"list {r} has an item twice")
        hits_RK[r, : len(top)] = [item in relevant for item in top]
        targets_R[r] = len(relevant)
    if gains is None:
        return Judged(hits_RK, targets_R)
    gains_RK, best_RK = np.zeros((2, len(ranked), depth))
    for r, (items, wanted, grades) in enumerate(zip(ranked, targets, gains, strict=True)):
        gain_of = dict(zip(wanted, grades or [1.0] * len(wanted), strict=True))
        gains_RK[r, : len(items[:depth])] = [gain_of.get(item, 0.0) for item in items[:depth]]
        best = sorted(gain_of.values(), reverse=True)[:depth]
        best_RK[r, : len(best)] = best
    return Judged(hits_RK, targets_R, gains_RK, best_RK)


def ndcg(judged: Judged, k: int) -> Floats:
    """[R] discounted gain of the first ``k``, as a share of the gain of the best list of ``k``.

    The gain of a target is its grade, as in Järvelin & Kekäläinen (2002), trec_eval and BEIR, not 2^grade - 1
    (Burges et al. 2005): weights of labels need not be whole numbers. Without grades the gain is 1.
    """
    discounts_K = 1.0 / np.log2(np.arange(2, k + 2))
    if judged.gains_RK is not None and judged.best_gains_RK is not None:
        _top(judged, k)  # refuses a depth that was not judged
        return np.asarray((judged.gains_RK[:, :k] @ discounts_K) / (judged.best_gains_RK[:, :k] @ discounts_K))
    gains_R = _top(judged, k) @ discounts_K
    ideal_R = np.cumsum(discounts_K)[np.minimum(judged.targets_R, k) - 1]
    return np.asarray(gains_R / ideal_R)


def mean_graded_ndcg(ranked: Sequence[Iterable[int]], gains: Sequence[Mapping[int, float]], *, k: int) -> float:
    """Mean nDCG@k of ranked item rows, by the gain of every target of a request; 0 without a request."""
    lists = [[str(item) for item in items] for items, of in zip(ranked, gains) if of]
    targets, grades = [list(map(str, of)) for of in gains if of], [list(of.values()) for of in gains if of]
    if not lists:
        return 0.0
    return float(ndcg(judge(lists, targets, depth=k, gains=grades), k).mean())


def hit_rate(judged: Judged, k: int) -> Floats:
    """[R] 1 if a target is among the first ``k``, else 0."""
    return np.asarray(_top(judged, k).max(axis=1))


def reciprocal_rank(judged: Judged, k: int) -> Floats:
    """[R] 1 / position of the first target among the first ``k``, else 0 (its mean is the MRR)."""
    return np.asarray((_top(judged, k) / np.arange(1, k + 1)).max(axis=1))


def recall(judged: Judged, k: int) -> Floats:
    """[R] the share of the targets that are among the first ``k``."""
    return np.asarray(_top(judged, k).sum(axis=1) / judged.targets_R)


def average_precision(judged: Judged, k: int) -> Floats:
    """[R] precision at each hit of the first ``k``, averaged over all targets (its mean is the MAP)."""
    top_RK = _top(judged, k)
    precision_RK = np.cumsum(top_RK, axis=1) / np.arange(1, k + 1)
    return np.asarray((precision_RK * top_RK).sum(axis=1) / judged.targets_R)


RANKING: Mapping[str, Callable[[Judged, int], Floats]] = {
    "ndcg": ndcg,
    "hr": hit_rate,
    "mrr": reciprocal_rank,
    "recall": recall,
    "map": average_precision,
}


def ranking(judged: Judged, ks: Iterable[int]) -> dict[str, Floats]:
    """Every ranking metric at every ``k``, named "ndcg@10" and so on, each [R]."""
    return {f"{name}@{k}": score(judged, k) for k in ks for name, score in RANKING.items()}


def _top(judged: Judged, k: int) -> Floats:
    """[R, k] of 0 and 1."""
    if not 1 <= k <= judged.hits_RK.shape[1]:
        raise ValueError(f"judged to depth {judged.hits_RK.shape[1]}, asked for {k}")
    return judged.hits_RK[:, :k].astype(np.float64)


def auc(labels_N: npt.ArrayLike, scores_N: npt.ArrayLike) -> float | None:
    """The probability that a positive scores above a negative, with ties as half; None with only one class."""
    positive_N = np.asarray(labels_N, np.bool_)
    _, place_N, count = np.unique(np.asarray(scores_N, np.float64), return_inverse=True, return_counts=True)
    # equal scores share the mean of their ranks
    rank_N = (np.cumsum(count) - (count - 1) / 2)[place_N]
    positives, negatives = int(positive_N.sum()), int((~positive_N).sum())
    if not positives or not negatives:
        return None
    above = rank_N[positive_N].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


@dataclass(frozen=True)
class Reliability:
    """Probabilities against outcomes, by bins of equal width; empty bins are left out."""

    mean_score_B: Floats
    positive_share_B: Floats
    count_B: Ints

    @property
    def error(self) -> float:
        """Expected calibration error: the mean distance of the bins, weighted by size."""
        gap_B = np.abs(self.mean_score_B - self.positive_share_B)
        return float((gap_B * self.count_B).sum() / self.count_B.sum())


def reliability(labels_N: npt.ArrayLike, probabilities_N: npt.ArrayLike, *, bins: int) -> Reliability:
    """Bin probabilities, with the share of positives in each bin.

    Raises:
        ValueError: there are no probabilities, or one is not between 0 and 1.
    """
    positive_N = np.asarray(labels_N, np.float64)
    score_N = np.asarray(probabilities_N, np.float64)
    if not score_N.size or not ((score_N >= 0) & (score_N <= 1)).all():
        raise ValueError("calibration needs probabilities between 0 and 1")
    bin_N = np.minimum((score_N * bins).astype(np.int64), bins - 1)
    count = np.bincount(bin_N, minlength=bins)
    used = count > 0
    return Reliability(
        mean_score_B=np.bincount(bin_N, score_N, bins)[used] / count[used],
        positive_share_B=np.bincount(bin_N, positive_N, bins)[used] / count[used],
        count_B=count[used],
    )


def coverage(ranked: Iterable[Sequence[str]], *, items: int, k: int) -> float:
    """The share of the catalogue's ``items`` that are among the first ``k`` of any list."""
    return len({item for top in ranked for item in top[:k]}) / items


def diversity(ranked: Sequence[Sequence[str]], categories: Mapping[str, Sequence[str]], *, k: int) -> Floats:
    """[R] the mean of 1 - Jaccard similarity of categories, over the pairs of a list's first ``k``.

    Two items without categories have similarity 0. Lists of fewer than two items have NaN.
    """
    names = sorted({name for item_categories in categories.values() for name in item_categories})
    vocabulary = {name: c for c, name in enumerate(names)}
    out_R = np.full(len(ranked), np.nan)
    for r, items in enumerate(ranked):
        top = items[:k]
        if len(top) < 2:
            continue
        member_KC = np.zeros((len(top), len(vocabulary)))
        for position, item in enumerate(top):
            member_KC[position, [vocabulary[name] for name in categories.get(item, ())]] = 1.0
        shared_KK = member_KC @ member_KC.T
        sizes_K = member_KC.sum(axis=1)
        union_KK = sizes_K[:, None] + sizes_K[None, :] - shared_KK
        similarity_KK = np.divide(shared_KK, union_KK, out=np.zeros_like(shared_KK), where=union_KK > 0)
        pairs = np.triu_indices(len(top), 1)
        out_R[r] = 1.0 - similarity_KK[pairs].mean()
    return out_R


def novelty(ranked: Sequence[Sequence[str]], counts: Mapping[str, float], *, items: int, k: int) -> Floats:
    """[R] the mean of -log2 of each item's share of events, over a list's first ``k``, in bits.

    One event is added to each of the catalogue's ``items``, so that items without events are finite. Empty lists have
    NaN.
    """
    total = sum(counts.values()) + items
    bits = {item: float(-np.log2((count + 1) / total)) for item, count in counts.items()}
    unseen = float(np.log2(total))
    return np.array([np.mean([bits.get(item, unseen) for item in top[:k]]) if top else np.nan for top in ranked])


def log_popularity(ranked: Sequence[Sequence[str]], counts: Mapping[str, float]) -> Floats:
    """[R] the mean of log2(1 + events) of each list's items; empty lists have NaN.

    A system's lists against its users' histories are its popularity bias: the popularity lift of Abdollahpouri,
    Mansoury, Burke & Mobasher (2020), here as a difference of logarithms, so that a few blockbusters do not decide it.
    """
    bits = {item: float(np.log2(1 + count)) for item, count in counts.items()}
    return np.array([sum(bits.get(item, 0.0) for item in items) / len(items) if items else np.nan for items in ranked])


def exposure(ranked: Iterable[Sequence[str]], *, k: int) -> dict[str, float]:
    """Item -> its exposure (Singh & Joachims 2018): 1 / log2(1 + position), over the first ``k`` of all lists."""
    weights = (1.0 / np.log2(np.arange(2, k + 2))).tolist()
    exposed: dict[str, float] = {}
    for items in ranked:
        for item, weight in zip(items, weights):
            exposed[item] = exposed.get(item, 0.0) + weight
    return exposed


def gini(values_I: npt.ArrayLike) -> float | None:
    """The Gini coefficient of what items receive: 0 if all the same, near 1 if one has everything; None for nothing.

    As a measure of recommenders: Fleder & Hosanagar (2009).
    """
    sorted_I = np.sort(np.asarray(values_I, np.float64))
    total = float(sorted_I.sum())
    if total <= 0:
        return None
    count = len(sorted_I)
    return float((2 * np.arange(1, count + 1) - count - 1) @ sorted_I / (count * total))


def group_shares(weights: Iterable[float], groups: Iterable[Sequence[str]]) -> dict[str, float]:
    """Group -> its share of the items' weights; an item of several groups divides its weight, one of none has none."""
    totals: dict[str, float] = {}
    for weight, names in zip(weights, groups, strict=True):
        for name in names:
            totals[name] = totals.get(name, 0.0) + weight / len(names)
    total = sum(totals.values())
    return {name: value / total for name, value in totals.items()} if total else {}
