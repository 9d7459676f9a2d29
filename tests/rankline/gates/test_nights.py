"""Nights and pools: no request counts twice, and nights add up."""

import numpy as np
import pytest

from rankline.evaluation.report import ANCHOR, CANDIDATE, CHAMPION
from rankline.gates.evidence import Evidence
from rankline.gates.nights import MIN_CLUSTERS, Night, Pool, disjoint, measure_night

NAMES = {"model_id": "m", "champion": "c", "anchor": "a", "recipe": "r"}
SYSTEMS = (CANDIDATE, CHAMPION, ANCHOR)


def evidence(count=100, *, start=1.0, seed=0, **shifts):
    """One request of each user, one a second from ``start``, with scores around 0.5 and a shift for each system."""
    rng = np.random.default_rng(seed)
    ease = rng.uniform(0.2, 0.8, count)
    scores = {name: ease + shifts.get(name, 0.0) + rng.normal(0, 0.05, count) for name in SYSTEMS}
    ids = [f"r{start + n:06.0f}" for n in range(count)]
    return Evidence(ids, [f"user {each}" for each in ids], start + np.arange(count, dtype=float), {"ndcg@10": scores})


def measured(own, since=0.0, **names):
    return measure_night(own, since=since, metric="ndcg@10", systems=SYSTEMS, **{**NAMES, **names})


def block(since, until, model="m"):
    zero = (0.0, 0.0, 0.0)
    return Night(
        **{**NAMES, "model_id": model}, metric="ndcg@10", since=since, until=until, requests=10, clusters=10,
        means=zero, covariance=(zero, zero, zero),
    )  # fmt: skip


def test_a_night_has_only_requests_that_are_new():
    own = evidence(100)
    assert measured(own).requests == 100
    assert measured(own, since=40.0).requests == 60
    assert measured(own, since=40.0).until == 100.0


def test_too_few_new_users_wait_for_a_later_night():
    own = evidence(100)
    assert measured(own, since=100.0 - MIN_CLUSTERS).clusters == MIN_CLUSTERS
    assert measured(own, since=101.0 - MIN_CLUSTERS) is None


@pytest.mark.parametrize("broken", ["missing", "nan"])
def test_without_scores_of_all_three_there_is_no_night(broken):
    own = evidence(100)
    if broken == "missing":
        del own.scores["ndcg@10"][ANCHOR]
    else:
        own.scores["ndcg@10"][ANCHOR][7] = np.nan
    assert measured(own) is None


def test_two_nights_add_up_to_the_night_that_has_both():
    whole = evidence(200, candidate=0.1)
    first = measured(Evidence(
        whole.request_ids[:120], whole.clusters[:120], whole.at_R[:120],
        {"ndcg@10": {name: values[:120] for name, values in whole.scores["ndcg@10"].items()}},
    ))  # fmt: skip
    pool, at_once = Pool.of([first, measured(whole, since=120.0)]), Pool.of([measured(whole)])
    weights = (1.0, 0.0, -0.97)
    assert (pool.nights, pool.requests) == (2, 200)
    assert pool.mean(weights) == pytest.approx(at_once.mean(weights))
    assert pool.night_error(weights) / np.sqrt(2) == pytest.approx(at_once.night_error(weights), rel=0.1)
    assert pool.radius(weights, alpha=0.01) > pool.radius(weights, alpha=0.05)


@pytest.mark.parametrize(
    ("blocks", "chosen"),
    [
        ([(0, 10), (10, 20), (20, 30)], [(0, 10), (10, 20), (20, 30)]),
        ([(20, 30), (0, 10), (10, 20)], [(0, 10), (10, 20), (20, 30)]),
        ([(0, 10), (0, 20)], [(0, 10)]),  # the second has the first's requests
        ([(0, 10), (5, 20), (10, 30)], [(0, 10), (10, 30)]),
        ([(0, 0), (0, 0)], [(0, 0)]),  # requests without times are the same every night
    ],
)
def test_nights_that_share_requests_count_once(blocks, chosen):
    assert [(each.since, each.until) for each in disjoint(block(*times) for times in blocks)] == chosen


def test_of_the_models_on_the_same_requests_the_first_counts_whichever_was_best():
    assert [each.model_id for each in disjoint([block(0, 10, "first"), block(0, 10, "best")])] == ["first"]
