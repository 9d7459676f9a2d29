"""The always-valid bound under a thousand years of looking every night."""

import numpy as np
import pytest

from rankline.gates.sequences import mixture_radius, nights_needed, spent_on

NIGHTS, YEARS = 365, 2000


def sums(mean, *, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.normal(mean, spread, (YEARS, NIGHTS)), axis=1), np.arange(1, NIGHTS + 1) * spread**2


@pytest.mark.parametrize("alpha", [0.05, 0.2])
@pytest.mark.parametrize("spread", [1.0, 0.01])
def test_looking_every_night_does_not_raise_the_error(alpha, spread):
    total, variance = sums(0.0, spread=spread)
    ever = (total > mixture_radius(variance, spread**2, alpha=alpha)).any(axis=1).mean()
    assert alpha / 4 < ever <= alpha + 3 * np.sqrt(alpha / YEARS)
    naive = (total > 1.64 * np.sqrt(variance)).any(axis=1).mean()
    assert naive > 0.3


def test_nights_of_changing_size_do_not_raise_the_error():
    rng = np.random.default_rng(1)
    size = rng.uniform(0.2, 5.0, (YEARS, NIGHTS))
    total, variance = np.cumsum(rng.normal(0, size), axis=1), np.cumsum(size**2, axis=1)
    ever = (total > mixture_radius(variance, variance[:, :1], alpha=0.05)).any(axis=1).mean()
    assert ever <= 0.05 + 3 * np.sqrt(0.05 / YEARS)


def test_a_true_difference_is_found_when_it_is_forecast():
    needed = nights_needed(0.5, 1.0, alpha=0.05, power=0.5)
    total, variance = sums(0.5, seed=2)
    crossed = (total >= mixture_radius(variance, 1.0, alpha=0.05))[:, :needed].any(axis=1).mean()
    assert 0.5 <= crossed < 0.75  # the bound may be crossed earlier than on that very night
    assert nights_needed(0.5, 1.0, alpha=0.05, power=0.9) > needed
    assert nights_needed(0.0, 1.0, alpha=0.05) is None
    assert nights_needed(1e-6, 1.0, alpha=0.05) is None


def test_no_difference_without_spread_is_no_distance():
    assert mixture_radius(0.0, 0.0, alpha=0.05) == 0.0


def test_the_shares_of_all_promotions_add_up_to_the_error():
    shares = [spent_on(n, 0.05) for n in range(10_000)]
    assert sum(shares) == pytest.approx(0.05, rel=1e-3)
    assert shares == sorted(shares, reverse=True)
