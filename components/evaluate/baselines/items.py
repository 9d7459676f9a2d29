"""The items as training saw them, and lists of the best of them.

Shapes: I items, U users.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rankline.contracts import FrozenState
from rankline.text import item_text

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Scorer = Callable[[FrozenState, str], Floats]  # a request's state and its query ("" without one)


@dataclass(frozen=True)
class TrainingItems:
    """All items, with their training events."""

    item_ids: list[str]
    index: Mapping[str, int]
    counts_I: Floats

    def rows(self, item_ids: Sequence[str]) -> Ints:
        """The rows of the items that are known."""
        return np.array([self.index[item] for item in item_ids if item in self.index], np.int64)

    def best(self, scores_I: Floats, *, seen: Sequence[str], count: int, ties_I: Floats | None = None) -> list[str]:
        """The ``count`` unseen items with the highest scores.

        Equal scores are ordered by ``ties_I``, then by row, so that a baseline with nothing to say of a request gives
        the most popular items and not the first of the catalogue.
        """
        order = best_rows(scores_I, excluded=self.rows(seen), count=count, ties_I=ties_I)
        return [self.item_ids[row] for row in order]


def best_rows(scores_I: Floats, *, excluded: Ints, count: int, ties_I: Floats | None = None) -> Ints:
    """The rows of the ``count`` highest scores without the excluded ones, best first."""
    allowed_I = scores_I.astype(np.float64)
    allowed_I[excluded] = -np.inf
    considered = np.arange(len(allowed_I))
    if len(allowed_I) > 4 * count:  # sort only what may be among the best
        least = -np.partition(-allowed_I, count - 1)[count - 1]
        considered = np.flatnonzero(allowed_I >= least)
    keys = (-allowed_I[considered],) if ties_I is None else (-ties_I[considered], -allowed_I[considered])
    order = considered[np.lexsort(keys)[:count]]
    return order[allowed_I[order] > -np.inf]


def load_interactions(folder: Path) -> tuple[TrainingItems, Any]:
    """All items, and the training interactions as a [U, I] matrix of 0 and 1."""
    import pyarrow.parquet as parquet
    import scipy.sparse as sparse

    item_ids = parquet.read_table(folder / "items.parquet", columns=["item_id"])["item_id"].to_pylist()
    index = {item: row for row, item in enumerate(item_ids)}
    histories = parquet.read_table(folder / "sequences.parquet", columns=["item_ids"])["item_ids"].to_pylist()
    users = np.repeat(np.arange(len(histories)), [len(items) for items in histories])
    rows = np.array([index[item] for items in histories for item in items], np.int64)
    ones = np.ones(len(rows), np.float32)
    interactions_UI = sparse.csr_matrix((ones, (users, rows)), (len(histories), len(item_ids)))
    counts_I = np.asarray(interactions_UI.sum(axis=0), np.float32).ravel()
    interactions_UI.data[:] = 1.0
    return TrainingItems(item_ids, index, counts_I), interactions_UI


def item_texts(folder: Path) -> list[str]:
    """The words of every item, as the model reads them."""
    import pyarrow.parquet as parquet

    known = set(parquet.read_schema(folder / "items.parquet").names)
    columns = [name for name in ("item_id", "title", "category", "text") if name in known]
    return [item_text(item) for item in parquet.read_table(folder / "items.parquet", columns=columns).to_pylist()]


def recency_weights(count: int, *, decay: float) -> Floats:
    """[L] the weights of a history's events, oldest first: each step back multiplies by ``decay``."""
    return np.asarray(decay ** np.arange(count, dtype=np.float32)[::-1], np.float32)
