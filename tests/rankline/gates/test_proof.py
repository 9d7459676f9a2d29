"""The proof of the gates: how often they are wrong and how soon they are right, against what is nominal.

The requests are drawn clustered by user. The slow versions have 2,000 trials.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter
from scipy.stats import binomtest

from rankline.evaluation.report import Report
from rankline.gates.evidence import Evidence
from rankline.gates.policy import Gate
from rankline.gates.rules import Resampling, gate_checks
from rankline.gates.simulation import Bank, Policy, Shape, demo_shape, draw_bank, draw_scores, simulate
from rankline.gates.study import one_night

TRIALS = pytest.mark.parametrize("trials", [200, pytest.param(2000, marks=pytest.mark.slow)])
TAIL = 0.025  # the error of one side of an interval
MARGIN = 0.15
CLUSTERED = replace(demo_shape(), requests=940, per_user=4, user_alike=0.5)
BETTER = {"kind": "better", "metric": "ndcg@10"}
NOT_WORSE = {"kind": "not_worse", "metric": "ndcg@10", "margin": MARGIN}
REPORT = Report(model_id="m", recipe="r", run_id="", champion="c", requests=1, systems={})


def statuses(
    shape: Shape, effect: float, *gates: dict[str, Any], trials: int, by_user: bool = True
) -> list[Counter[str]]:
    """How often each gate came to each status, in nights that are drawn anew."""
    rng, how = np.random.default_rng(0), Resampling(resamples=400, confidence=0.95, seed=0)
    policy = TypeAdapter(tuple[Gate, ...]).validate_python(gates)
    counted: list[Counter[str]] = [Counter() for _ in gates]
    ids = [f"r{n:04}" for n in range(shape.requests)]
    users = [f"user {n // shape.per_user}" for n in range(shape.requests)] if by_user else ids
    for _ in range(trials):
        candidate, champion, _anchor = draw_scores(shape, 1, rng).reshape(-1, 3).T
        scores = {"candidate": (1 + effect) * candidate, "champion": champion}
        evidence = Evidence(ids, users, np.zeros(len(ids)), {"ndcg@10": scores})
        for counter, check in zip(counted, gate_checks(policy, REPORT, evidence, how), strict=True):
            counter[check.status] += 1
    return counted


def at_most(count: int, trials: int, nominal: float) -> bool:
    """Whether a nominal rate is not exceeded, within the 95% interval of what was counted."""
    return bool(binomtest(count, trials).proportion_ci(0.95, method="wilson").low <= nominal)


@TRIALS
def test_equal_models_are_hardly_ever_better_or_worse(trials: int) -> None:
    """A/A: the second model is drawn as the first; false passes and false failures stay within the nominal error."""
    better, not_worse = statuses(CLUSTERED, 0.0, BETTER, NOT_WORSE, trials=trials)
    assert at_most(better["pass"], trials, TAIL)
    assert at_most(better["fail"], trials, TAIL)
    assert not_worse["fail"] <= 0.002 * trials
    assert not_worse["pass"] > 0.5 * trials  # the others are insufficient data: nothing is proven against them


@TRIALS
def test_models_at_the_edge_of_the_margin_pass_no_more_often_than_nominal(trials: int) -> None:
    (not_worse,) = statuses(CLUSTERED, -MARGIN, NOT_WORSE, trials=trials)
    assert at_most(not_worse["pass"], trials, TAIL)


@pytest.mark.integration
def test_without_users_the_same_nights_promote_too_often() -> None:
    (by_request,) = statuses(replace(CLUSTERED, user_alike=1.0), 0.0, BETTER, trials=200, by_user=False)
    assert by_request["pass"] > 0.08 * 200


SLOW_EFFECTS = [pytest.param(2000, effect, marks=pytest.mark.slow) for effect in (0.01, 0.02, 0.05, 0.2)]


@pytest.mark.parametrize(("trials", "effect"), [(200, 0.2), *SLOW_EFFECTS])
def test_the_power_of_one_night_is_the_one_that_is_simulated(trials: int, effect: float) -> None:
    """The study has it from covariances, the gate from resampled users."""
    (better,) = statuses(CLUSTERED, effect, BETTER, trials=trials)
    bank = draw_bank(CLUSTERED, nights=500 if trials < 2000 else 4000, seed=1)
    expected = next(each for each in one_night(bank, Policy(), [effect]) if each.kind == "better").passed
    error = np.sqrt(expected * (1 - expected) / trials) + 0.005
    assert better["pass"] / trials == pytest.approx(expected, abs=3 * error)


def first_within(bank: Bank, effect: float, nights: int, trials: int) -> float:
    year = simulate(bank, lambda night, rng, count: effect, Policy(), trials=trials, nights=nights)
    return float((year.first_T <= nights).mean())


@TRIALS
def test_the_loss_budget_at_its_edge_and_its_power(trials: int) -> None:
    """False promotions of a year are at most the nominal 5%; better candidates of 1, 2 and 5% get through."""
    bank = draw_bank(CLUSTERED, nights=1000 if trials < 2000 else 4000, seed=0)
    year = simulate(bank, lambda night, rng, count: -0.03, Policy(), trials=trials, nights=365)
    false = int((year.lowest_T <= 0.97 + 1e-9).sum())
    assert at_most(false, trials, 0.05)
    assert false <= 0.03 * trials
    assert 0.04 < bank.relative_error < 0.075  # users that are alike cost evidence
    within = {effect: first_within(bank, effect, 60, trials) for effect in (0.01, 0.02, 0.05)}
    assert within[0.01] > 0.9
    assert within[0.02] > 0.98
    assert within[0.05] > 0.999 - 1 / trials
