"""The nearest centroid of the untuned encoder: a baseline of text classification, which trains nothing.

Shapes: I items, N texts, T text size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from rankline.train.examples import Examples

Floats = npt.NDArray[np.float32]
Encode = Callable[[Sequence[str]], Floats]
LARGEST, TEXTS_PER_LABEL = 200, 5  # labels; the texts of each on average: otherwise items are no labels
SAMPLED = 100  # texts of each label that its centroid is the mean of


def centroids(data: Examples, encode: Encode, *, seed: int) -> Floats | None:
    """[I, T] the mean vector of each label's training texts, zeros for one without; None where items are no labels."""
    train, items = data.splits["train"], len(data.item_ids)
    if data.has_users or not 2 <= items <= LARGEST or len(train.query_rows) < TEXTS_PER_LABEL * items:
        return None
    rows_of: list[list[int]] = [[] for _ in range(items)]
    for row in np.random.default_rng(seed).permutation(train.query_rows):
        for item in train.targets[row]:
            if len(rows_of[item]) < SAMPLED:
                rows_of[item].append(int(row))
    texts = [train.queries[row] for rows in rows_of for row in rows]
    vectors_NT = encode(texts)
    starts = np.cumsum([0, *map(len, rows_of)])
    centroids_IT = np.zeros((items, vectors_NT.shape[1]), np.float32)
    for item, rows in enumerate(rows_of):
        if rows:
            mean_T = vectors_NT[starts[item] : starts[item + 1]].mean(0)
            centroids_IT[item] = mean_T / max(float(np.linalg.norm(mean_T)), 1e-9)
    return centroids_IT
