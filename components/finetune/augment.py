"""Histories seen from other sides: cut, partly hidden, partly shuffled (the three views of CL4SRec, Xie et al. 2022).

Here they are plain augmentation of the next-item loss, without CL4SRec's contrastive one. A chance of 0 draws no
random number, so that settings which are off leave everything else as it is.

Shapes: B windows, L history events.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from components.finetune.config import FinetuneConfig

Window = tuple[Any, Any]  # items and ratings, oldest first


def augment_windows(windows: list[Window], rng: np.random.Generator, config: FinetuneConfig) -> list[Window]:
    """The windows, some cut to a part of them, some with a part shuffled; no window gets shorter than two events."""
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
    """[B, L] which events may be looked at; None for all of them. What is hidden has still to be guessed.

    Every window keeps at least one event.
    """
    if not config.mask_chance:
        return None
    visible_BL = np.ones((len(lengths_B), width), bool)
    for row, length in enumerate(lengths_B):
        if rng.random() < config.mask_chance:
            hidden = rng.permutation(length)[: min(round(length * config.mask_share), length - 1)]
            visible_BL[row, hidden] = False
    return visible_BL


def _crop(window: Window, rng: np.random.Generator, share: float) -> Window:
    items, ratings = window
    length = max(2, round(len(items) * share))
    start = int(rng.integers(len(items) - length + 1))
    return items[start : start + length], ratings[start : start + length]


def _reorder(window: Window, rng: np.random.Generator, share: float) -> Window:
    items, ratings = window
    length = min(len(items), max(2, round(len(items) * share)))
    start = int(rng.integers(len(items) - length + 1))
    order = np.arange(len(items))
    order[start : start + length] = start + rng.permutation(length)
    return items[order], ratings[order]
