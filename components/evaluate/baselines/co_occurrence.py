"""Baselines of users that know which items occur together: item-kNN and EASE.

Shapes: I items, U users, L events of a history (oldest first).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from components.evaluate.baselines.items import Floats, Scorer, TrainingItems, recency_weights
from rankline.contracts import FrozenState


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


def ease_weights(interactions_UI: Any, *, penalty: float) -> Floats:
    """[I, I] the item-item weights of EASE in closed form, with a diagonal of zeros (Steck 2019)."""
    gram_II = np.asarray((interactions_UI.T @ interactions_UI).todense(), np.float32)
    gram_II[np.diag_indices_from(gram_II)] += penalty
    inverse_II = np.linalg.inv(gram_II)
    weights_II: Floats = np.asarray(inverse_II / -np.diag(inverse_II), np.float32)
    np.fill_diagonal(weights_II, 0.0)
    return weights_II


def of_history(items: TrainingItems, weights_II: Any, *, decay: float, last: int | None = None) -> Scorer:
    """Scores that add up the rows of the items of a history, or of its ``last`` ones, by their recency."""

    def score(state: FrozenState, query: str) -> Floats:
        history_L = items.rows(state.history.item_ids)
        recent_L = history_L if last is None else history_L[-last:]
        return np.asarray(weights_II[recent_L].T @ recency_weights(len(recent_L), decay=decay), np.float32)

    return score
