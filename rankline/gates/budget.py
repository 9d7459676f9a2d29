"""The loss budget: how much worse than the anchor a candidate may be, proven over as many nights as it takes.

The candidates of one recipe since the champion's promotion are taken as alike: their mean difference from the anchor
is bounded at all nights at once. Tonight's own requests are compared with the champion besides, so that one broken
candidate does not pass on the merits of those before it.
"""

from __future__ import annotations

import math

from rankline.gates.check import Check, Status
from rankline.gates.nights import MIN_CLUSTERS, Night, Pool
from rankline.gates.sequences import nights_needed, spent_on
from rankline.gates.state import AnchorState

NAME = "loss budget"


def level(alpha: float, state: AnchorState, *, trials: int = 1) -> float:
    """The share of ``alpha`` for this bound: by its promotions, by its trial, and as the best of ``trials``."""
    return float(spent_on(state.trials - 1, spent_on(state.promotions, alpha))) / trials


def check_budget(
    night: Night | None, state: AnchorState, *, budget: float, alpha: float, trials: int = 1, missing: str = ""
) -> Check:
    """Whether the candidate's mean is proven to be at least that of the anchor less ``budget``, a share of it.

    ``missing`` says why there is none, where that is known.
    """
    required = f"at most {budget:.1%} below anchor {state.anchor}, proven"
    if night is None:
        sentence = missing or f"Fewer than {MIN_CLUSTERS} users have new requests since the last evaluation."
        return Check.of(NAME, "insufficient data", sentence, required=required)
    pool = state.before.plus(night)
    weights = (1.0, 0.0, budget - 1.0)
    radius = pool.radius(weights, alpha=level(alpha, state, trials=trials))
    anchor = pool.mean((0.0, 0.0, 1.0))
    if not math.isfinite(radius) or anchor <= 0:
        sentence = f"The scores of anchor {state.anchor} have no mean or no spread to compare with."
        return Check.of(NAME, "insufficient data", sentence, required=required)
    # of the contrast candidate - (1 - budget) * anchor, as a share of the anchor's mean
    low, high = (pool.mean(weights) - radius) / anchor - budget, (pool.mean(weights) + radius) / anchor - budget
    status: Status = "pass" if low >= -budget else "fail" if high < -budget else "insufficient data"
    nights = "1 night" if pool.nights == 1 else f"{pool.nights} nights"
    measured = f"Over {nights} and {pool.requests} requests the candidates of this recipe are "
    measured += f"{pool.mean(weights) / anchor - budget:+.1%} [{low:+.1%}, {high:+.1%}] from anchor {state.anchor}"
    if status == "insufficient data":
        measured += f"; {_forecast(pool, weights, alpha=level(alpha, state, trials=trials))}"
    return Check.of(NAME, status, f"{measured}.", required=required, observed=low)


def proven(pool: Pool, weights: tuple[float, float, float], *, alpha: float) -> bool:
    """Whether the true mean of a contrast is proven to be above zero, at every night at once."""
    if not pool.nights:
        return False
    low = pool.mean(weights) - pool.radius(weights, alpha=alpha)
    return math.isfinite(low) and low > 0


def _forecast(pool: Pool, weights: tuple[float, float, float], *, alpha: float) -> str:
    """When candidates as good as the anchor would pass."""
    gain = pool.mean((0.0, 0.0, 1.0)) * (1.0 + weights[2])
    nights = nights_needed(gain, pool.night_error(weights), alpha=alpha)
    if nights is None:
        return "nights of this size will not tell candidates as good as the anchor from worse ones"
    return f"candidates as good as the anchor are expected to pass after about {nights} nights of this size"
