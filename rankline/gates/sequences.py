"""Always-valid bounds: they hold at every night at once, however often one looks and whenever one stops.

The bound is the one-sided normal mixture of Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform, nonparametric,
nonasymptotic confidence sequences" (Annals of Statistics 2021), in its closed form, with estimated variances as in
Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit theory and asymptotic confidence
sequences" (Annals of Statistics 2024).
"""

from __future__ import annotations

from typing import Any

import numpy as np

FARTHEST = 3650  # nights that a forecast looks ahead
TUNED_FOR = 5.0  # the bound is tightest after about so many nights as large as the first


def mixture_radius(variance: Any, first: Any, *, alpha: Any) -> Any:
    """How far a sum of differences may lie from that of its means, at all times with probability 1 - ``alpha``.

    ``variance`` is that of the sum so far, ``first`` that of its first night, which sets the scale of the mixture.
    """
    scale = TUNED_FOR * first
    spread = np.sqrt((variance + scale) / np.where(scale > 0, scale, 1.0))
    return np.sqrt(2.0 * (variance + scale) * np.log(spread / (2.0 * alpha) + 1.0))


def spent_on(promotion: Any, alpha: float) -> Any:
    """The share of ``alpha`` for the bound that begins after so many promotions; all shares add up to ``alpha``."""
    return alpha / ((promotion + 1) * (promotion + 2))


def nights_needed(gain: float, error: float, *, alpha: float, power: float = 0.5) -> int | None:
    """After how many nights a true difference ``gain`` is proven with this ``power``; None for more than ten years.

    ``error`` is the standard error of the difference over one night.
    """
    from scipy.special import ndtri

    nights = np.arange(1, FARTHEST + 1, dtype=np.float64)
    variance = nights * error**2
    reached = gain * nights - ndtri(power) * np.sqrt(variance)
    enough = np.flatnonzero(reached >= mixture_radius(variance, error**2, alpha=alpha))
    return int(enough[0]) + 1 if gain > 0 and enough.size else None
