"""Windows over users' event sequences, padded and batched.

Shapes: B windows, L history events.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Ints = npt.NDArray[np.int64]
Window = tuple[Any, ...]  # item rows, ratings and, where labels are declared, weights, oldest first


def pad_windows(windows: Sequence[Window]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(items, ratings, next items), each [B, L]; the next item is -100 behind the end of a window."""
    length = max(len(items) for items, *_ in windows) - 1
    items_BL = np.zeros((len(windows), length), np.int64)
    ratings_BL = np.zeros((len(windows), length), np.int64)
    next_BL = np.full((len(windows), length), -100, np.int64)
    for row, (items, ratings, *_) in enumerate(windows):
        items_BL[row, : len(items) - 1], next_BL[row, : len(items) - 1] = items[:-1], items[1:]
        ratings_BL[row, : len(items) - 1] = ratings[:-1]
    return torch.from_numpy(items_BL), torch.from_numpy(ratings_BL), torch.from_numpy(next_BL)


def next_weights(windows: Sequence[Window]) -> npt.NDArray[np.float32] | None:
    """[B, L] the weights of the next items, 0 behind the end of a window; None if all weigh alike."""
    if not windows or len(windows[0]) < 3:
        return None
    length = max(len(items) for items, *_ in windows) - 1
    weight_BL = np.zeros((len(windows), length), np.float32)
    for row, (*_, weights) in enumerate(windows):
        weight_BL[row, : len(weights) - 1] = weights[1:]
    return weight_BL


def window_batches(windows: Sequence[Window], rng: np.random.Generator, size: int) -> list[list[Window]]:
    """Batches of windows of similar length, in random order."""
    shuffled = [windows[k] for k in rng.permutation(len(windows))]
    shuffled.sort(key=lambda window: len(window[0]))
    batches = [shuffled[start : start + size] for start in range(0, len(shuffled), size)]
    return [batches[k] for k in rng.permutation(len(batches))]
