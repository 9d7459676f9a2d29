"""Augmentation of histories: crop, mask and reorder (the three views of CL4SRec, Xie et al. 2022).

They augment the next-item loss, without the contrastive loss of CL4SRec. A probability of 0 draws no random number, so
augmentations that are off change nothing else.

Shapes: B windows, L history events.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from components.finetune.config import FinetuneConfig
from rankline.train.windows import Window


def augment_windows(windows: list[Window], rng: np.random.Generator, config: FinetuneConfig) -> list[Window]:
    """The windows, some cropped, some partly shuffled; every window keeps at least two events."""
    if config.crop_chance:
        windows = [_crop(w, rng, config.crop_share) if rng.random() < config.crop_chance else w for w in windows]
    if config.reorder_chance:
        windows = [
            _reorder(w, rng, config.reorder_share) if rng.random() < config.reorder_chance else w for w in windows
        ]
    return windows


def visible_events(
    lengths_B: Any, width: int, rng: np.random.Generator, config: FinetuneConfig
) -> npt.NDArray[np.bool_] | None:
    """[B, L] which events the tower sees, at least one per window; None for all. Hidden events remain targets."""
    if not config.mask_chance:
        return None
    visible_BL = np.ones((len(lengths_B), width), bool)
    for row, length in enumerate(lengths_B):
        if rng.random() < config.mask_chance:
            hidden = rng.permutation(length)[: min(round(length * config.mask_share), length - 1)]
            visible_BL[row, hidden] = False
    return visible_BL


def _crop(window: Window, rng: np.random.Generator, share: float) -> Window:
    count = len(window[0])
    length = max(2, round(count * share))
    start = int(rng.integers(count - length + 1))
    return tuple(part[start : start + length] for part in window)


def _reorder(window: Window, rng: np.random.Generator, share: float) -> Window:
    count = len(window[0])
    length = min(count, max(2, round(count * share)))
    start = int(rng.integers(count - length + 1))
    order = np.arange(count)
    order[start : start + length] = start + rng.permutation(length)
    return tuple(part[order] for part in window)
