"""The year of nights, in small: quality stays, better candidates get through, and the margin alone lets it decay."""

from dataclasses import replace

import numpy as np
import pytest

from rankline.gates.planning import needs
from rankline.gates.simulation import Policy, demo_shape, draw_bank, simulate
from rankline.gates.study import Plan, one_night_table, shape_of, study, table

TRIALS = 300


@pytest.fixture(scope="module")
def bank():
    return draw_bank(demo_shape(), nights=1500, seed=0)


def year(bank, effect, policy=None, nights=365):
    return simulate(bank, lambda night, rng, trials: effect, policy or Policy(), trials=TRIALS, nights=nights)


def test_the_demos_nights_are_as_noisy_as_its_scores_say(bank):
    shape = demo_shape()
    assert bank.means_NS.mean() == pytest.approx(np.mean(shape.scores), rel=0.01)
    deviation = np.std(shape.scores) * np.sqrt(2 * (1 - shape.alike)) / np.sqrt(shape.requests)
    assert bank.relative_error == pytest.approx(deviation / np.mean(shape.scores), rel=0.03)


def test_a_year_of_candidates_one_percent_worse_leaves_97_percent(bank):
    result = year(bank, -0.01)
    assert (result.quality_T > 0.97).mean() >= 0.95
    assert (result.lowest_T > 0.97).mean() >= 0.95


def test_the_margin_alone_lets_quality_decay(bank):
    result = year(bank, -0.01, Policy("margin"), nights=60)
    assert 53 < result.promotions_T.mean() < 58
    assert 0.55 < np.median(result.quality_T) < 0.6


def test_better_candidates_get_through_and_equal_ones_do_not_hurt(bank):
    better, equal = year(bank, 0.02, nights=30), year(bank, 0.0)
    assert (better.first_T <= 30).mean() > 0.97
    assert (equal.first_T <= 90).mean() > 0.95
    assert set(equal.quality_T) == {1.0}


def test_five_percent_worse_never_gets_through(bank):
    assert year(bank, -0.05).promotions_T.sum() <= 0.05 * TRIALS


def test_after_gains_the_budget_is_measured_from_what_was_gained(bank):
    result = simulate(
        bank, lambda night, rng, trials: 0.02 if night < 60 else -0.01, Policy(), trials=TRIALS, nights=365
    )
    assert np.quantile(result.quality_T, 0.05) > 1.05
    assert np.quantile(result.lowest_T, 0.05) > 0.93


def test_a_study_in_small_has_a_row_for_each_effect():
    result = study(demo_shape(), Plan(trials=100, nights=20, effects=(-0.03, 0.0)))
    assert [(row.effect, row.rule, row.nights) for row in result.rows] == [
        (-0.03, "budget", 20), (0.0, "budget", 20), (-0.01, "margin", 20), (-0.01, "margin", 60),
    ]  # fmt: skip
    assert len({len(row) for row in table(result)}) == 1
    assert result.winner.corrected <= result.winner.uncorrected
    assert [(each.kind, each.effect) for each in result.one_night] == [
        ("better", -0.03), ("better", 0.0), ("not_worse", -0.15), ("not_worse", -0.03), ("not_worse", 0.0),
    ]  # fmt: skip
    assert len({len(row) for row in one_night_table(result)}) == 1


def test_what_is_planned_is_enough(bank):
    (need,) = needs(bank, 943, (0.02,), power=0.8, budget=0.03, confidence=0.95, alpha=0.05)
    assert (year(bank, 0.02, nights=need.nights_to_pass).first_T <= need.nights_to_pass).mean() > 0.75
    within = need.requests_per_night["7"]
    larger = draw_bank(replace(demo_shape(), requests=within), nights=400, seed=1)
    assert (year(larger, 0.02, nights=7).first_T <= 7).mean() > 0.75


@pytest.mark.parametrize(("other", "alike"), [(None, 0.5), ([0.0, 1.0, 0.0, 1.0], 0.999), ([1.0, 0.0, 1.0, 0.0], 0.0)])
def test_the_shape_of_a_runs_scores(other, alike):
    shape = shape_of([0.0, 1.0, 0.0, 1.0], other, alike=0.5)
    assert (shape.requests, shape.alike) == (4, pytest.approx(alike))
