"""Drift of a distribution: the population stability index, and whether days differ by more than days do.

Events of one day are alike, so a test that counts events sees drift everywhere. Here a day is one observation. The live
days are compared with reference days of the same weekday, and the spread of the reference days around their weekday's
mean says how much chance there is in a day. A t-test for each bin, corrected for their number, gives the probability.

Shapes: D reference days, L live days, B bins; leading axes are trials.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
REFERENCE_DAYS = 56  # the newest days of the reference that count
MIN_REFERENCE_DAYS = 14  # two of each weekday
LIVE_DAYS = 7
MIN_LIVE_EVENTS = 200


class Drift(NamedTuple):
    """How far the live days are from the reference, and how probable that is by chance."""

    psi: Any
    p_value: Any


class Weekdays(NamedTuple):
    """The mean of the reference days of each weekday, [..., 7, B], their number [7], and the variance of a day [B]."""

    means_7B: Floats
    counts_7: Floats
    variance_B: Floats
    freedom: int


def weekday_means(values_DB: Floats, weekdays_D: Ints) -> Weekdays:
    """The means by weekday, and the variance of a day around that of its weekday."""
    member_D7 = (weekdays_D[:, None] == np.arange(7)).astype(np.float64)
    counts_7 = member_D7.sum(0)
    sums_7B = np.einsum("dw,...db->...wb", member_D7, values_DB)
    means_7B = sums_7B / np.maximum(counts_7, 1)[:, None]
    residuals_DB = values_DB - means_7B[..., weekdays_D, :]
    freedom = max(len(weekdays_D) - int((counts_7 > 0).sum()), 1)
    return Weekdays(means_7B, counts_7, (residuals_DB**2).sum(-2) / freedom, freedom)


def drift(reference_DB: Floats, weekdays_D: Ints, live_LB: Floats, weekdays_L: Ints) -> Drift:
    """Compare the counts of live days with those of reference days.

    A live day with fewer events than the reference's days has a proportionally larger variance, and no bin a smaller
    one than the sampling of its events gives.
    """
    from scipy.special import stdtr

    sizes_D, sizes_L = reference_DB.sum(-1), live_LB.sum(-1)
    reference = weekday_means(_shares(reference_DB, sizes_D), weekdays_D)
    expected_B = reference.means_7B[..., weekdays_L, :].mean(-2)
    observed_B = _shares(live_LB, sizes_L).mean(-2)
    bins, days = reference_DB.shape[-1], len(weekdays_L)
    total_B, total = reference_DB.sum(-2), sizes_D.sum(-1)[..., None]
    smoothed_B, typical = (total_B + 1) / (total + bins), sizes_D.mean(-1)[..., None]
    day_B = np.maximum(reference.variance_B, smoothed_B * (1 - smoothed_B) / np.maximum(typical, 1))
    live_7 = np.bincount(weekdays_L, minlength=7) / days
    of_reference = (live_7**2 / np.maximum(reference.counts_7, 1)).sum()
    of_live = np.maximum(1.0, typical / np.maximum(sizes_L, 1)).sum(-1)[..., None] / days**2
    t_B = np.abs(observed_B - expected_B) / np.sqrt(day_B * (of_reference + of_live))
    p_value = np.minimum(1.0, 2 * bins * stdtr(reference.freedom, -t_B).min(-1))
    return Drift(psi(expected_B, observed_B, events=sizes_L.sum(-1)), p_value)


def psi(expected_B: Floats, observed_B: Floats, *, events: Any) -> Any:
    """The population stability index of two distributions; below 0.1 is usually called stable, above 0.25 changed.

    An empty bin counts as half an event.
    """
    least = 0.5 / np.maximum(np.asarray(events, np.float64), 1.0)[..., None]
    expected, observed = np.maximum(expected_B, least), np.maximum(observed_B, least)
    return ((observed - expected) * np.log(observed / expected)).sum(-1)


def _shares(counts_DB: Floats, sizes_D: Floats) -> Floats:
    shares: Floats = counts_DB / np.maximum(sizes_D, 1)[..., None]
    return shares
