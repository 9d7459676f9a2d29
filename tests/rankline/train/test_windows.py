"""Windows, padded and batched."""

from __future__ import annotations

import numpy as np

from rankline.train.windows import pad_windows, window_batches


def test_windows_are_padded_behind_and_shifted_by_one() -> None:
    windows = [(np.array([4, 5, 6]), np.array([1, 2, 3])), (np.array([7, 8]), np.array([5, 0]))]
    items_BL, ratings_BL, next_BL = pad_windows(windows)
    assert items_BL.tolist() == [[4, 5], [7, 0]]
    assert ratings_BL.tolist() == [[1, 2], [5, 0]]
    assert next_BL.tolist() == [[5, 6], [8, -100]]


def test_batches_hold_every_window_once_beside_its_likes() -> None:
    windows = [(np.arange(n), np.arange(n)) for n in range(2, 25)]
    batches = window_batches(windows, np.random.default_rng(0), 5)
    assert sorted(len(items) for batch in batches for items, _ in batch) == list(range(2, 25))
    assert all(max(map(len, sizes)) - min(map(len, sizes)) <= 4 for sizes in [[w[0] for w in b] for b in batches])
    assert batches[0][0][0].size != 2 or batches[1][0][0].size != 7  # not in order of length
