"""Comparisons clustered by user: against resampling by hand, and against what scipy knows."""

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap

from rankline.gates.clusters import BAGS, Clustered, holm


def visits(users, per_user, *, alike, seed=0):
    """Differences of two systems: a share of each is the user's, the rest the request's."""
    rng = np.random.default_rng(seed)
    own = np.repeat(rng.normal(0, 1, users), per_user)
    return alike * own + (1 - alike) * rng.normal(0, 1, users * per_user), np.repeat(np.arange(users), per_user)


def effect_of(difference, clusters, **how):
    settings = {"resamples": 4000, "confidence": 0.95, "seed": 0} | how
    return Clustered.of(difference[:, None], [str(c) for c in clusters]).effects(**settings)[0]


def test_the_interval_is_that_of_resampled_users():
    difference, clusters = visits(80, 5, alike=0.8)
    effect = effect_of(difference, clusters)
    means = difference.reshape(80, 5).mean(axis=1)
    expected = scipy_bootstrap((means,), np.mean, n_resamples=4000, method="percentile", random_state=1)
    assert effect.mean == pytest.approx(difference.mean())
    assert effect.low == pytest.approx(expected.confidence_interval.low, abs=0.02)
    assert effect.high == pytest.approx(expected.confidence_interval.high, abs=0.02)
    assert (effect.requests, effect.clusters) == (400, 80)


def test_requests_of_one_user_are_no_evidence_of_many():
    difference, clusters = visits(80, 5, alike=0.8)
    by_user, by_request = effect_of(difference, clusters), effect_of(difference, np.arange(400))
    assert by_user.high - by_user.low > 1.7 * (by_request.high - by_request.low)
    assert by_user.detectable > 1.7 * by_request.detectable


def test_users_with_more_requests_count_for_more():
    effect = effect_of(np.array([1.0, 1.0, 1.0, 0.0]), [0, 0, 0, 1])
    assert effect.mean == pytest.approx(0.75)


def test_the_covariance_is_that_of_resampled_means():
    rng = np.random.default_rng(3)
    counts = rng.integers(1, 6, 200)
    clusters = np.repeat(np.arange(200), counts)
    scores = rng.normal(0, 1, (len(clusters), 3)) + np.repeat(rng.normal(0, 1, (200, 1)), counts, axis=0)
    pairs = Clustered.of(scores, [str(c) for c in clusters])
    drawn = pairs.resampled(resamples=20_000, seed=0)
    assert np.allclose(np.cov(drawn.T), pairs.covariance_KK, rtol=0.1, atol=2e-4)


def test_a_column_of_some_requests_is_that_of_these_alone():
    difference, clusters = visits(200, 5, alike=0.5)
    inside = np.arange(1000) < 400
    names = [str(c) for c in clusters]
    both = Clustered.of(np.stack([difference] * 2, axis=1), names, np.stack([np.ones(1000, bool), inside], axis=1))
    whole, part = both.effects(resamples=4000, seed=0)
    alone = effect_of(difference[inside], clusters[inside])
    assert whole.model_dump() == pytest.approx(effect_of(difference, clusters).model_dump())
    assert (part.mean, part.detectable) == (pytest.approx(alone.mean), pytest.approx(alone.detectable))
    assert (part.requests, part.clusters) == (400, 80)
    # the share of the users in the slice varies as well, which costs a ratio next to nothing
    assert part.low == pytest.approx(alone.low, abs=0.1 * (alone.high - alone.low))
    assert part.high == pytest.approx(alone.high, abs=0.1 * (alone.high - alone.low))


def test_each_column_has_the_error_that_it_may_have():
    difference, clusters = visits(200, 1, alike=0.5)
    columns = Clustered.of(np.stack([difference] * 3, axis=1), [str(c) for c in clusters])
    usual, rare, never = columns.effects(resamples=2000, seed=0, tails=[0.025, 0.005, 1e-6])
    assert never.low < rare.low < usual.low < usual.high < rare.high < never.high
    # one in a million of 2,000 resamples is none: the t distribution has it
    assert never.high - never.mean == pytest.approx(4.9 * np.std(difference) / np.sqrt(200), rel=0.05)


def test_an_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(5)
    inside = 0
    for trial in range(200):
        effect = effect_of(rng.exponential(1.0, 150), np.arange(150), resamples=400, seed=trial)
        inside += effect.low <= 1.0 <= effect.high
    assert 0.88 <= inside / 200 <= 0.99


@pytest.mark.parametrize("values", [[], [0.1, float("nan")]])
def test_missing_numbers_have_no_interval(values):
    effect = effect_of(np.array(values), np.arange(len(values)))
    assert not np.isfinite([effect.mean, effect.low, effect.high]).any()


def test_one_user_has_a_mean_and_no_interval():
    effect = effect_of(np.array([0.1, 0.3]), [0, 0])
    assert effect.mean == pytest.approx(0.2)
    assert np.isnan([effect.low, effect.high]).all()


def test_pairing_cancels_what_is_hard_for_both():
    rng = np.random.default_rng(1)
    ease = rng.beta(0.4, 2.0, 500)
    better = ease + rng.normal(0.02, 0.05, 500)
    paired = effect_of(better - ease, np.arange(500))
    unpaired = effect_of(better - rng.permutation(ease), np.arange(500))
    assert paired.high - paired.low < 0.3 * (unpaired.high - unpaired.low)
    assert paired.low > 0 > unpaired.low


def test_equal_scores_differ_by_exactly_nothing():
    effect = effect_of(np.zeros(50), np.arange(50))
    assert (effect.mean, effect.low, effect.high) == (0.0, 0.0, 0.0)


def test_many_users_are_resampled_in_bags_with_the_same_interval():
    rng = np.random.default_rng(0)
    difference = rng.exponential(1.0, 6 * BAGS)
    effect = effect_of(difference, np.arange(len(difference)))
    half = 1.96 * difference.std() / np.sqrt(len(difference))
    assert effect.low == pytest.approx(difference.mean() - half, abs=0.1 * half)
    assert effect.high == pytest.approx(difference.mean() + half, abs=0.1 * half)


def test_what_is_detectable_is_found_in_four_of_five_samples():
    rng = np.random.default_rng(0)
    shift = effect_of(rng.normal(0, 1, 300), np.arange(300)).detectable
    positive = [effect_of(rng.normal(shift, 1, 300), np.arange(300), resamples=300, seed=n).low > 0 for n in range(400)]
    assert 0.74 < np.mean(positive) < 0.86


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # Holm's own arithmetic
        ([0.9, 0.8], [1.0, 1.0]),
        ([0.02], [0.02]),
        ([], []),
    ],
)
def test_holm(p_values, adjusted):
    assert holm(p_values) == pytest.approx(adjusted)


def test_holm_keeps_the_familywise_error_where_single_tests_do_not():
    rng = np.random.default_rng(0)
    families = rng.random((4000, 10))
    single = (families < 0.05).any(axis=1).mean()
    corrected = np.mean([min(holm(row)) < 0.05 for row in families])
    assert single > 0.35
    assert corrected < 0.06
