"""The loss of the towers: the next item, the item that answers a query, and the teacher's soft labels.

Where items are sampled (`sampled_items` below the catalogue), a step fuses, scores and updates only the items it
touches; otherwise it takes them all (rankline/train/sampled_items.py).

Shapes: B requests, L history events, C candidates, I items, S sampled items, N items encoded with gradients,
T text size, D vector size; rows_T are the items that a step touches.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from components.distill import ranking
from components.distill.config import DistillConfig
from components.distill.encode import EncodedTexts
from components.distill.towers import Towers
from rankline.model import adapters
from rankline.runtime.progress import Progress
from rankline.train.device import pick_autocast
from rankline.train.examples import Examples
from rankline.train.fit import FitSettings, History, Stateful, Trainer, fit
from rankline.train.losses import ItemSampler, next_item_loss, shown_loss
from rankline.train.ranks import graded_ndcg, ndcg_of_ranks
from rankline.train.sampled_items import (
    NO_ITEMS,
    FusedItems,
    ItemInputs,
    SparseItemEmbedding,
    dense_parameters,
    unique_items,
)
from rankline.train.windows import Window, next_weights, pad_windows, window_batches

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Batch = tuple[list[Window], Ints]  # windows over users' events, and the rows of train requests with a query
NO_WINDOWS = torch.zeros(3, 0, 0, dtype=torch.long)


@dataclass(frozen=True)
class TowersInputs:
    """What the towers learn from: the data, the encoded texts, and the teacher's soft labels of train requests."""

    data: Examples
    texts: EncodedTexts
    candidates_RC: Ints
    logits_RC: Floats


@dataclass(frozen=True)
class StepInputs:
    """Everything that one step needs, drawn before it is computed."""

    items_BL: Tensor  # without rows where there are no users
    ratings_BL: Tensor
    next_BL: Tensor
    weight_BL: npt.NDArray[np.float32] | None  # of the next items; None if all weigh alike
    rows_B: Ints
    targets_B: Ints  # one target of each request; empty where no request has a query or declared fields
    queries_BT: Tensor
    fresh_N: Ints
    fresh_NT: Tensor | None
    sampled_S: Ints


