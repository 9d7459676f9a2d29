"""Bootstrap intervals over requests: of one system's mean, and of the paired difference of two.

Paired means that both systems are scored on the same resampled requests. What makes a request hard for both cancels
out, so the interval is far narrower than those of two separate means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

# draws in memory at once; the result does not depend on it
_DRAWS = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A mean over ``requests`` requests and the percentile interval around it."""

    mean: float
    low: float
    high: float
    requests: int


def interval(values: npt.NDArray[Any], *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0) -> Interval:
    """The mean of ``values`` [n] and its two-sided percentile interval; NaN if a value is NaN, or without values."""
    values_N: Values = np.asarray(values, np.float64)
    count = len(values_N)
    if not count or not np.isfinite(values_N).all():
        return Interval(float("nan"), float("nan"), float("nan"), count)
    rng = np.random.default_rng(seed)
    rows = max(1, _DRAWS // count)
    means = [
        values_N[rng.integers(0, count, (min(rows, resamples - done), count))].mean(1)
        for done in range(0, resamples, rows)
    ]
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return Interval(float(values_N.mean()), float(low), float(high), count)


def paired(
    left: npt.NDArray[Any],
    right: npt.NDArray[Any],
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The interval of ``left - right``, scores [n] of two systems on the same requests in the same order."""
    left_N, right_N = np.asarray(left, np.float64), np.asarray(right, np.float64)
    assert left_N.shape == right_N.shape, "paired scores have the same length"
    return interval(left_N - right_N, resamples=resamples, confidence=confidence, seed=seed)


def intervals(
    values_NM: npt.NDArray[Any], *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> list[Interval]:
    """The interval of each column of ``values_NM``, with the same resamples for all columns."""
    values: Values = np.asarray(values_NM, np.float64)
    count, columns = values.shape
    if not count:
        return [interval(values[:, column]) for column in range(columns)]
    rng = np.random.default_rng(seed)
    rows = max(1, _DRAWS // count)
    means = []
    for done in range(0, resamples, rows):
        drawn_DN = rng.integers(0, count, (min(rows, resamples - done), count))
        # how often each request was drawn, so that a resample's means are one matrix product
        draws = len(drawn_DN)
        cell = (drawn_DN + count * np.arange(draws)[:, None]).ravel()
        times_DN = np.bincount(cell, minlength=draws * count).reshape(draws, count)
        means.append(times_DN @ values / count)
    tail = (1 - confidence) / 2
    low_M, high_M = np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0)
    mean_M = values.mean(axis=0)
    return [
        Interval(float(mean), float(low), float(high), count)
        for mean, low, high in zip(mean_M, low_M, high_M, strict=True)
    ]
