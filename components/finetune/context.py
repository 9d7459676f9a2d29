"""What all trainings of one finetune run share."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from components.finetune.config import FinetuneConfig
from rankline.runtime.progress import Progress
from rankline.train.distributed import DistributedContext


@dataclass(frozen=True)
class TrainingContext:
    """The settings of a run, where it computes, and where it writes progress and checkpoints."""

    config: FinetuneConfig
    device: torch.device
    use_bf16: bool
    distributed: DistributedContext
    progress: Progress
    checkpoints: Path | None

    def with_config(self, config: FinetuneConfig) -> TrainingContext:
        """The same run with other settings."""
        return dataclasses.replace(self, config=config)

    def in_folder(self, name: str) -> TrainingContext:
        """The same run with its checkpoints in a subfolder."""
        return dataclasses.replace(self, checkpoints=self.checkpoints / name if self.checkpoints else None)
