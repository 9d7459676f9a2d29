"""Decay: an always-valid test that a metric lies below a share of its baseline."""

from __future__ import annotations

import numpy as np
import pytest

from rankline.drift.decay import BASELINE_DAYS, Baseline, daily_baseline, decay

SEASON = np.array([1.0, 1.02, 1.0, 0.98, 1.05, 0.9, 0.92])
YEARS, SPREAD, LIMIT = 300, 0.02, 0.05


def days(rng: np.random.Generator, count: int, level: float) -> np.ndarray:
    return level * SEASON[np.arange(count) % 7] * (1 + SPREAD * rng.standard_normal((YEARS, count)))


def first_alarms(level: float, *, seed: int = 5, until: int = 180, step: int = 3) -> np.ndarray:
    """The day of the first alarm of each year; infinite without one."""
    rng = np.random.default_rng(seed)
    baseline, variance = daily_baseline(days(rng, BASELINE_DAYS, 1.0), np.arange(BASELINE_DAYS) % 7)
    values, first = days(rng, until, level), np.full(YEARS, np.inf)
    for day in range(step, until + 1, step):
        result = decay(
            values[:, :day], np.arange(day) % 7, variance[:, None], baseline, share=LIMIT, alpha=0.05
        )  # fmt: skip
        first = np.where(result.fell & np.isinf(first), day, first)
    return first


@pytest.mark.parametrize("level", [1.0, 1 - LIMIT])
def test_a_metric_above_the_limit_is_called_fallen_at_most_as_often_as_stated(level: float) -> None:
    assert np.isfinite(first_alarms(level)).mean() <= 0.05


def test_a_fall_of_ten_percent_is_noticed_within_two_weeks() -> None:
    first = first_alarms(0.9, until=60)
    assert np.quantile(first, 0.95) <= 14


def test_a_fall_after_good_months_is_noticed_as_soon() -> None:
    rng = np.random.default_rng(6)
    baseline, variance = daily_baseline(days(rng, BASELINE_DAYS, 1.0), np.arange(BASELINE_DAYS) % 7)
    good, bad = days(rng, 140, 1.0), days(rng, 21, 0.9)
    for count, least, most in ((0, 0.0, 0.02), (21, 0.95, 1.0)):
        values = np.concatenate([good, bad[:, :count]], 1)
        parts = np.arange(values.shape[1]) % 7
        fell = decay(values, parts, variance[:, None], baseline, share=LIMIT, alpha=0.05).fell.mean()
        assert least <= fell <= most


def test_an_uncertain_baseline_proves_nothing() -> None:
    values, one = np.full(30, 0.5), np.zeros(30, np.int64)
    for variance, expected in ((0.0, True), (0.25, False)):
        baseline = Baseline(np.array([1.0]), np.array([variance]))
        assert bool(decay(values, one, np.full(30, 0.01), baseline, share=LIMIT, alpha=0.05).fell) is expected