class TowersTrainer(Trainer[Batch]):
    """Trains the towers, and the encoder where `train_encoder` asks for it."""

    def __init__(self, model: Towers, inputs: TowersInputs, config: DistillConfig) -> None:
        self.model, self.inputs, self.config = model, inputs, config
        self.data, self.texts, self.device = inputs.data, inputs.texts, inputs.texts.device
        self.train = inputs.data.splits["train"]
        self.first_target_R = np.array([targets[0] for targets in self.train.targets], np.int64)
        self.use_bf16 = pick_autocast(config.precision, self.device)
        self.sampled_items = config.sampled_items if config.sampled_items < len(self.data.item_ids) else 0
        smoothed_I = self.data.counts_I + 1.0
        self.probability_I = np.asarray(smoothed_I / smoothed_I.sum(), np.float64)
        self._sampler = ItemSampler(self.probability_I)
        item_embedding = None
        if self.sampled_items:
            item_embedding = SparseItemEmbedding(model.fusion, learning_rate=config.learning_rate)
        parts: dict[str, Stateful] = {"model": model}
        if config.train_encoder:
            parts["texts"] = self.texts
        rng = np.random.default_rng(config.seed)
        super().__init__(parts, self._optimizer(item_embedding), rng, item_embedding=item_embedding)

    def _optimizer(self, item_embedding: SparseItemEmbedding | None) -> torch.optim.Optimizer:
        """AdamW; the encoder moves at its own, much smaller, rate."""
        config = self.config
        groups: list[dict[str, Any]] = [
            {"params": dense_parameters(self.model, item_embedding), "peak": config.learning_rate}
        ]
        if config.train_encoder:
            groups += adapters.parameter_groups(
                self.texts.encoder.backbone, peak=config.encoder_learning_rate, decay=config.encoder_layer_decay
            )
        return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)

    def batches(self, epoch: int) -> list[Batch]:
        """Batches of windows over users' events, each with some of the train requests that have a query."""
        self.model.train()
        self.texts.encoder.train(self.config.train_encoder)
        rows = self.rng.permutation(self.train.query_rows) if self.data.has_queries else NO_ITEMS
        if not self.data.has_users:
            return [([], part) for part in np.array_split(rows, max(1, -(-len(rows) // self.config.batch_size)))]
        windows = self.data.sequences.windows(self.rng, self.config.max_history)
        if not windows:  # users of one event each, of whom something else is known
            return [([], NO_ITEMS)] * max(1, len(self.train) // self.config.requests_per_step)
        batches = window_batches(windows, self.rng, self.config.batch_size)
        return list(zip(batches, np.array_split(rows, len(batches))))

    def step(self, batch: Batch) -> dict[str, float]:
        step = self._draw(*batch)
        fused = self._item_inputs(step).fuse(self.model.fusion)
        loss = torch.zeros((), device=self.device)
        if len(step.items_BL):
            loss = loss + self._next_item_loss(step, fused)
        left_BD = self.model.left(fused, self.train, step.rows_B, step.queries_BT)
        if len(step.targets_B):
            loss = loss + self._request_loss(step, left_BD, fused)
        loss = loss + self.config.soft_weight * self._soft_loss(step, left_BD, fused)
        if self.train.shown and self.config.shown_weight:
            loss = loss + self.config.shown_weight * self._shown_loss(step, left_BD, fused)
        loss.backward()  # type: ignore[no-untyped-call]
        return {"loss": float(loss.detach())}

    def refresh(self) -> None:
        """Encode every text with the encoder as it is now."""
        if self.config.train_encoder:
            self.texts.encode_items(Progress())
            self.texts.encode_queries()

    def validate(self) -> float:
        """nDCG@10 of the towers alone over all unseen items, by each request's first target or all graded ones."""
        valid = self.data.splits["valid"]
        if valid.target_gains:
            best_RK = ranking.best_items(self.model, valid, self.texts.items_IT, self.texts.queries["valid"], count=10)
            return graded_ndcg(best_RK, valid.targets, valid.target_gains, k=10)
        ranks_R = ranking.target_ranks(self.model, valid, self.texts.items_IT, self.texts.queries["valid"])
        return ndcg_of_ranks(ranks_R, k=10)

    def _draw(self, windows: list[Window], query_rows: Ints) -> StepInputs:
        """Everything random about one step. Without queries, its requests are drawn anew; with declared fields, the
        requests without a query have targets too."""
        rng, config = self.rng, self.config
        rows_B, asked_B = query_rows, query_rows
        if not len(query_rows) or self.model.profile is not None:
            rows_B = np.concatenate([query_rows, rng.integers(0, len(self.train), config.requests_per_step)])
        if self.model.profile is not None:
            asked_B = rows_B
        targets_B = np.array([rng.choice(self.train.targets[row]) for row in asked_B], np.int64)
        fresh_N, fresh_NT = NO_ITEMS, None
        if config.train_encoder:
            hard_BC = self.inputs.candidates_RC[
                rows_B, rng.integers(0, self.inputs.candidates_RC.shape[1], (2, len(rows_B)))
            ]
            chosen = rng.permutation(np.concatenate([targets_B, hard_BC.ravel()]))[: config.encoder_items_per_step]
            fresh_N, fresh_NT, queries_BT = self.texts.encode_with_gradients(
                self.train, rows_B, chosen, use_bf16=self.use_bf16
            )
        else:
            queries_BT = self.texts.queries["train"][torch.from_numpy(rows_B)]
        items_BL, ratings_BL, next_BL = pad_windows(windows) if windows else NO_WINDOWS
        return StepInputs(
            items_BL=items_BL,
            ratings_BL=ratings_BL,
            next_BL=next_BL,
            weight_BL=next_weights(windows),
            rows_B=rows_B,
            targets_B=targets_B,
            queries_BT=queries_BT,
            fresh_N=fresh_N,
            fresh_NT=fresh_NT,
            sampled_S=self._sampler(rng, self.sampled_items),
        )

    def _item_inputs(self, step: StepInputs) -> ItemInputs:
        rows_T = own_TD = None
        if self.item_embedding is not None:
            next_items, histories_BL = step.next_BL[step.next_BL >= 0], self.train.items_RL[step.rows_B]
            candidates_BC = self.inputs.candidates_RC[step.rows_B]
            shown_BC = self._shown(step)[0] if self.train.shown else NO_ITEMS
            rows_T = unique_items(
                step.items_BL,
                next_items,
                histories_BL,
                candidates_BC,
                step.targets_B,
                step.fresh_N,
                step.sampled_S,
                shown_BC,
            )
            own_TD = self.item_embedding.gather(rows_T)
        return ItemInputs(
            self.texts.items_IT, self.model.side_IS, rows_T, own_TD=own_TD, fresh_N=step.fresh_N, fresh_NT=step.fresh_NT
        )

    def _next_item_loss(self, step: StepInputs, fused: FusedItems) -> Tensor:
        """Ground truth of users: the next item at every position."""
        is_target_BL = (step.next_BL >= 0).to(self.device)
        hidden_BLD = self.model.tower.hidden(fused.lookup(step.items_BL.numpy()), step.ratings_BL.to(self.device))
        return next_item_loss(
            hidden_BLD[is_target_BL],
            fused,
            step.next_BL.to(self.device)[is_target_BL],
            sampled_S=step.sampled_S,
            probability_I=self.probability_I,
            weight_N=None if step.weight_BL is None else step.weight_BL[step.next_BL.numpy() >= 0],
        )

    def _request_loss(self, step: StepInputs, left_BD: Tensor, fused: FusedItems) -> Tensor:
        """Ground truth of queries, and of what is known of a user and of a request: a target among other items."""
        other_targets = [
            np.setdiff1d(self.train.targets[row], target) for row, target in zip(step.rows_B, step.targets_B)
        ]
        return next_item_loss(
            left_BD,
            fused,
            torch.from_numpy(step.targets_B).to(self.device),
            sampled_S=step.sampled_S,
            probability_I=self.probability_I,
            other_targets=other_targets,
            weight_N=self.train.weights(step.rows_B, step.targets_B) if self.train.target_weights else None,
        )

    def _shown(self, step: StepInputs) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """A target of each request, then what was shown with it."""
        targets_B = step.targets_B if len(step.targets_B) else self.first_target_R[step.rows_B]
        return self.train.target_and_shown(step.rows_B, targets_B)

    def _shown_loss(self, step: StepInputs, left_BD: Tensor, fused: FusedItems) -> Tensor:
        """Negatives of requests: the target before what was shown with it and not chosen."""
        items_BC, real_BC = self._shown(step)
        scores_BC = torch.einsum("bd,bcd->bc", left_BD, fused.lookup(items_BC))
        return shown_loss(scores_BC, real_BC, self.train.weights(step.rows_B, items_BC[:, 0]))

    def _soft_loss(self, step: StepInputs, left_BD: Tensor, fused: FusedItems) -> Tensor:
        """Distillation: the teacher's logits of some candidates (Hinton et al. 2015)."""
        temperature = self.config.temperature
        student_BC = torch.einsum("bd,bcd->bc", left_BD, fused.lookup(self.inputs.candidates_RC[step.rows_B]))
        teacher_BC = torch.from_numpy(self.inputs.logits_RC[step.rows_B]).to(self.device)
        divergence = F.kl_div(
            F.log_softmax(student_BC / temperature, -1),
            F.log_softmax(teacher_BC / temperature, -1),
            log_target=True,
            reduction="batchmean",
        )
        return temperature**2 * divergence


def train(
    model: Towers, inputs: TowersInputs, config: DistillConfig, *, progress: Progress, checkpoints: Path | None
) -> tuple[History, tuple[int, int]]:
    """Train the towers and leave their best state in ``model``, on the CPU; (the history, trained and all weights
    of the encoder).

    With ``config.train_encoder`` the encoder of the texts is trained as well and left at its best.

    Raises:
        TrainingError: the loss is not a number.
        UsageError: the encoder has no layers for the adapters.
    """
    texts = inputs.texts
    model.to(texts.device)
    if config.train_encoder:
        texts.prepare_training(config)
    # the untuned encoder is a good start for queries
    settings = FitSettings.of(config, validate_start=inputs.data.has_queries, section="distill")
    progress.phase("training the towers")
    history = fit(TowersTrainer(model, inputs, config), settings, checkpoints=checkpoints, progress=progress)
    model.cpu().eval()
    encoder_weights = adapters.count_parameters(texts.encoder)
    if config.train_encoder:
        texts.finish_training()
    return history, encoder_weights
