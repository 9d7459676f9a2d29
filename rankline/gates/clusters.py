"""Means over requests with intervals, clustered by user: of one system's scores, or of the difference of two.

Requests of one user are alike, so the user is the unit that is resampled and that variances are computed from. Where
every request is its own cluster this is the paired comparison over requests. What makes a request hard for two systems
cancels out in their difference, so its interval is far narrower than those of two separate means.

Shapes: R requests, C clusters, K columns (a system's scores, or a difference), D resamples, B bags.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rankline.contracts import FrozenModel

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
BAGS = 2000  # more clusters than this are dealt into as many bags, and the bags are resampled
POWER = 0.8  # of `Effect.detectable`
_CELLS = 4_000_000  # counts in memory at once; the result does not depend on it
_BEYOND = 5  # with fewer resamples beyond an interval's end, it is that of the t distribution


class Effect(FrozenModel):
    """A mean over requests, most often of a difference, with its interval and what it could have shown."""

    mean: float
    low: float
    high: float
    requests: int
    clusters: int
    detectable: float


@dataclass(frozen=True)
class Clustered:
    """Columns of values on the same requests, summed over each cluster.

    A column may have some of the requests only: its count is of these.
    """

    sums_CK: Floats
    counts_CK: Floats

    @classmethod
    def of(cls, values_RK: Floats, clusters: Sequence[str], inside_RK: Bools | None = None) -> Clustered:
        """The sums of values [R, K] over the cluster that each request is in; without those that are not inside."""
        names = {name: code for code, name in enumerate(dict.fromkeys(clusters))}
        code_R = np.fromiter((names[cluster] for cluster in clusters), np.int64, len(clusters))

        def summed(columns_RK: Floats | Bools) -> Floats:
            columns = [np.bincount(code_R, weights=column_R, minlength=len(names)) for column_R in columns_RK.T]
            return np.stack(columns, axis=1).astype(np.float64)

        if inside_RK is not None:
            return cls(summed(np.where(inside_RK, values_RK, 0.0)), summed(inside_RK))
        count_C = np.bincount(code_R, minlength=len(names)).astype(np.float64)
        return cls(summed(values_RK), np.repeat(count_C[:, None], values_RK.shape[1], axis=1))

    @property
    def requests_K(self) -> Floats:
        return np.asarray(self.counts_CK.sum(axis=0))

    @property
    def clusters_K(self) -> Floats:
        return np.asarray((self.counts_CK > 0).sum(axis=0).astype(np.float64))

    @property
    def mean_K(self) -> Floats:
        """The mean over requests of each column; NaN without any."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.sums_CK.sum(axis=0) / self.requests_K)

    @property
    def covariance_KK(self) -> Floats:
        """The covariance of the means: that of ratios of cluster totals, linearized; NaN for a single cluster."""
        clusters_K = self.clusters_K
        with np.errstate(invalid="ignore", divide="ignore"):
            scale_K = np.where(clusters_K > 1, np.sqrt(clusters_K / (clusters_K - 1)), np.nan) / self.requests_K
            residual_CK = (self.sums_CK - self.counts_CK * self.mean_K) * scale_K
        return np.asarray(residual_CK.T @ residual_CK)

    @property
    def error_K(self) -> Floats:
        """The standard error of each mean."""
        return np.asarray(np.sqrt(np.diagonal(self.covariance_KK)))

    def resampled(self, *, resamples: int, seed: int) -> Floats:
        """The means [D, K] of bootstrap samples of the clusters (of bags of them, where there are many)."""
        rng, columns = np.random.default_rng(seed), self.sums_CK.shape[1]
        totals_B = np.column_stack([self.sums_CK, self.counts_CK])
        if len(totals_B) > BAGS:
            bag_C = rng.permutation(len(totals_B)) % BAGS
            totals_B = np.stack([np.bincount(bag_C, weights=column, minlength=BAGS) for column in totals_B.T], axis=1)
        bags, parts = len(totals_B), []
        rows = max(1, _CELLS // bags)
        for done in range(0, resamples, rows):
            draws = min(rows, resamples - done)
            # how often each bag was drawn, so that a resample's totals are one matrix product
            cell = rng.integers(0, bags, (draws, bags)) + bags * np.arange(draws)[:, None]
            parts.append(np.bincount(cell.ravel(), minlength=draws * bags).reshape(draws, bags) @ totals_B)
        totals_D = np.concatenate(parts)
        sums_DK, counts_DK = totals_D[:, :columns], totals_D[:, columns:]
        # a resample may have no request of a small slice, and says nothing of it then
        return np.asarray(np.where(counts_DK > 0, sums_DK / np.maximum(counts_DK, 1.0), self.mean_K))

    def effects(
        self, *, resamples: int, seed: int, confidence: float = 0.95, tails: Sequence[float] | None = None
    ) -> list[Effect]:
        """The mean of each column with its two-sided interval, all from the same resamples.

        The interval is the expanded percentile interval of Hesterberg, "What Teachers Should Know About the Bootstrap"
        (The American Statistician 2015): the plain one is too narrow with few clusters. ``tails`` are the errors on one
        side of each interval, in place of those that ``confidence`` leaves. An interval is NaN without two clusters, or
        where a value is.
        """
        from scipy.special import ndtr, ndtri, stdtrit  # scipy.stats takes a second to import

        columns, clusters_K, requests_K = self.sums_CK.shape[1], self.clusters_K, self.requests_K
        tail_K = np.full(columns, (1 - confidence) / 2) if tails is None else np.asarray(tails, np.float64)
        mean_K, error_K = self.mean_K, self.error_K
        errors_K = -stdtrit(np.maximum(clusters_K - 1, 1.0), tail_K)
        low_K, high_K = mean_K - errors_K * error_K, mean_K + errors_K * error_K
        drawn = np.flatnonzero((tail_K * resamples >= _BEYOND) & (clusters_K > 1))
        if drawn.size:
            drawn_DK = self.resampled(resamples=resamples, seed=seed)
            units_K = np.minimum(clusters_K, BAGS)  # that are resampled
            expanded_K = ndtr(-errors_K * np.sqrt(units_K / np.maximum(units_K - 1, 1.0)))
            for k in drawn:
                tails_of_k = [expanded_K[k], 1 - expanded_K[k]]
                low_K[k], high_K[k] = np.quantile(drawn_DK[:, k], tails_of_k, method="weibull")
        detectable_K = error_K * (ndtri(1 - tail_K) + ndtri(POWER))
        return [
            Effect(
                mean=float(mean_K[k]), low=float(low_K[k]), high=float(high_K[k]), requests=int(requests_K[k]),
                clusters=int(clusters_K[k]), detectable=float(detectable_K[k]),
            )
            for k in range(columns)
        ]  # fmt: skip


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for their number (Holm 1979): the family-wise error is at most their level."""
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, np.float64)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(p) for p in adjusted]
