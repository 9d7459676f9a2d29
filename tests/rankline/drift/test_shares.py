"""Drift of daily shares: its rate of false alarms, what it notices, and what it must not call drift."""

from __future__ import annotations

import numpy as np
import pytest

from rankline.drift.shares import drift, psi

DAYS, TRIALS = np.arange(28), 4000


def counts(rng: np.random.Generator, days: int, share: float, *, spread: float = 0.0, events: int = 1000) -> np.ndarray:
    """Two bins; the share of the first one is higher at weekends and differs from day to day."""
    weekend = np.where(np.arange(days) % 7 >= 5, 0.1, 0.0)
    shares = np.clip(share + weekend + spread * rng.standard_normal((TRIALS, days)), 0, 1)
    first = rng.binomial(events, shares)
    return np.stack([first, events - first], -1).astype(float)


@pytest.mark.parametrize("spread", [0.0, 0.05])
@pytest.mark.parametrize("live", [1, 3, 7])
def test_equal_days_differ_as_often_as_stated(spread: float, live: int) -> None:
    rng = np.random.default_rng(1)
    reference, newest = counts(rng, 28, 0.4, spread=spread), counts(rng, 7, 0.4, spread=spread)
    p_values = drift(reference, DAYS % 7, newest[:, -live:], np.arange(7)[-live:]).p_value
    assert (p_values < 0.05).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / TRIALS)


def test_a_test_that_counts_events_would_see_drift_in_days_that_differ() -> None:
    """The guard above is needed: by events alone, far more than one in twenty would be called drift."""
    rng = np.random.default_rng(1)
    reference, newest = counts(rng, 28, 0.4, spread=0.05), counts(rng, 7, 0.4, spread=0.05)
    share, total = reference.sum(1) / reference.sum((1, 2))[:, None], newest.sum((1, 2))
    z = (newest.sum(1)[:, 0] - total * share[:, 0]) / np.sqrt(total * share[:, 0] * share[:, 1])
    assert (np.abs(z) > 1.96).mean() > 0.3


def test_a_weekend_is_compared_with_weekends() -> None:
    rng = np.random.default_rng(2)
    reference = counts(rng, 28, 0.4)
    weekend = counts(rng, 7, 0.4)[:, 5:]
    assert (drift(reference, DAYS % 7, weekend, np.array([5, 6])).p_value < 0.001).mean() < 0.01
    assert (drift(reference, DAYS % 7, weekend, np.array([0, 1])).p_value < 0.001).mean() > 0.99


def test_a_shift_is_noticed_and_measured() -> None:
    rng = np.random.default_rng(3)
    result = drift(counts(rng, 28, 0.4), DAYS % 7, counts(rng, 7, 0.6), np.arange(7))
    assert (result.p_value < 1e-6).mean() > 0.99
    assert result.psi.mean() == pytest.approx(0.2 * np.log(0.6 / 0.4) * 2, rel=0.1)


def test_a_day_with_few_events_proves_little() -> None:
    rng = np.random.default_rng(4)
    reference = counts(rng, 28, 0.4)
    few = drift(reference, DAYS % 7, counts(rng, 7, 0.4, events=5), np.arange(7)).p_value
    assert (few < 0.05).mean() <= 0.06


def test_the_index_of_equal_distributions_is_zero_and_empty_bins_count() -> None:
    assert psi(np.array([0.5, 0.5]), np.array([0.5, 0.5]), events=100) == 0
    assert psi(np.array([0.5, 0.5]), np.array([1.0, 0.0]), events=100) == pytest.approx(
        0.5 * np.log(2) + 0.495 * np.log(100)
    )
