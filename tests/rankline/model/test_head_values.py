"""From the outputs of heads to chances and values."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rankline.model.head_values import CurvePoint, HeadPolicy, PositionShare, head_values
from rankline.model.policy import ServingPolicy

LOGITS = np.array([-2.0, 0.0, 1.5])


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def test_a_chance_is_the_scaled_logit_through_a_sigmoid() -> None:
    heads = {"click": HeadPolicy(type="binary", weight=0.5, bias=-1.0)}
    np.testing.assert_allclose(head_values({"click": LOGITS}, heads)["click"], sigmoid(0.5 * LOGITS - 1))


def test_a_chance_is_the_mean_over_the_positions_of_the_log_or_that_of_one() -> None:
    places = [PositionShare(position=1, share=0.25, offset=1.0), PositionShare(position=3, share=0.75, offset=-1.0)]
    heads = {"click": HeadPolicy(type="binary", positions=places)}
    expected = 0.25 * sigmoid(LOGITS + 1) + 0.75 * sigmoid(LOGITS - 1)
    np.testing.assert_allclose(head_values({"click": LOGITS}, heads)["click"], expected)
    at_position = head_values({"click": LOGITS}, heads, np.array([1, 3, 1]))["click"]
    np.testing.assert_allclose(at_position, sigmoid(LOGITS + np.array([1, -1, 1])))


def test_a_curve_bends_a_logit_and_goes_straight_on_beyond_its_ends() -> None:
    curve = [CurvePoint(logit=-1.0, calibrated=-2.0), CurvePoint(logit=1.0, calibrated=0.0)]
    heads = {"click": HeadPolicy(type="binary", curve=curve)}
    np.testing.assert_allclose(head_values({"click": LOGITS}, heads)["click"], sigmoid(np.array([-3.0, -1.0, 0.5])))


def test_what_comes_after_something_is_never_likelier_than_it() -> None:
    heads = {
        "order": HeadPolicy(type="binary", after="cart"),
        "cart": HeadPolicy(type="binary", after="click"),
        "click": HeadPolicy(type="binary"),
    }
    values = head_values({"click": LOGITS, "cart": LOGITS[::-1], "order": LOGITS}, heads)
    np.testing.assert_allclose(values["cart"], sigmoid(LOGITS) * sigmoid(LOGITS[::-1]))
    np.testing.assert_allclose(values["order"], values["cart"] * sigmoid(LOGITS))


def test_a_value_is_in_the_labels_own_unit_and_within_its_scale() -> None:
    heads = {"rating": HeadPolicy(type="graded", weight=2.0, bias=6.0, low=1.0, high=8.0)}
    assert head_values({"rating": LOGITS}, heads)["rating"].tolist() == [2.0, 6.0, 8.0]


def test_a_policy_without_labels_has_the_bytes_that_it_always_had() -> None:
    assert json.loads(ServingPolicy().model_dump_json()) == {"calibration": None, "abstain_below": 0.0}
    policy = ServingPolicy(heads={"click": HeadPolicy(type="binary", weight=0.5)}, order="click")
    assert ServingPolicy.model_validate_json(policy.model_dump_json()) == policy


def test_a_policy_of_an_earlier_version_is_read() -> None:
    assert ServingPolicy.model_validate_json('{"calibration": null, "abstain_below": 0.25}').heads == {}


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_one(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        PositionShare(position=1, share=share, offset=0.0)
