"""Comparisons of systems on the same requests, clustered by user.

Requests of one user are alike, so the user is the unit that is resampled and that variances are computed from. Where
every request is its own cluster this is the paired comparison over requests.

Shapes: R requests, C clusters, S systems, D resamples, B bags.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rankline.contracts import FrozenModel

Floats = npt.NDArray[np.float64]
BAGS = 2000  # more clusters than this are dealt into as many bags, and the bags are resampled
POWER = 0.8  # of `Effect.detectable`
_CELLS = 4_000_000  # counts in memory at once; the result does not depend on it


class Effect(FrozenModel):
    """The difference of two systems on the same requests, with its interval and what it could have found."""

    mean: float
    low: float
    high: float
    requests: int
    clusters: int
    detectable: float


@dataclass(frozen=True)
class Clustered:
    """Scores of several systems on the same requests, summed over each cluster."""

    sums_CS: Floats
    counts_C: Floats

    @classmethod
    def of(cls, scores_RS: Floats, clusters: Sequence[str]) -> Clustered:
        """The sums of the scores [R, S] over the cluster that each request is in."""
        names = {name: code for code, name in enumerate(dict.fromkeys(clusters))}
        code_R = np.fromiter((names[cluster] for cluster in clusters), np.int64, len(clusters))
        columns = [np.bincount(code_R, weights=column_R, minlength=len(names)) for column_R in scores_RS.T]
        return cls(np.stack(columns, axis=1), np.bincount(code_R, minlength=len(names)).astype(np.float64))

    @property
    def requests(self) -> int:
        return int(self.counts_C.sum())

    @property
    def mean_S(self) -> Floats:
        """The mean over requests of each system."""
        return np.asarray(self.sums_CS.sum(axis=0) / self.counts_C.sum())

    @property
    def covariance_SS(self) -> Floats:
        """The covariance of the means: that of a ratio of cluster totals, linearized."""
        clusters = len(self.counts_C)
        if clusters < 2:
            return np.full((self.sums_CS.shape[1],) * 2, np.nan)
        residual_CS = self.sums_CS - self.counts_C[:, None] * self.mean_S
        scale = clusters / (clusters - 1) / self.counts_C.sum() ** 2
        return np.asarray(residual_CS.T @ residual_CS * scale)

    def resampled(self, *, resamples: int, seed: int) -> Floats:
        """The means [D, S] of bootstrap samples of the clusters (of bags of them, where there are many)."""
        rng = np.random.default_rng(seed)
        totals_B = np.column_stack([self.sums_CS, self.counts_C])
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
        return np.asarray(totals_D[:, :-1] / totals_D[:, -1:])

    def effects(
        self, contrasts: Sequence[Sequence[float]], *, resamples: int, confidence: float, seed: int
    ) -> list[Effect]:
        """The effect of each contrast, a weight per system, all from the same resamples; at least two clusters."""
        from scipy.special import ndtri  # scipy.stats takes a second to import

        weights_SK = np.asarray(contrasts, np.float64).T
        tail = (1 - confidence) / 2
        drawn_DK = self.resampled(resamples=resamples, seed=seed) @ weights_SK
        low_K, high_K = np.quantile(drawn_DK, [tail, 1 - tail], axis=0)
        mean_K = self.mean_S @ weights_SK
        variance_K = np.einsum("sk,st,tk->k", weights_SK, self.covariance_SS, weights_SK)
        error_K = np.sqrt(np.maximum(variance_K, 0.0))  # rounding may leave less than none
        detectable_K = error_K * (ndtri(1 - tail) + ndtri(POWER))
        return [
            Effect(
                mean=m, low=low, high=high, requests=self.requests, clusters=len(self.counts_C), detectable=detectable
            )
            for m, low, high, detectable in zip(
                mean_K.tolist(), low_K.tolist(), high_K.tolist(), detectable_K.tolist(), strict=True
            )
        ]


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for their number (Holm 1979): the family-wise error is at most their level."""
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, np.float64)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(p) for p in adjusted]
