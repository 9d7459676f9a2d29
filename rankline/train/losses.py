"""The next-item loss, over the whole catalogue or over sampled items, and the loss within a request.

Shapes: N positions, B requests, C candidates, D vector size, I items, T items that a step touches, S sampled items.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from rankline.train.sampled_items import FusedItems

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Probabilities = npt.NDArray[np.float64]
EXCLUDED = -1e4  # the logit of an item that does not count


class ItemSampler:
    """Draws items by their probabilities: the same ones as ``rng.choice(…, p=probability_I)``, at less cost."""

    def __init__(self, probability_I: Probabilities) -> None:
        self.cumulative_I = probability_I.cumsum()
        self.cumulative_I /= self.cumulative_I[-1]

    def __call__(self, rng: np.random.Generator, count: int) -> Ints:
        """[count] item rows."""
        sampled: Ints = self.cumulative_I.searchsorted(rng.random(count), side="right")
        return sampled


def next_item_loss(
    hidden_ND: Tensor,
    fused: FusedItems,
    next_N: Tensor,
    *,
    sampled_S: Ints,
    probability_I: Probabilities,
    other_targets: Sequence[Ints] = (),
    weight_N: Floats | None = None,
) -> Tensor:
    """Softmax cross-entropy over the catalogue, or its estimate from sampled items (Bengio & Senecal 2008).

    Subtracting the log of how often a sampled item is expected corrects for popular items being drawn often.

    Args:
        next_N: the target of each position.
        sampled_S: items drawn with ``probability_I``; empty for the whole catalogue.
        other_targets: for each position, the items that are right as well and do not count as negatives.
        weight_N: the weight of each position in the loss.
    """
    device = fused.vectors_TD.device
    if not len(sampled_S):
        scores_NI = hidden_ND @ fused.vectors_TD.T
        for row, positives in enumerate(other_targets):
            scores_NI[row, torch.from_numpy(positives).to(device)] = EXCLUDED
        return _weighted_mean(scores_NI, next_N, weight_N)

    sampled = torch.from_numpy(sampled_S).to(device)
    log_expected_S = torch.from_numpy(np.log(probability_I[sampled_S] * len(sampled_S))).float().to(device)
    target_N1 = (hidden_ND * fused.lookup(next_N.cpu().numpy())).sum(-1, keepdim=True)
    others_NS = hidden_ND @ fused.lookup(sampled_S).T - log_expected_S
    is_target_NS = sampled.unsqueeze(0) == next_N.unsqueeze(1)  # the target has its own logit already
    if len(other_targets):
        is_positive_NS = np.stack([np.isin(sampled_S, positives) for positives in other_targets])
        is_target_NS |= torch.from_numpy(is_positive_NS).to(device)
    others_NS = others_NS.masked_fill(is_target_NS, EXCLUDED)
    return _weighted_mean(torch.cat([target_N1, others_NS], 1), torch.zeros_like(next_N), weight_N)


def shown_loss(scores_BC: Tensor, real_BC: npt.NDArray[np.bool_], weight_B: Floats) -> Tensor:
    """Softmax cross-entropy of each request's target, in the first column, among what was shown with it.

    A request that showed nothing else counts as 0 in the mean; places without an item are left out.
    """
    real = torch.from_numpy(real_BC).to(scores_BC.device)
    first_B = torch.zeros(len(scores_BC), dtype=torch.long, device=scores_BC.device)
    return _weighted_mean(scores_BC.masked_fill(~real, EXCLUDED), first_B, weight_B)


def _weighted_mean(scores_NC: Tensor, target_N: Tensor, weight_N: Floats | None) -> Tensor:
    """The mean cross-entropy, each row with its weight."""
    if weight_N is None:
        return F.cross_entropy(scores_NC, target_N)
    weights = torch.from_numpy(weight_N).to(scores_NC.device)
    return (F.cross_entropy(scores_NC, target_N, reduction="none") * weights).mean()
