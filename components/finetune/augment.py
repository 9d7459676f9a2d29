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


def views(windows: list[Window], rng: np.random.Generator, config: FinetuneConfig) -> list[Window]:
    """The windows, some cut to a part of them, some with a part shuffled; no window gets shorter than two events."""
    if config.crop_chance:
        windows = [_cropped(w, rng, config.crop_share) if rng.random() < config.crop_chance else w for w in windows]
    if config.reorder_chance:
        windows = [
            _reordered(w, rng, config.reorder_share) if rng.random() < config.reorder_chance else w for w in windows
        ]
    return windows


def shown(lengths_B: Any, width: int, rng: np.random.Generator, config: FinetuneConfig) -> npt.NDArray[np.bool_] | None:
    """[B, L] which events may be looked at; None for all of them. What is hidden has still to be guessed.

    Every window keeps at least one event.
    """
    if not config.mask_chance:
        return None
    shown_BL = np.ones((len(lengths_B), width), bool)
    for row, length in enumerate(lengths_B):
        if rng.random() < config.mask_chance:
            hidden = rng.permutation(length)[: min(round(length * config.mask_share), length - 1)]
            shown_BL[row, hidden] = False
    return shown_BL


def _cropped(window: Window, rng: np.random.Generator, share: float) -> Window:
    items, ratings = window
    kept = max(2, round(len(items) * share))
    start = int(rng.integers(len(items) - kept + 1))
    return items[start : start + kept], ratings[start : start + kept]


def _reordered(window: Window, rng: np.random.Generator, share: float) -> Window:
    items, ratings = window
    moved = min(len(items), max(2, round(len(items) * share)))
    start = int(rng.integers(len(items) - moved + 1))
    order = np.arange(len(items))
    order[start : start + moved] = start + rng.permutation(moved)
    return items[order], ratings[order]
