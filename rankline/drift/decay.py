"""Decay: whether a metric lies below a share of its baseline, by a test that holds however often one asks.

The deviations from the share of the baseline add up. Their sum falls below the always-valid bound of
rankline/gates/sequences.py with at most the stated probability while the metric has not fallen that far. A sum over
months would notice a late fall late, so a new sum begins every week, and all of them share the probability.

Shapes: N observations in order, W parts of a baseline (weekdays, or one), S starts; leading axes are trials.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rankline.drift.shares import weekday_means
from rankline.gates.sequences import mixture_radius

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
BASELINE_DAYS = 28
MIN_BASELINE_DAYS = 14
STEP = 7  # observations between two starts
STARTS = 53  # sums that begin within a year


@dataclass(frozen=True)
class Baseline:
    """The expected value of each part [..., W] and the variance of its estimate [..., W]."""

    values_W: Floats
    variances_W: Floats


class Decay(NamedTuple):
    """Whether the metric has fallen, and by which share of the baseline over the observations that say so best."""

    fell: Any
    share: Any


def daily_baseline(values_D: Floats, weekdays_D: Ints) -> tuple[Baseline, Any]:
    """The baseline by weekday, and the variance of a day."""
    means = weekday_means(values_D[..., None], weekdays_D)
    variance = means.variance_B[..., 0]
    return Baseline(means.means_7B[..., 0], variance[..., None] / np.maximum(means.counts_7, 1)), variance


def decay(
    values_N: Floats, parts_N: Ints, variances_N: Floats, baseline: Baseline, *, share: float, alpha: float
) -> Decay:
    """Whether the newest observations lie below 1 - ``share`` of the baseline; ``parts_N`` names its part for each.

    ``alpha`` is the probability per year of saying so wrongly.
    """
    from scipy.special import ndtri

    count, parts = values_N.shape[-1], baseline.values_W.shape[-1]
    starts = np.arange(0, count, STEP)[-STARTS:]
    expected_N = baseline.values_W[..., parts_N]
    member_NW = (parts_N[:, None] == np.arange(parts)).astype(np.float64)
    deviation_S = _sums(values_N - (1 - share) * expected_N, starts)
    variance_S = _sums(np.broadcast_to(variances_N, values_N.shape), starts)
    first_S = np.broadcast_to(variances_N, values_N.shape)[..., starts]
    times_SW = np.stack([member_NW[start:].sum(0) for start in starts])
    error_S = np.sqrt(np.einsum("sw,...w->...s", times_SW**2, baseline.variances_W))
    bound_S = mixture_radius(variance_S, first_S, alpha=alpha / (2 * STARTS)) - ndtri(alpha / 2) * (1 - share) * error_S
    excess_S = deviation_S + bound_S
    best = np.argmin(excess_S, -1)[..., None]
    observed_S, reference_S = _sums(values_N, starts), _sums(expected_N, starts)
    fallen = 1 - np.take_along_axis(observed_S / reference_S, best, -1)[..., 0]
    return Decay((excess_S < 0).any(-1), fallen)


def _sums(values_N: Floats, starts: Ints) -> Floats:
    """The sums from each start to the newest observation, [..., S]."""
    total_N = np.cumsum(values_N[..., ::-1], axis=-1)[..., ::-1]
    sums: Floats = total_N[..., starts]
    return sums
