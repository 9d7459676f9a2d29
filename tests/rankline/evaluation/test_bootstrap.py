import numpy as np
import pytest
import scipy.stats

from rankline.evaluation import bootstrap


@pytest.fixture
def scores():
    rng = np.random.default_rng(1)
    champion = rng.beta(0.4, 2.0, 500)
    return np.clip(champion + rng.normal(0.02, 0.05, 500), 0, 1), champion


def test_agrees_with_scipy(scores):
    candidate, champion = scores
    ours = bootstrap.paired(candidate, champion, resamples=5000)
    theirs = scipy.stats.bootstrap(
        (candidate - champion,), np.mean, n_resamples=5000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert ours.mean == pytest.approx((candidate - champion).mean())
    assert ours.low == pytest.approx(theirs.low, abs=3e-4)
    assert ours.high == pytest.approx(theirs.high, abs=3e-4)


def test_same_seed_same_interval_however_it_is_cut_into_pieces(scores, monkeypatch):
    candidate, _ = scores
    whole = bootstrap.interval(candidate, seed=3)
    monkeypatch.setattr(bootstrap, "_DRAWS", 1500)
    assert bootstrap.interval(candidate, seed=3) == whole
    assert bootstrap.interval(candidate, seed=4) != whole


def test_pairing_cancels_what_is_hard_for_both(scores):
    candidate, champion = scores
    paired = bootstrap.paired(candidate, champion)
    unpaired = bootstrap.paired(candidate, np.random.default_rng(0).permutation(champion))
    assert paired.high - paired.low < 0.3 * (unpaired.high - unpaired.low)
    assert paired.low > 0 > unpaired.low


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(5)
    inside = 0
    for trial in range(200):
        actual = bootstrap.interval(rng.exponential(1.0, 150), resamples=400, seed=trial)
        inside += actual.low <= 1.0 <= actual.high
    assert 0.88 <= inside / 200 <= 0.99


@pytest.mark.parametrize("values", [[], [0.1, float("nan")], [0.1, float("inf")]])
def test_nothing_is_made_up_where_numbers_are_missing(values):
    actual = bootstrap.interval(np.array(values))
    assert np.isnan([actual.mean, actual.low, actual.high]).all()


def test_equal_scores_differ_by_exactly_nothing(scores):
    actual = bootstrap.paired(scores[0], scores[0])
    assert (actual.mean, actual.low, actual.high) == (0.0, 0.0, 0.0)
