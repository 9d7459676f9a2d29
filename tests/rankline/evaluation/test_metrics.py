"""The ranking metrics against ranx and against values worked out by hand."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from rankline.evaluation import metrics

KS = (1, 3, 10, 20)


@pytest.fixture(scope="module")
def lists():
    """Ranked lists and targets of every awkward kind: many targets, short lists, hits nowhere."""
    rng = np.random.default_rng(3)
    ranked, targets = [], []
    for request in range(60):
        items = [f"i{n}" for n in rng.permutation(40)]
        ranked.append(items[: rng.integers(1, 25)])
        targets.append(items[: 1 + request % 15] if request % 4 else [str(n) for n in rng.integers(100, 120, 3)])
        rng.shuffle(ranked[-1])
    return ranked, targets


RANX = """
import json, sys
from ranx import Qrels, Run, evaluate

told = json.load(sys.stdin)
qrels, run = Qrels(told["qrels"]), Run(told["run"])
json.dump({name: evaluate(qrels, run, name, return_mean=False).tolist() for name in told["names"]}, sys.stdout)
"""


@pytest.mark.integration
def test_ranking_metrics_equal_ranx(lists):
    ranked, targets = lists
    actual = metrics.ranking(metrics.judge(ranked, targets, depth=20), KS)
    theirs = {"ndcg": "ndcg", "hr": "hit_rate", "mrr": "mrr", "recall": "recall", "map": "map"}
    assert set(actual) == {f"{ours}@{k}" for ours in theirs for k in KS}
    requests = {
        "qrels": {f"q{r:03}": {item: 1 for item in wanted} for r, wanted in enumerate(targets)},
        "run": {f"q{r:03}": {item: 100.0 - n for n, item in enumerate(top)} for r, top in enumerate(ranked)},
        "names": [f"{name}@{k}" for name in theirs.values() for k in KS],
    }
    # compiling ranx takes forty seconds, running it as plain Python two; that is said to a process of its own, since
    # it would be said to every library here
    done = subprocess.run(
        [sys.executable, "-c", RANX],
        input=json.dumps(requests),
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    expected = json.loads(done.stdout)
    for ours, name in theirs.items():
        for k in KS:
            np.testing.assert_allclose(actual[f"{ours}@{k}"], expected[f"{name}@{k}"], atol=1e-9, err_msg=f"{ours}@{k}")


def test_values_by_hand():
    judged = metrics.judge([["a", "b", "c", "d"]], [["b", "d", "z"]], depth=4)
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    assert metrics.ndcg(judged, 4)[0] == pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / ideal)
    assert metrics.ndcg(judged, 2)[0] == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))
    assert metrics.hit_rate(judged, 1)[0] == 0
    assert metrics.hit_rate(judged, 2)[0] == 1
    assert metrics.reciprocal_rank(judged, 4)[0] == 0.5
    assert metrics.recall(judged, 4)[0] == pytest.approx(2 / 3)
    assert metrics.average_precision(judged, 4)[0] == pytest.approx((1 / 2 + 2 / 4) / 3)


@pytest.mark.parametrize(
    ("ranked", "targets", "complaint"),
    [
        ([["a"], ["b"]], [["a"]], "2 ranked lists for 1"),
        ([["a"]], [[]], "no target"),
        ([["a", "b", "a"]], [["a"]], "twice"),
    ],
)
def test_lists_that_cannot_be_judged_are_refused(ranked, targets, complaint):
    with pytest.raises(ValueError, match=complaint):
        metrics.judge(ranked, targets, depth=3)


def test_a_depth_that_was_not_judged_is_refused():
    with pytest.raises(ValueError, match="judged to depth 3"):
        metrics.ndcg(metrics.judge([["a"]], [["a"]], depth=3), 4)


def test_auc_counts_every_pair():
    rng = np.random.default_rng(0)
    labels = rng.random(80) < 0.4
    scores = rng.integers(0, 6, 80) / 10  # with many ties
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[labels] for n in scores[~labels]]
    assert metrics.auc(labels, scores) == pytest.approx(np.mean(pairs))
    assert metrics.auc([True, True], [0.1, 0.2]) is None
    assert metrics.auc([], []) is None


def test_calibration_by_hand():
    labels = [1, 0, 1, 1, 0]
    scores = [0.1, 0.15, 0.9, 1.0, 0.6]
    actual = metrics.reliability(labels, scores, bins=4)
    np.testing.assert_allclose(actual.mean_score_B, [0.125, 0.6, 0.95])
    np.testing.assert_allclose(actual.positive_share_B, [0.5, 0.0, 1.0])
    assert actual.count_B.tolist() == [2, 1, 2]
    assert actual.error == pytest.approx((2 * 0.375 + 1 * 0.6 + 2 * 0.05) / 5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        metrics.reliability([1], [1.2], bins=4)
    with pytest.raises(ValueError, match="between 0 and 1"):
        metrics.reliability([], [], bins=4)


def test_what_lists_look_like():
    ranked = [["a", "b", "c"], ["a", "c", "b"]]
    assert metrics.coverage(ranked, items=6, k=1) == pytest.approx(1 / 6)
    assert metrics.coverage(ranked, items=6, k=2) == pytest.approx(3 / 6)
    categories = {"a": ["x", "y"], "b": ["y"], "c": ["z"]}
    # pairs ab share one of two categories, ac and bc none
    np.testing.assert_allclose(metrics.diversity(ranked, categories, k=3), [(0.5 + 1 + 1) / 3] * 2)
    assert np.isnan(metrics.diversity([["a"]], categories, k=3)).all()
    # six events and one more for each of the four items: 7 of 10 for "a", 1 of 10 for "d"
    np.testing.assert_allclose(
        metrics.novelty([["a", "d"]], {"a": 6}, items=4, k=2), [-(math.log2(0.7) + math.log2(0.1)) / 2]
    )


def test_graded_ndcg_has_the_gains_of_trec_eval(lists):
    """scikit-learn's gain is the grade as well; whole lists, because it has no position beyond its scores."""
    from sklearn.metrics import ndcg_score

    ranked, targets = lists
    rng = np.random.default_rng(0)
    gains = [[float(gain) for gain in rng.choice([0.5, 1, 2, 3], len(of))] for of in targets]
    judged = metrics.judge(ranked, targets, depth=20, gains=gains)
    for k in (1, 3, 10):
        actual = metrics.ndcg(judged, k)
        for r, (items, of, grades) in enumerate(zip(ranked, targets, gains)):
            names = list(dict.fromkeys([*items, *of]))
            truth = [dict(zip(of, grades)).get(name, 0.0) for name in names]
            scores = [-items.index(name) if name in items else -1000.0 - n for n, name in enumerate(names)]
            if len(items) >= k:  # scikit-learn fills a short list with what is missing from it
                assert actual[r] == pytest.approx(ndcg_score([truth], [scores], k=min(k, len(names)))), (r, k)


