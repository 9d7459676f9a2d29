"""The loss of the sequence teacher: which item comes next, and which of some candidates was chosen.

Shapes: B windows or requests, L history events, C candidates, N items encoded with gradients, I items,
T text size, D vector size, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from components.finetune.context import TrainingContext
from components.finetune.language.masked_lm import MaskedLanguageModel
from components.finetune.sequence import augment
from components.finetune.sequence.inputs import StepInputs, StepSampler, TeacherInputs
from components.finetune.sequence.rankings import CandidateBatch, TeacherEnsemble, rank_all, score_candidates
from rankline.features.label_values import liked_from
from rankline.model import adapters
from rankline.model.networks import Teacher
from rankline.runtime.progress import Progress
from rankline.train.encode import encode_all
from rankline.train.fit import Stateful, TensorState, Trainer
from rankline.train.losses import next_item_loss, shown_loss
from rankline.train.ranks import graded_ndcg, ndcg_of_ranks
from rankline.train.sampled_items import FusedItems, ItemInputs, SparseItemEmbedding, dense_parameters
from rankline.train.windows import Window, window_batches

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class EncodedItems:
    """The items of a step as the encoder reads them; each process encodes its own rows of them."""

    local_rows: slice
    local_NT: Tensor
    fresh_NT: Tensor
    language_loss: Tensor


class SequenceTrainer(Trainer[list[Window]]):
    """Trains a teacher, and its encoder where ``masked_lm`` holds one."""

    def __init__(
        self,
        model: Teacher,
        masked_lm: MaskedLanguageModel | None,
        inputs: TeacherInputs,
        context: TrainingContext,
        *,
        seed: int,
        rng: np.random.Generator,
    ) -> None:
        self.model, self.masked_lm, self.inputs, self.context, self.seed = model, masked_lm, inputs, context, seed
        self.data, self.config, self.device = inputs.data, context.config, context.device
        self.text = TensorState(inputs.text_IT.clone() if masked_lm is not None else inputs.text_IT)
        self.sampler = StepSampler(inputs.data, masked_lm, self.config)
        # negatives are drawn as often as items occur (softened), and the loss is corrected for it
        expected_I = np.log(self.sampler.probability_I * self.config.negatives)
        self.log_expected_I = torch.from_numpy(expected_I).float().to(self.device)
        self.like_R = np.array([ratings[0] for ratings in self.sampler.train.target_ratings], np.float32)
        weights = self.sampler.train.target_weights
        self.weight_R = np.array([of[0] for of in weights], np.float32) if weights else None
        self.liked = liked_from(inputs.data.summary)
        parts: dict[str, Stateful] = {"model": model}
        if masked_lm is not None:
            parts |= {"masked_lm": masked_lm, "text": self.text}
        item_embedding = None
        if self.config.sampled_items:
            item_embedding = SparseItemEmbedding(model.fusion, learning_rate=self.config.learning_rate)
        super().__init__(
            parts, self._optimizer(item_embedding), rng, item_embedding=item_embedding, distributed=context.distributed
        )

    def _optimizer(self, item_embedding: SparseItemEmbedding | None) -> torch.optim.Optimizer:
        """AdamW; the encoder moves at its own, much smaller, rate."""
        config = self.config
        groups: list[dict[str, Any]] = [
            {"params": dense_parameters(self.model, item_embedding), "peak": config.learning_rate}
        ]
        if self.masked_lm is not None:
            groups += adapters.parameter_groups(
                self.masked_lm.reader.backbone, peak=config.encoder_learning_rate, decay=config.encoder_layer_decay
            )
            groups.append({"params": list(self.masked_lm.transform.parameters()), "peak": config.encoder_learning_rate})
        return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)

    def batches(self, epoch: int) -> list[list[Window]]:
        """Batches of augmented windows over the users' events."""
        self.distributed.reseed(self.seed, epoch)
        self.model.train()
        windows = self.data.sequences.windows(self.rng, self.config.max_history)
        if not windows:  # users of one event each, of whom something else is known
            return [[]] * max(1, len(self.sampler.train) // self.config.requests_per_step)
        windows = augment.augment_windows(windows, self.rng, self.config)
        return window_batches(windows, self.rng, self.config.batch_size)

    def step(self, batch: list[Window]) -> dict[str, float]:
        """The gradients of one step: the ranking losses, and the masked-language-model loss of the encoder."""
        step = self.sampler.draw(batch, self.rng)
        encoded = self._encode_items(step)
        item_inputs = self._item_inputs(step, encoded)
        losses = torch.zeros(2, device=self.device)
        for part in self.distributed.slices(self.config.accumulate):
            loss = self._ranking_loss(step, part, item_inputs.fuse(self.model.fusion))
            if loss.requires_grad:
                loss.backward()  # type: ignore[no-untyped-call]
            losses[0] += loss.detach()
        if encoded is not None:
            self._backward_encoder(encoded)
            losses[1] = encoded.language_loss.detach()
        self.distributed.all_reduce([losses])
        total = float(losses[0]) + self.config.language_weight * float(losses[1])
        return {"loss": total} if self.masked_lm is None else {"loss": total, "language_loss": float(losses[1])}

    def refresh(self) -> None:
        """Encode every item with the encoder as it is now."""
        if self.masked_lm is not None:
            self.text.tensor = encode_all(
                self.inputs.encoder,
                self.inputs.tokenizer,
                self.data.item_texts,
                device=self.device,
                progress=Progress(),
                distributed=self.distributed,
            )

    def validate(self) -> float:
        """nDCG@10 over the whole catalogue, by all targets where they are graded."""
        ensemble = TeacherEnsemble([(self.model, self.text.tensor)], self.inputs.side_IS)
        valid = self.data.splits["valid"]
        ranked = rank_all(ensemble, self.data, valid, distributed=self.distributed)
        if valid.target_gains:
            return graded_ndcg(ranked.best_RK, valid.targets, valid.target_gains, k=10)
        return ndcg_of_ranks(ranked.target_ranks, k=10)

    def _encode_items(self, step: StepInputs) -> EncodedItems | None:
        """Encode some items of a step with gradients, each in one process; the other items keep their vectors."""
        if self.masked_lm is None or step.masked is None:
            return None
        local_rows = slice(self.distributed.rank, None, self.distributed.world_size)
        local = step.masked.part(local_rows)
        local_NT, language_loss = self.masked_lm(local, use_bf16=self.context.use_bf16, device=self.device)
        language_loss = language_loss * (local.target_BW.sum() / max(1, step.masked.target_BW.sum()))
        fresh_NT = self.distributed.gather_rows(local_NT.detach(), len(step.fresh_N)).requires_grad_()
        self.text.tensor[torch.from_numpy(step.fresh_N).to(self.device)] = fresh_NT.detach()
        return EncodedItems(local_rows, local_NT, fresh_NT, language_loss)

    def _item_inputs(self, step: StepInputs, encoded: EncodedItems | None) -> ItemInputs:
        rows_T = own_TD = None
        if self.item_embedding is not None:
            rows_T = self.sampler.step_items(step)
            own_TD = self.item_embedding.gather(rows_T)
        return ItemInputs(
            self.text.tensor,
            self.inputs.side_IS,
            rows_T,
            own_TD=own_TD,
            fresh_N=step.fresh_N,
            fresh_NT=encoded.fresh_NT if encoded is not None else None,
        )

    def _ranking_loss(self, step: StepInputs, part: slice, fused: FusedItems) -> Tensor:
        """The loss of one part of a step, as a share of the whole."""
        next_loss = self._next_item_loss(step, part, fused)
        click_loss, like_loss = self._candidate_losses(step, part, fused)
        if self.sampler.train.shown and self.config.shown_weight:
            click_loss = click_loss + self.config.shown_weight * self._shown_loss(step, part, fused)
        loss: Tensor = click_loss + self.config.next_item_weight * next_loss + self.config.like_weight * like_loss
        return loss

    def _next_item_loss(self, step: StepInputs, part: slice, fused: FusedItems) -> Tensor:
        """What comes next, at every position, among all items."""
        if not step.next_BL.size:
            return torch.zeros((), device=self.device)
        next_BL = torch.from_numpy(step.next_BL[part]).to(self.device)
        events_BLD = fused.lookup(step.items_BL[part])
        if step.visible_BL is not None:
            events_BLD = events_BLD * torch.from_numpy(step.visible_BL[part]).to(self.device).unsqueeze(-1)
        hidden_BLD = self.model.tower.hidden(events_BLD, torch.from_numpy(step.ratings_BL[part]).to(self.device))
        is_target_BL = next_BL >= 0
        share = float(is_target_BL.sum()) / float((step.next_BL >= 0).sum())
        if not share:
            return torch.zeros((), device=self.device)
        loss = next_item_loss(
            hidden_BLD[is_target_BL],
            fused,
            next_BL[is_target_BL],
            sampled_S=step.sampled_S,
            probability_I=self.sampler.probability_I,
            weight_N=None if step.weight_BL is None else step.weight_BL[part][step.next_BL[part] >= 0],
        )
        return loss * share

    def _candidate_losses(self, step: StepInputs, part: slice, fused: FusedItems) -> tuple[Tensor, Tensor]:
        """Which of some candidates was chosen, and whether it was liked, given everything."""
        rows_B = step.rows_B[part]
        share = len(rows_B) / len(step.rows_B)
        if not share:
            return (torch.zeros((), device=self.device),) * 2
        target_B1 = self.sampler.target_R[rows_B, None]
        candidates_BC = np.concatenate([target_B1, np.tile(step.negatives_C, (len(rows_B), 1))], 1)
        batch = CandidateBatch(self.data, self.sampler.train, rows_B, candidates_BC)
        logits_BCH = score_candidates(self.model, fused, batch)
        candidates = torch.from_numpy(candidates_BC).to(self.device)
        click_BC = logits_BCH[:, :, 0] - self.log_expected_I[candidates]
        repeated = candidates[:, 1:] == candidates[:, :1]
        click_BC[:, 1:] = click_BC[:, 1:].masked_fill(repeated, -1e4)
        first_B = torch.zeros(len(rows_B), dtype=torch.long, device=self.device)
        rated_B = torch.from_numpy(self.like_R[rows_B]).to(self.device)
        if self.weight_R is None:
            click_loss = F.cross_entropy(click_BC, first_B) * share
        else:
            weight_B = torch.from_numpy(self.weight_R[rows_B]).to(self.device)
            click_loss = (F.cross_entropy(click_BC, first_B, reduction="none") * weight_B).mean() * share
        like_loss = share * F.binary_cross_entropy_with_logits(
            logits_BCH[:, 0, 1], (rated_B >= self.liked).float(), weight=(rated_B > 0).float()
        )
        return click_loss, like_loss

    def _shown_loss(self, step: StepInputs, part: slice, fused: FusedItems) -> Tensor:
        """Negatives of requests: the target before what was shown with it and not chosen, as a share of the step."""
        rows_B = step.rows_B[part]
        if not len(rows_B):
            return torch.zeros((), device=self.device)
        items_BC, real_BC = self.sampler.target_and_shown(rows_B)
        batch = CandidateBatch(self.data, self.sampler.train, rows_B, items_BC)
        scores_BC = score_candidates(self.model, fused, batch)[:, :, 0]
        loss = shown_loss(scores_BC, real_BC, self.sampler.train.weights(rows_B, items_BC[:, 0]))
        return loss * (len(rows_B) / len(step.rows_B))

    def _backward_encoder(self, encoded: EncodedItems) -> None:
        """Pass the gradients of the item vectors, and the language loss, on to the encoder."""
        if encoded.fresh_NT.grad is None:
            encoded.fresh_NT.grad = torch.zeros_like(encoded.fresh_NT)
        self.distributed.all_reduce([encoded.fresh_NT.grad])
        roots: list[tuple[Tensor, Tensor | None]] = [
            (encoded.local_NT, encoded.fresh_NT.grad[encoded.local_rows]),
            (self.config.language_weight * encoded.language_loss, None),
        ]
        roots = [(root, gradient) for root, gradient in roots if root.requires_grad]
        if roots:
            torch.autograd.backward([root for root, _ in roots], [gradient for _, gradient in roots])
