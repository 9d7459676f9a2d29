"""The sampled softmax."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rankline.train.losses import ItemSampler, next_item_loss, shown_loss
from rankline.train.sampled_items import FusedItems


@pytest.mark.parametrize("skew", [0.0, 0.7])
def test_the_sampled_softmax_is_the_full_one_on_average(skew: float) -> None:
    """Value and gradient agree on average, however uneven the sampling."""
    torch.manual_seed(0)
    hidden_ND, fused_ID = torch.randn(8, 6) * 0.5, torch.randn(200, 6)
    next_N = torch.arange(8)  # with the skew, the targets are sampled most often
    probability_I = 1.0 / np.arange(1, 201) ** skew
    probability_I /= probability_I.sum()
    rng = np.random.default_rng(0)

    def loss_and_gradient(sampled: int) -> tuple[float, torch.Tensor]:
        fused = fused_ID.clone().requires_grad_()
        sampled_S = ItemSampler(probability_I)(rng, sampled)
        loss = next_item_loss(hidden_ND, FusedItems(fused), next_N, sampled_S=sampled_S, probability_I=probability_I)
        loss.backward()
        assert fused.grad is not None
        return loss.item(), fused.grad

    expected, direction = loss_and_gradient(0)
    draws = [loss_and_gradient(120) for _ in range(400)]
    gradient = torch.stack([each for _, each in draws]).mean(0)
    assert np.mean([loss for loss, _ in draws]) == pytest.approx(expected, rel=0.03)
    assert (gradient - direction).norm() < 0.25 * direction.norm()


def test_with_no_samples_it_is_the_full_softmax() -> None:
    torch.manual_seed(0)
    hidden_ND, fused_ID, next_N = torch.randn(8, 6), torch.randn(40, 6), torch.arange(8)
    none, probability_I = np.zeros(0, np.int64), np.full(40, 1 / 40)
    loss = next_item_loss(hidden_ND, FusedItems(fused_ID), next_N, sampled_S=none, probability_I=probability_I)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(hidden_ND @ fused_ID.T, next_N))


def test_the_loss_within_a_request_is_a_softmax_over_what_it_showed() -> None:
    scores_BC = torch.tensor([[1.0, 0.5, 2.0], [0.3, 9.0, 9.0], [0.0, 1.0, 7.0]])
    real_BC = np.array([[True, True, True], [True, False, False], [True, True, False]])
    weights = np.array([2.0, 1.0, 0.5], np.float32)
    first = np.log(np.exp([1.0, 0.5, 2.0]).sum()) - 1.0
    third = np.log1p(np.e)
    assert shown_loss(scores_BC, real_BC, weights).item() == pytest.approx((2 * first + 0 + 0.5 * third) / 3, rel=1e-5)


@pytest.mark.parametrize("sampled_S", [np.zeros(0, np.int64), np.array([5, 6, 7])])
def test_weights_weigh_the_positions(sampled_S: np.ndarray) -> None:
    torch.manual_seed(0)
    hidden_ND, fused_ID, next_N = torch.randn(2, 6), torch.randn(40, 6), torch.arange(2)

    def loss(rows: list[int], weight_N: np.ndarray | None) -> float:
        return next_item_loss(
            hidden_ND[rows], FusedItems(fused_ID), next_N[rows], sampled_S=sampled_S,
            probability_I=np.full(40, 1 / 40), weight_N=weight_N,
        ).item()  # fmt: skip

    first, second = loss([0], None), loss([1], None)
    assert loss([0, 1], np.array([1.5, 0.5], np.float32)) == pytest.approx((1.5 * first + 0.5 * second) / 2, rel=1e-5)
    assert loss([0, 1], np.ones(2, np.float32)) == pytest.approx(loss([0, 1], None), rel=1e-5)