def test_equal_gains_give_binary_ndcg_and_requests_without_gains_count_one(lists):
    ranked, targets = lists
    plain = metrics.ndcg(metrics.judge(ranked, targets, depth=10), 10)
    for gains in ([[2.0] * len(of) for of in targets], [[] for _ in targets]):
        np.testing.assert_allclose(metrics.ndcg(metrics.judge(ranked, targets, depth=10, gains=gains), 10), plain)


def test_gains_that_do_not_fit_the_targets_are_refused():
    with pytest.raises(ValueError, match="zip"):
        metrics.judge([["a"]], [["a", "b"]], depth=1, gains=[[1.0]])
    with pytest.raises(ValueError, match="depth 1, asked for 2"):
        metrics.ndcg(metrics.judge([["a"]], [["a"]], depth=1, gains=[[1.0]]), 2)


def test_the_mean_of_graded_rankings_leaves_requests_without_targets_out():
    best = math.log2(2) / math.log2(3)
    assert metrics.mean_graded_ndcg([[7, 8], [1]], [{7: 3.0, 8: 1.0}, {}], k=2) == pytest.approx(1.0)
    assert metrics.mean_graded_ndcg([[7, 8]], [{7: 1.0, 8: 3.0}], k=2) == pytest.approx((1 + 3 * best) / (3 + best))
    assert metrics.mean_graded_ndcg([], [], k=2) == 0.0


def test_exposure_is_divided_among_groups_by_hand():
    exposed = metrics.exposure([["a", "b"], ["a", "c", "d"]], k=2)
    second = 1 / np.log2(3)
    assert exposed == pytest.approx({"a": 2.0, "b": second, "c": second})
    groups = [["x"], ["x", "y"], ["y"], []]  # of a, b, c, d
    weights = [exposed.get(item, 0.0) for item in "abcd"]
    total = 2 + 2 * second
    assert metrics.group_shares(weights, groups) == pytest.approx(
        {"x": (2 + second / 2) / total, "y": 1.5 * second / total}
    )
    assert metrics.group_shares([0.0], [["x"]]) == {}


@pytest.mark.parametrize(
    ("values", "expected"), [([1, 1, 1, 1], 0.0), ([0, 0, 0, 4], 0.75), ([1, 3], 0.25), ([0, 0], None)]
)
def test_gini_by_hand(values, expected):
    assert metrics.gini(values) == (None if expected is None else pytest.approx(expected))


def test_log_popularity_by_hand():
    actual = metrics.log_popularity([["a", "b"], ["new"], []], {"a": 3, "b": 7})
    np.testing.assert_allclose(actual[:2], [(2 + 3) / 2, 0.0])
    assert np.isnan(actual[2])
