"""Domain-adaptive pre-training (Gururangan et al. 2020): the encoder learns the catalogue's language first.

At the beginning only the language-model head learns: a fresh head would damage good weights, and the perplexity
before would measure the head and not the encoder. Then both learn.

Shapes: B texts, W tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from components.finetune.context import TrainingContext
from components.finetune.language.masked_lm import MaskedLanguageModel
from rankline.errors import TooSmall
from rankline.model.networks import TextEncoder
from rankline.text import Tokenizer
from rankline.train.fit import FitSettings, Stateful, TensorState, Trainer, fit, learning_rate_at

HELD_OUT_SHARE, MAX_HELD_OUT = 0.1, 512  # share of the texts, and at most so many
MIN_TEXTS = 10
HEAD_ONLY_SHARE = 0.2  # steps that train the head alone, as a share of those that follow
HEAD_ONLY_FACTOR = 10.0  # a head that starts from nothing learns faster while it learns alone
CURVE_POINTS = 10  # checkpoints, and points of the curve
PERPLEXITY_BATCH = 64


@dataclass(frozen=True)
class AdaptationTexts:
    """The texts to learn from, and those that measure what was learned."""

    train: list[str]
    held_out: list[str]

    @classmethod
    def split(cls, texts: Sequence[str], rng: np.random.Generator) -> AdaptationTexts:
        """Hold some of the different texts out.

        Raises:
            TooSmall: there are fewer than ten different texts.
        """
        unique = sorted(set(texts))  # a text that several items share counts once
        if len(unique) < MIN_TEXTS:
            raise TooSmall(
                "there are too few texts to adapt the encoder to",
                expected=f"at least {MIN_TEXTS} different texts",
                found=str(len(unique)),
                hint="set finetune.adapt_steps=0",
            )
        order = rng.permutation(len(unique))
        count = min(MAX_HELD_OUT, max(1, int(len(unique) * HELD_OUT_SHARE)))
        return cls([unique[row] for row in order[count:]], [unique[row] for row in order[:count]])


class AdaptationTrainer(Trainer[int]):
    """Trains an encoder as a masked language model; what `fit` calls an epoch is a chunk of steps."""

    def __init__(
        self, masked_lm: MaskedLanguageModel, texts: AdaptationTexts, context: TrainingContext, rng: np.random.Generator
    ) -> None:
        self.masked_lm, self.texts, self.context, self.config = masked_lm, texts, context, context.config
        self.head_steps = math.ceil(HEAD_ONLY_SHARE * self.config.adapt_steps)
        self.steps = self.head_steps + self.config.adapt_steps
        self.chunk = math.ceil(self.steps / CURVE_POINTS)
        self.before = TensorState(torch.zeros((), dtype=torch.float64))  # the perplexity
        self._done, self._head_only = 0, True
        optimizer = torch.optim.AdamW(
            masked_lm.parameters(), lr=self.config.adapt_learning_rate, weight_decay=self.config.weight_decay
        )
        parts: dict[str, Stateful] = {"masked_lm": masked_lm, "before": self.before}
        super().__init__(parts, optimizer, rng, distributed=context.distributed)

    def batches(self, epoch: int) -> range:
        """The steps of a chunk."""
        return range(epoch * self.chunk, min((epoch + 1) * self.chunk, self.steps))

    def step(self, batch: int) -> dict[str, float]:
        """The gradients of one step: the loss over masked tokens of some texts."""
        if batch == self.head_steps:
            self.before.tensor.fill_(self.perplexity())
        self.distributed.reseed(self.config.seed, 1, batch)
        self.masked_lm.train()
        self._begin_step(batch)
        rows = self.rng.integers(0, len(self.texts.train), self.config.adapt_batch_size)
        masked = self.masked_lm.masked([self.texts.train[row] for row in rows], rng=self.rng)
        (local_rows,) = self.distributed.slices(1)
        local = masked.part(local_rows)
        share = local.target_BW.sum() / max(1, masked.target_BW.sum())
        loss = self.masked_lm(local, use_bf16=self.context.use_bf16, device=self.context.device, vectors=False)[1]
        loss = loss * float(share)
        value = loss.detach().reshape(1).clone()
        if loss.requires_grad:
            loss.backward()
        self.distributed.all_reduce([value])
        return {"loss": float(value)}

    def _begin_step(self, step: int) -> None:
        """Set the learning rate, and which weights learn."""
        self._done, self._head_only = step + 1, step < self.head_steps
        fraction = max(0, step - self.head_steps) / self.config.adapt_steps
        factor = learning_rate_at(fraction, peak=1.0, warm_up=self.config.warm_up)
        factor = HEAD_ONLY_FACTOR if self._head_only else factor
        self.optimizer.param_groups[0]["lr"] = self.config.adapt_learning_rate * factor
        self.masked_lm.reader.requires_grad_(not self._head_only)

    def curve_point(self, epoch: int, losses: dict[str, float]) -> dict[str, float]:
        """The entry of a chunk, named by its last step."""
        return {"step": self._done, **losses, "head_only": self._head_only}

    @torch.no_grad()
    def perplexity(self) -> float:
        """The perplexity of masked tokens in the held-out texts; the same tokens are masked every time."""
        self.masked_lm.eval()
        rng = np.random.default_rng(0)
        total, count = 0.0, 0
        for start in range(0, len(self.texts.held_out), PERPLEXITY_BATCH):
            masked = self.masked_lm.masked(self.texts.held_out[start : start + PERPLEXITY_BATCH], rng=rng)
            targets = int(masked.target_BW.sum())
            loss = self.masked_lm(masked, use_bf16=self.context.use_bf16, device=self.context.device, vectors=False)[1]
            total += float(loss) * targets
            count += targets
        return math.exp(min(50.0, total / max(1, count)))


def adapt(encoder: TextEncoder, tokenizer: Tokenizer, texts: Sequence[str], context: TrainingContext) -> dict[str, Any]:
    """Train ``encoder`` as a masked language model on ``texts``; perplexities on held-out texts, and the curve.

    Raises:
        TooSmall: there are fewer than ten different texts.
        TrainingError: the loss is not a number.
    """
    config = context.config
    rng = np.random.default_rng([config.seed, 1])
    split = AdaptationTexts.split(texts, rng)
    masked_lm = MaskedLanguageModel(
        encoder, tokenizer, share=config.adapt_mask_share, whole_words=config.adapt_whole_words
    ).to(context.device)
    context.distributed.broadcast_weights(masked_lm)
    trainer = AdaptationTrainer(masked_lm, split, context, rng)
    settings = FitSettings(
        epochs=math.ceil(trainer.steps / trainer.chunk),
        learning_rate=None,
        gradient_clip=config.gradient_clip,
        total_steps=trainer.steps,
        rate_setting="adapt_learning_rate",
    )
    context.progress.phase("adapting the encoder to the catalogue's language")
    history = fit(trainer, settings, checkpoints=context.checkpoints, progress=context.progress)
    encoder.requires_grad_(True)
    return {
        "texts": len(split.train),
        "held_out": len(split.held_out),
        "perplexity_before": float(trainer.before.tensor),
        "perplexity_after": trainer.perplexity(),
        "curve": history.curve,
    }
