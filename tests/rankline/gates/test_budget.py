"""The loss budget: proven, disproven, not yet known; and the simulation's rule is this one."""

import numpy as np
import pytest

from rankline.gates.budget import check_budget, level, proven
from rankline.gates.nights import Night, Pool
from rankline.gates.sequences import mixture_radius
from rankline.gates.state import AnchorState

STATE = AnchorState(anchor="a" * 16)


def night(quality, *, champion=1.0, error=0.004, requests=943, mean=0.125):
    """A night on which the candidate has this quality; ``error`` is that of a difference of two systems."""
    own = (error / np.sqrt(2)) ** 2
    return Night(
        model_id="m", champion="c", anchor="a", recipe="r", metric="ndcg@10", since=0, until=1, requests=requests,
        clusters=requests, means=(mean * quality, mean * champion, mean),
        covariance=((own, 0.0, 0.0), (0.0, own, 0.0), (0.0, 0.0, own)),
    )  # fmt: skip


def status(quality, nights=1, **night_of):
    state = STATE.model_copy(update={"before": Pool.of([night(quality, **night_of)] * (nights - 1))})
    return check_budget(night(quality, **night_of), state, budget=0.03, alpha=0.05)


@pytest.mark.parametrize(
    ("quality", "nights", "expected"),
    [
        (1.0, 1, "insufficient data"),
        (1.0, 60, "pass"),
        (1.02, 30, "pass"),
        (0.99, 10, "insufficient data"),
        (0.9, 1, "insufficient data"),
        (0.9, 30, "fail"),
        (0.95, 200, "fail"),
    ],
)
def test_the_verdict_of_so_many_nights(quality, nights, expected):
    check = status(quality, nights)
    assert (check.status, check.passed) == (expected, expected == "pass")
    assert ("expected to pass" in check.sentence) is (expected == "insufficient data")


def test_large_nights_need_one():
    assert status(1.0, error=0.0004).status == "pass"
    assert status(0.95, error=0.0002).status == "fail"


def test_a_forecast_comes_true():
    check = status(1.0)
    assert check.sentence.startswith("Over 1 night and 943 requests")
    nights = int(check.sentence.split("after about ")[1].split()[0])
    assert status(1.0, nights - 1).status == "insufficient data"
    assert status(1.0, nights).status == "pass"


@pytest.mark.parametrize(
    ("state", "trials", "share"),
    [
        ({}, 1, 1 / 4),
        ({"promotions": 1}, 1, 1 / 12),
        ({"trials": 2}, 1, 1 / 12),
        ({}, 5, 1 / 20),
    ],
)
def test_promotions_and_trials_leave_less_of_the_error(state, trials, share):
    assert level(0.05, STATE.model_copy(update=state), trials=trials) == pytest.approx(0.05 * share)


@pytest.mark.parametrize(
    ("tonight", "words"),
    [(None, "Fewer than 30 users"), (night(1.0, error=float("nan")), "no spread"), (night(1.0, mean=0.0), "no mean")],
)
def test_what_cannot_be_compared_is_insufficient_data(tonight, words):
    check = check_budget(tonight, STATE, budget=0.03, alpha=0.05)
    assert check.status == "insufficient data"
    assert words in check.sentence


def test_the_champion_is_proven_better_only_with_evidence():
    better = (0.0, 1.0, -1.0)
    assert not proven(Pool(), better, alpha=0.05)
    assert not proven(Pool.of([night(1.0, champion=1.01)]), better, alpha=0.05)
    assert proven(Pool.of([night(1.0, champion=1.1)] * 20), better, alpha=0.05)
    assert not proven(Pool.of([night(1.0, champion=0.9)] * 20), better, alpha=0.05)


@pytest.mark.integration
@pytest.mark.parametrize("quality", [0.98, 1.0, 1.02])
@pytest.mark.parametrize("nights", [1, 9, 33])
def test_the_simulated_rule_is_the_one_that_decides(quality, nights):
    """The simulation adds up means of contrasts, the gate adds up totals over requests."""
    error = 0.125 * 0.03
    variance = (error**2 / 2) * (1 + 0.97**2)
    total = nights * 0.125 * (quality - 0.97)
    simulated = total >= mixture_radius(nights * variance, variance, alpha=level(0.05, STATE))
    assert status(quality, nights, error=error).passed == simulated
