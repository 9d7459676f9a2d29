"""Calibration of the student, and the threshold below which it abstains."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from components.distill import calibration
from rankline.model.policy import POLICY_FILE, ServingPolicy
from tests.conftest import SmokeRun


def test_the_regression_finds_the_weights_that_made_the_data() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(20_000, 2)) * [1.0, 5.0]
    right = rng.random(len(inputs)) < 1 / (1 + np.exp(-(inputs @ [1.5, -0.2] + 0.4)))
    weights, bias = calibration._fit_logistic_regression(inputs, right)
    np.testing.assert_allclose([*weights, bias], [1.5, -0.2, 0.4], atol=0.08)


def test_a_column_that_never_changes_does_no_harm() -> None:
    rng = np.random.default_rng(0)
    inputs = np.stack([rng.normal(size=500), np.full(500, 3.0)], 1)
    weights, bias = calibration._fit_logistic_regression(inputs, inputs[:, 0] > 0)
    assert np.isfinite([*weights, bias]).all()


@pytest.mark.parametrize(
    ("wanted", "threshold", "precision", "answered"),
    [(0.9, 0.8, 1.0, 0.4), (0.7, 0.6, 0.75, 0.8), (0.3, 0.5, 0.6, 1.0)],
)
def test_the_threshold_is_the_lowest_that_is_right_often_enough(
    wanted: float, threshold: float, precision: float, answered: float
) -> None:
    chances, right = np.array([0.6, 0.9, 0.7, 0.8, 0.5]), np.array([True, True, False, True, False])
    assert calibration._choose_threshold(chances, right, wanted=wanted) == (threshold, precision, answered)


def test_where_no_threshold_reaches_the_precision_the_best_one_is_taken() -> None:
    chances, right = np.array([0.9, 0.8, 0.7, 0.6]), np.array([False, True, False, False])
    threshold, precision, _ = calibration._choose_threshold(chances, right, wanted=0.9)
    assert (threshold, precision) == (0.8, 0.5)


@pytest.mark.integration
def test_a_run_leaves_a_policy_that_the_bundle_serves(answers: SmokeRun) -> None:
    student, bundle = answers.artifact("distill", "student"), answers.artifact("export", "bundle")
    assert (student / POLICY_FILE).read_bytes() == (bundle / POLICY_FILE).read_bytes()
    policy = ServingPolicy.model_validate_json((bundle / POLICY_FILE).read_text())
    assert policy.calibration is not None
    assert set(policy.calibration.feature_weights) == {"towers_score", "bm25_log"}
    assert 0 < policy.abstain_below < 1


@pytest.mark.integration
def test_likely_answers_are_right_and_it_abstains_without_one(answers: SmokeRun) -> None:
    numbers = json.loads((answers.artifact("evaluate", "report") / "report.json").read_text())["calibration"]
    assert numbers["chance_ece"] < 0.15
    assert numbers["answered_precision"] > 0.75
    assert numbers["answered_share"] > 0.3
    assert numbers["silent_without_answer"] > 0.7


def test_without_calibration_there_is_no_chance_and_no_abstention(smoke: SmokeRun) -> None:
    folder: Path = smoke.artifact("export", "bundle")
    assert ServingPolicy.model_validate_json((folder / POLICY_FILE).read_text()) == ServingPolicy()
