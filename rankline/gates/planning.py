"""How many requests and nights a gate needs, before anything is trained."""

from __future__ import annotations

import math

from rankline.contracts import FrozenModel
from rankline.gates.sequences import nights_needed, spent_on
from rankline.gates.simulation import Bank


class Need(FrozenModel):
    """What an effect needs to be seen."""

    effect: float
    requests_one_night: int
    nights_to_pass: int | None
    requests_per_night: dict[str, int | None]


WITHIN_NIGHTS = (1, 7, 30)
_LARGEST = 1_000_000_000


def needs(
    bank: Bank,
    requests: int,
    effects: tuple[float, ...],
    *,
    power: float,
    budget: float,
    confidence: float,
    alpha: float,
) -> list[Need]:
    """For each effect: the requests that tell it from zero in one night, and what passes the loss budget.

    A candidate this much better than the anchor (0: as good) passes after ``nights_to_pass`` nights of ``requests``;
    ``requests_per_night`` are those with which it passes within so many nights.
    """
    deviation = bank.relative_error * math.sqrt(requests)  # of one request's difference, as a share of the mean
    level = spent_on(0, spent_on(0, alpha))
    return [
        Need(
            effect=effect,
            requests_one_night=_paired(effect, deviation, power=power, confidence=confidence),
            nights_to_pass=nights_needed(budget + effect, bank.relative_error, alpha=level, power=power),
            requests_per_night={
                str(nights): _per_night(budget + effect, deviation, nights, alpha=level, power=power)
                for nights in WITHIN_NIGHTS
            },
        )
        for effect in effects
    ]


def _paired(effect: float, deviation: float, *, power: float, confidence: float) -> int:
    """The requests of one comparison whose interval excludes zero with this power; 0 for no effect."""
    from scipy.special import ndtri

    if effect == 0:
        return 0
    spread = float(ndtri((1 + confidence) / 2) + ndtri(power)) * deviation
    return math.ceil((spread / effect) ** 2)


def _per_night(gain: float, deviation: float, nights: int, *, alpha: float, power: float) -> int | None:
    """The fewest requests a night with which a difference is proven within so many nights."""
    if gain <= 0:
        return None
    low, high = 1, 2
    while not _within(gain, deviation / math.sqrt(high), nights, alpha, power):
        low, high = high, high * 2
        if high > _LARGEST:
            return None
    while high - low > max(1, low // 200):
        middle = (low + high) // 2
        low, high = (
            (low, middle) if _within(gain, deviation / math.sqrt(middle), nights, alpha, power) else (middle, high)
        )
    return high


def _within(gain: float, error: float, nights: int, alpha: float, power: float) -> bool:
    needed = nights_needed(gain, error, alpha=alpha, power=power)
    return needed is not None and needed <= nights
