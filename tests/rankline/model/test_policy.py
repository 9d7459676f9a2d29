import numpy as np

from rankline.model.policy import SOFTMAX_CANDIDATES, Calibration

NAMES = ["towers_score", "other"]


def calibration(**weights: float) -> Calibration:
    return Calibration(share_weight=1.0, feature_weights=weights, bias=0.0)


def test_with_the_share_alone_the_chances_are_the_softmax() -> None:
    logits = np.array([2.0, 1.0, -1.0], np.float32)
    chances = calibration().probabilities(logits, np.zeros((3, 2), np.float32), NAMES)
    softmax = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(chances, softmax, rtol=1e-5)


def test_the_number_of_other_candidates_does_not_change_the_probability() -> None:
    few = np.linspace(3, 0, SOFTMAX_CANDIDATES).astype(np.float32)
    many = np.concatenate([few, np.full(500, -0.5, np.float32)])
    of_few = calibration().probabilities(few, np.zeros((len(few), 2), np.float32), NAMES)
    of_many = calibration().probabilities(many, np.zeros((len(many), 2), np.float32), NAMES)
    np.testing.assert_allclose(of_many[: len(few)], of_few, rtol=1e-6)
    assert (np.diff(of_many) <= 0).all()


def test_a_feature_can_lower_every_probability() -> None:
    logits = np.array([4.0, 0.0], np.float32)
    near, far = np.array([[0.9, 0], [0.1, 0]], np.float32), np.array([[0.1, 0], [0.1, 0]], np.float32)
    sure = calibration(towers_score=5.0)
    assert sure.probabilities(logits, near, NAMES)[0] > sure.probabilities(logits, far, NAMES)[0]


def test_a_single_candidate_is_judged_too() -> None:
    chance = calibration().probabilities(np.array([0.3], np.float32), np.zeros((1, 2), np.float32), NAMES)
    assert 0.99 < chance[0] <= 1.0
