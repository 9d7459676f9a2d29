"""Baselines that a model has to beat, learnt from the training sequences alone.

Shapes: I items, U users, L events of a history (oldest first).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rankline.contracts import FrozenState
from rankline.features import transforms
from rankline.features.bm25 import Bm25
from rankline.text import item_text

Floats = npt.NDArray[np.float32]
Scorer = Callable[[FrozenState, str], Floats]  # a request's state and its query ("" without one)


@dataclass(frozen=True)
class TrainingItems:
    """All items, with their training events."""

    item_ids: list[str]
    index: Mapping[str, int]
    counts_I: Floats

    def rows(self, item_ids: list[str]) -> npt.NDArray[np.int64]:
        """The rows of the items that are known."""
        return np.array([self.index[item] for item in item_ids if item in self.index], np.int64)

    def best(self, scores_I: Floats, *, seen: list[str], count: int) -> list[str]:
        """The ``count`` unseen items with the highest scores; ties go to the earlier row."""
        allowed_I = scores_I.astype(np.float64)
        allowed_I[self.rows(seen)] = -np.inf
        order = np.argsort(-allowed_I, kind="stable")[:count]
        return [self.item_ids[row] for row in order[allowed_I[order] > -np.inf]]


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


def item_neighbours(interactions_UI: Any, *, keep: int, shrink: float) -> Any:
    """[I, I] cosine of the items' sets of users, with the ``keep`` best per row (Sarwar et al. 2001).

    ``shrink`` is added to the denominator: items with few users are similar by chance.
    """
    import scipy.sparse as sparse

    shared_II = (interactions_UI.T @ interactions_UI).tocsr()
    norm_I = np.sqrt(shared_II.diagonal())
    shared_II.setdiag(0)
    shared_II.eliminate_zeros()
    similarity_II = shared_II.tocoo()
    values = similarity_II.data / (norm_I[similarity_II.row] * norm_I[similarity_II.col] + shrink)
    # best first within each row, so that an entry's place in its row decides whether it is kept
    order = np.lexsort((-values, similarity_II.row))
    starts = np.concatenate([[0], np.cumsum(np.bincount(similarity_II.row, minlength=len(norm_I)))])
    selected = order[np.arange(len(order)) - starts[similarity_II.row[order]] < keep]
    return sparse.csr_matrix(
        (values[selected].astype(np.float32), (similarity_II.row[selected], similarity_II.col[selected])),
        similarity_II.shape,
    )


def scorers(
    folder: Path, *, keep: int, shrink: float, last: int, decay: float, stemmer: str = ""
) -> tuple[TrainingItems, dict[str, Scorer]]:
    """The baselines by name; each returns [I] scores for a snapshot request.

    ``item_knn`` adds up the neighbours of the ``last`` items of the history; ``item_knn_decay`` uses the whole history
    and multiplies the weight by ``decay`` per step back. ``bm25`` needs requests with queries, item-kNN histories.
    """
    items, interactions_UI = load_interactions(folder)
    scorers_by_name: dict[str, Scorer] = {
        "popularity": lambda state, query: items.counts_I,
        "fresh_popularity": lambda state, query: transforms.fresh_popularity(state.item_features, items.index),
    }
    if _has_queries(folder):
        index = Bm25.from_texts(_item_texts(folder), stemmer=stemmer, k1=0.9, b=0.4)
        scorers_by_name["bm25"] = lambda state, query: index.scores(query)
    if interactions_UI.nnz == 0:
        return items, scorers_by_name
    neighbours_II = item_neighbours(interactions_UI, keep=keep, shrink=shrink)

    def knn(state: FrozenState, *, last: int, decay: float) -> Floats:
        recent_L = items.rows(state.history.item_ids)[-last:]
        weights_L = decay ** np.arange(len(recent_L), dtype=np.float32)[::-1]
        return np.asarray(neighbours_II[recent_L].T @ weights_L, np.float32)

    return items, scorers_by_name | {
        "item_knn": lambda state, query: knn(state, last=last, decay=1.0),
        "item_knn_decay": lambda state, query: knn(state, last=len(state.history.item_ids) or 1, decay=decay),
    }


def _has_queries(folder: Path) -> bool:
    import pyarrow.parquet as parquet

    queries = parquet.read_table(folder / "requests.parquet", columns=["query"])["query"]
    return bool(queries.null_count < len(queries))


def _item_texts(folder: Path) -> list[str]:
    import pyarrow.parquet as parquet

    columns = ["item_id", "title", "category", "text"]
    return [item_text(item) for item in parquet.read_table(folder / "items.parquet", columns=columns).to_pylist()]
