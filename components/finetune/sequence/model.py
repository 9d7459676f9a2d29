"""The sequence teacher: it ranks items by a user's history.

Shapes: I items, T text size, N sampled feature rows, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from components.finetune.config import FinetuneConfig
from components.finetune.context import TrainingContext
from components.finetune.language.masked_lm import MaskedLanguageModel
from components.finetune.sequence.inputs import TeacherInputs
from components.finetune.sequence.trainer import SequenceTrainer
from rankline.model import adapters
from rankline.model.networks import Teacher, TextEncoder
from rankline.train.device import compile_modules
from rankline.train.examples import Examples
from rankline.train.fit import FitSettings, History, fit
from rankline.train.item_networks import build_item_networks, build_profile_network


@dataclass(frozen=True)
class TrainedTeacher:
    """A teacher as it was in its best epoch; ``encoder`` is its own where the encoder was trained with it."""

    model: Teacher
    text_IT: Tensor
    encoder: TextEncoder
    history: History
    encoder_weights: tuple[int, int]  # trained, and all
    compiled: str


def train(
    inputs: TeacherInputs, context: TrainingContext, *, seed: int, load_weights: Callable[[Teacher], None] | None = None
) -> TrainedTeacher:
    """Train one teacher; a killed run resumes from its last epoch. A trained encoder changes in place.

    Args:
        load_weights: fills the fresh teacher with other weights; training then never ends worse than it began.

    Raises:
        TrainingError: the loss is not a number.
    """
    config, encoder = context.config, inputs.encoder
    rng = np.random.default_rng(seed)
    model = build_teacher(inputs.data, encoder.size, config=config, rng=rng)
    if load_weights is not None:
        load_weights(model)
    model = model.to(context.device)
    masked_lm = None
    if config.train_encoder:
        encoder.backbone = adapters.prepare(encoder.backbone, config, section="finetune")
        masked_lm = MaskedLanguageModel(encoder, inputs.tokenizer).to(context.device)
        context.distributed.broadcast_weights(masked_lm)
    context.distributed.broadcast_weights(model)
    compiled = compile_modules(model.tower, *([encoder.backbone] if masked_lm else [])) if config.compile else ""

    trainer = SequenceTrainer(model, masked_lm, inputs, context, seed=seed, rng=rng)
    settings = FitSettings.of(config, validate_start=load_weights is not None)
    history = fit(trainer, settings, checkpoints=context.checkpoints, progress=context.progress)
    model.eval()

    encoder_weights = (0, 0)
    if masked_lm is not None:
        encoder_weights = adapters.count_parameters(encoder.backbone)
        encoder.backbone = adapters.merge(encoder.backbone)
    return TrainedTeacher(model, trainer.text.tensor, encoder, history, encoder_weights, compiled)


def build_teacher(data: Examples, text_size: int, *, config: FinetuneConfig, rng: np.random.Generator) -> Teacher:
    """A fresh teacher for the catalogue of ``data``."""
    fusion, tower = build_item_networks(data, config, text_size=text_size, size=config.vector_size)
    train = data.splits["train"]
    sample = rng.permutation(len(train))[:512]
    random_items = rng.integers(0, len(data.item_ids), (len(sample), 16))
    sample_NF = torch.from_numpy(data.features(train, sample, random_items)).flatten(0, 1)
    model = Teacher(
        fusion=fusion,
        tower=tower,
        features=sample_NF.shape[1],
        heads=config.heads,
        dropout=config.dropout,
        profile=build_profile_network(data, config, text_size=text_size, size=config.vector_size),
    )
    model.standardize.fit(sample_NF)
    return model
