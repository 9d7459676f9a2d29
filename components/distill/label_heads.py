"""The heads of the labels: their losses, and their outputs.

They learn from what the validation requests showed, as the scorer learns from those requests. A head's bias per
position explains the clicks that an item has only because it was shown on top; it is no part of what serves.

Shapes: B impressions of a batch, N impressions, K labels, P positions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.distill.config import DistillConfig
from components.distill.impressions import Impressions
from rankline.errors import TooSmall
from rankline.evaluation.snapshot_requests import EXPOSURES
from rankline.labels import Label
from rankline.model.networks import LabelHeads
from rankline.model.scoring import Catalogue
from rankline.runtime.progress import Progress
from rankline.train.fit import FitSettings, Trainer, fit

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
WARM_UP = 0.05
ROWS_PER_BATCH = 4096  # impressions scored at once
SAMPLED_ROWS = 50_000  # impressions that the inputs are standardized by
CERTAIN = -1e-6  # the largest log of a product of two chances


@dataclass(frozen=True)
class TrainedHeads:
    """The heads with what a position adds to each binary label's logit [K, P], and each label's scale."""

    model: LabelHeads
    positions_P: Ints
    offsets_KP: Doubles
    mean_K: Doubles
    spread_K: Doubles


class PositionBias(nn.Module):
    """What a position adds to the logit of each label; zero in the mean over the impressions.

    It adds to binary labels that come after no other: who clicked has looked already.
    """

    def __init__(self, labels: Iterable[Label], share_P: Doubles) -> None:
        super().__init__()
        self.share_P: Tensor
        self.placed_K1: Tensor
        placed = [[float(label.type == "binary" and not label.after)] for label in labels]
        self.register_buffer("share_P", torch.from_numpy(share_P).float())
        self.register_buffer("placed_K1", torch.tensor(placed))
        self.table_KP = nn.Parameter(torch.zeros(len(placed), len(share_P)))

    def forward(self) -> Tensor:
        """[K, P]"""
        centred_KP: Tensor = self.table_KP - (self.table_KP * self.share_P).sum(1, keepdim=True)
        return centred_KP * self.placed_K1


class LabelTrainer(Trainer[Ints]):
    """Trains the heads of the labels; a batch holds rows of the impressions."""

    def __init__(
        self, model: LabelHeads, data: Impressions, rows: Ints, catalogue: Catalogue, config: DistillConfig
    ) -> None:
        self.model, self.data, self.rows, self.catalogue, self.config = model, data, rows, catalogue, config
        self.labels = dict(data.labels)
        outcomes_NK = np.stack(list(data.outcomes.values()), 1)
        self.mean_K, self.spread_K = _scales(outcomes_NK[rows], self.labels)
        scaled_NK = (outcomes_NK - self.mean_K) / self.spread_K
        self.targets_NK = torch.from_numpy(np.nan_to_num(scaled_NK)).float()
        self.known_NK = torch.from_numpy(~np.isnan(outcomes_NK))
        self.positions_P, self.place_N = np.unique(data.positions_N, return_inverse=True)
        share_P = np.bincount(self.place_N[rows], minlength=len(self.positions_P)) / len(rows)
        self.bias = PositionBias(self.labels.values(), share_P)
        self.use_bias = config.position_bias and bool((data.positions_N > 0).any())
        self.device = next(model.parameters()).device
        self.bias.to(self.device)
        groups: list[dict[str, Any]] = [
            {"params": list(model.parameters())},
            {"params": list(self.bias.parameters()), "weight_decay": 0.0, "peak": 10 * config.label_learning_rate},
        ]
        optimizer = torch.optim.AdamW(groups, lr=config.label_learning_rate, weight_decay=config.label_weight_decay)
        super().__init__({"labels": model, "bias": self.bias}, optimizer, np.random.default_rng(config.seed))

    def batches(self, epoch: int) -> list[Ints]:
        """The impressions in random order."""
        self.model.train()
        order, size = self.rng.permutation(self.rows), self.config.label_batch_size
        return [order[start : start + size] for start in range(0, len(order), size)]

    def step(self, batch: Ints) -> dict[str, float]:
        """The gradients of one step: the sum of the labels' losses, each over the impressions where it is known."""
        inputs = [tensor.to(self.device) for tensor in self.data.batch(batch, self.catalogue)]
        outputs_BK = self.model(*inputs)[:, 0]
        if self.use_bias:
            outputs_BK = outputs_BK + self.bias()[:, torch.from_numpy(self.place_N[batch]).to(self.device)].T
        targets_BK, known_BK = self.targets_NK[batch].to(self.device), self.known_NK[batch].to(self.device)
        loss = torch.stack([self._loss(k, outputs_BK, targets_BK, known_BK) for k in range(len(self.labels))]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return {"loss": float(loss.detach())}

    def _loss(self, k: int, outputs_BK: Tensor, targets_BK: Tensor, known_BK: Tensor) -> Tensor:
        """Cross-entropy of a binary label, over all impressions also if it comes after another one (ESMM: Ma et al.
        2018); squared error of another label on its standardized scale, where the label before it happened."""
        names, label = list(self.labels), list(self.labels.values())[k]
        known_B, target_B = known_BK[:, k], targets_BK[:, k]
        if label.type != "binary":
            return _mean((outputs_BK[:, k] - target_B) ** 2, known_B)
        if not label.after:
            loss_B = F.binary_cross_entropy_with_logits(outputs_BK[:, k], target_B, reduction="none")
            return _mean(loss_B, known_B)
        log_B, name = F.logsigmoid(outputs_BK[:, k]), label.after
        while name:
            log_B, name = log_B + F.logsigmoid(outputs_BK[:, names.index(name)]), self.labels[name].after
        log_B = log_B.clamp(max=CERTAIN)
        return _mean(-(target_B * log_B + (1 - target_B) * torch.log1p(-log_B.exp())), known_B)


def train(
    data: Impressions, rows: Ints, catalogue: Catalogue, config: DistillConfig, *, device: torch.device
) -> TrainedHeads:
    """Train the heads on some of the impressions, in as many steps as on all of them; the heads on the CPU.

    With fewer steps the heads of a fold would be less sure than the ones that serve, which are calibrated by them.
    """
    if not len(rows):
        raise TooSmall(
            "there are too few requests to calibrate the heads of the labels",
            expected=f"at least {config.calibration_folds} validation requests that show items",
            found=f"{len(data.left_RD)}, with {len(data.items_N)} impressions",
            where=EXPOSURES,
            hint="provide more requests, or set distill.calibration_folds lower",
        )
    torch.manual_seed(config.seed)
    model = LabelHeads(
        size=data.left_RD.shape[1],
        features=data.features_NF.shape[1],
        hidden=config.label_hidden,
        dropout=config.label_dropout,
        labels=len(data.labels),
    )
    sample = np.random.default_rng(config.seed).permutation(rows)[:SAMPLED_ROWS]
    left_BD, items_BCD, features_BCF = data.batch(sample, catalogue)
    model.fit_standardize(left_BD, items_BCD, features_BCF, data.left_out)
    trainer = LabelTrainer(model.to(device), data, rows, catalogue, config)
    settings = FitSettings(
        epochs=round(config.label_epochs * len(data.items_N) / len(rows)),
        learning_rate=config.label_learning_rate,
        warm_up=WARM_UP,
        section="distill",
        rate_setting="label_learning_rate",
    )
    fit(trainer, settings, checkpoints=None, progress=Progress())
    model.cpu().eval()
    with torch.no_grad():
        offsets_KP = trainer.bias().cpu().double().numpy()
    return TrainedHeads(model, trainer.positions_P, offsets_KP, trainer.mean_K, trainer.spread_K)


@torch.no_grad()
def outputs(model: LabelHeads, data: Impressions, rows: Ints, catalogue: Catalogue) -> Doubles:
    """[N, K] the heads' outputs for some impressions."""
    parts = [
        model(*data.batch(rows[start : start + ROWS_PER_BATCH], catalogue))[:, 0].double().numpy()
        for start in range(0, len(rows), ROWS_PER_BATCH)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, len(data.labels)))


def _scales(outcomes_NK: Doubles, labels: dict[str, Label]) -> tuple[Doubles, Doubles]:
    """[K] the mean and the standard deviation of each label that is not binary; 0 and 1 for a binary one."""
    binary_K = np.array([label.type == "binary" for label in labels.values()])
    mean_K, spread_K = np.nanmean(outcomes_NK, 0), np.nanstd(outcomes_NK, 0)
    return np.where(binary_K, 0.0, mean_K), np.where(binary_K | (spread_K < 1e-9), 1.0, spread_K)


def _mean(loss_B: Tensor, known_B: Tensor) -> Tensor:
    return torch.where(known_B, loss_B, 0.0).sum() / known_B.sum().clamp(min=1)
