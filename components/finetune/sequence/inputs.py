"""What the sequence teacher learns from: its data, and everything random of one step.

All that is random is drawn for a whole step, by every process alike; what is then computed in parts is weighted so
that the parts add up to the step.

Shapes: B windows or requests, L history events, C candidates, S sampled items, I items, N items encoded with
gradients, T text size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from components.finetune.config import FinetuneConfig
from components.finetune.language.masked_lm import MaskedLanguageModel, MaskedTexts
from components.finetune.sequence import augment
from rankline.model.networks import TextEncoder
from rankline.text import Tokenizer
from rankline.train.examples import Examples
from rankline.train.losses import ItemSampler
from rankline.train.sampled_items import NO_ITEMS, unique_items
from rankline.train.windows import Window, next_weights, pad_windows

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
NO_WINDOWS = np.zeros((3, 0, 0), np.int64)


@dataclass(frozen=True)
class TeacherInputs:
    """The training data with the encoder and the vectors it gives to every item."""

    data: Examples
    encoder: TextEncoder
    tokenizer: Tokenizer
    text_IT: Tensor
    side_IS: Tensor


@dataclass(frozen=True)
class StepInputs:
    """Everything that one step needs, drawn before it is computed."""

    items_BL: Ints
    ratings_BL: Ints
    next_BL: Ints
    weight_BL: Floats | None  # of the next items; None if all weigh alike
    visible_BL: npt.NDArray[np.bool_] | None
    fresh_N: Ints
    masked: MaskedTexts | None
    rows_B: Ints
    negatives_C: Ints
    sampled_S: Ints


class StepSampler:
    """Draws the inputs of training steps."""

    def __init__(self, data: Examples, masked_lm: MaskedLanguageModel | None, config: FinetuneConfig) -> None:
        self.data, self.masked_lm, self.config = data, masked_lm, config
        self.train = data.splits["train"]
        self.target_R = np.array([targets[0] for targets in self.train.targets], np.int64)
        self.probability_I = negative_probabilities(data)
        self._sampler = ItemSampler(self.probability_I)

    def draw(self, batch: Sequence[Window], rng: np.random.Generator) -> StepInputs:
        """Everything random about one step."""
        config = self.config
        items_BL, ratings_BL, next_BL = (part.numpy() for part in pad_windows(batch)) if batch else NO_WINDOWS
        visible_BL = augment.visible_events([len(items) - 1 for items, *_ in batch], items_BL.shape[1], rng, config)
        fresh_N, masked = NO_ITEMS, None
        if self.masked_lm is not None:
            known = np.unique(items_BL) if items_BL.size else len(self.data.item_ids)
            fresh_N = np.unique(rng.choice(known, config.encoder_items_per_step))
            masked = self.masked_lm.masked([self.data.item_texts[i] for i in fresh_N], rng=rng)
        return StepInputs(
            items_BL=items_BL,
            ratings_BL=ratings_BL,
            next_BL=next_BL,
            weight_BL=next_weights(batch),
            visible_BL=visible_BL,
            fresh_N=fresh_N,
            masked=masked,
            rows_B=rng.integers(0, len(self.train), config.requests_per_step),
            negatives_C=self._sampler(rng, config.negatives),
            sampled_S=self._sampler(rng, config.sampled_items) if config.sampled_items else NO_ITEMS,
        )

    def step_items(self, step: StepInputs) -> Ints:
        """[T] the items that a step touches, sorted."""
        next_items = step.next_BL[step.next_BL >= 0]
        requested = (self.train.items_RL[step.rows_B], self.target_R[step.rows_B], step.negatives_C)
        shown_BC = self.target_and_shown(step.rows_B)[0] if self.train.shown else NO_ITEMS
        return unique_items(step.items_BL, next_items, *requested, step.sampled_S, step.fresh_N, shown_BC)

    def target_and_shown(self, rows_B: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """The first target of some requests, then what was shown with it; and which places hold an item."""
        return self.train.target_and_shown(rows_B, self.target_R[rows_B])


def negative_probabilities(data: Examples) -> npt.NDArray[np.float64]:
    """[I] how often each item is drawn as a negative: its softened popularity."""
    counts_I = np.bincount(np.concatenate(data.sequences.items), minlength=len(data.item_ids))
    softened_I = (counts_I + 1.0) ** 0.75
    return np.asarray(softened_I / softened_I.sum(), np.float64)
