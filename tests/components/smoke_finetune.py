"""The smoke recipe's finetune settings, for tests that change some of them."""

from typing import Any

from components.finetune.config import FinetuneConfig
from pipelines.recipes import smoke

SMOKE = smoke().finetune
TRAINED_ENCODER = {
    "train_encoder": True,
    "encoder_learning_rate": 1e-3,
    "encoder_items_per_step": 16,
    "language_weight": 1.0,
}


def changed(**overrides: Any) -> FinetuneConfig:
    """The smoke recipe's settings with some changed."""
    return SMOKE.model_copy(update=overrides)
