"""Candidate sources besides the towers: co-visitation and popularity.

Shapes: I items, L events of a history (oldest first).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
PAIRS_AT_ONCE = 1 << 23


def covisitation(
    histories: Iterable[Ints], items: int, *, window: int, step_decay: float, max_neighbours: int, shrink: float = 20.0
) -> Any:
    """Item-item co-visitation, [I, I] CSR, of items that are close in a history.

    A pair ``k`` steps apart weighs 1 / (1 + step_decay * k); forward pairs weigh more than backward ones. Weights are
    cosine-normalized, with ``shrink`` against rare items, and each item keeps its ``max_neighbours`` best (item-kNN:
    Deshpande & Karypis 2004).
    """
    import scipy.sparse as sparse

    counts = sparse.csr_matrix((items, items), dtype=np.float32)
    for firsts, seconds, weights in _pairs(histories, window=window, step_decay=step_decay):
        block = sparse.coo_matrix((weights, (firsts, seconds)), shape=(items, items)).tocsr()
        counts = block if counts.nnz == 0 else counts + block
    if counts.nnz == 0:
        return counts
    counts.setdiag(0)
    counts.eliminate_zeros()
    scale = sparse.diags(1.0 / np.sqrt(np.asarray(counts.sum(axis=1)).ravel() + shrink))
    return _best_per_row((scale @ counts @ scale).tocsr().astype(np.float32), max_neighbours)


def _pairs(histories: Iterable[Ints], *, window: int, step_decay: float) -> Iterator[tuple[Ints, Ints, Floats]]:
    """(first items, second items, weights) of all pairs, in blocks: a log has far more pairs than different ones."""
    firsts: list[Ints] = []
    seconds: list[Ints] = []
    weights: list[Floats] = []
    size = 0
    for history_L in histories:
        for step in range(1, min(len(history_L), window)):
            weight = 1.0 / (1.0 + step_decay * step)
            before, after = history_L[:-step], history_L[step:]
            firsts += [before, after]
            seconds += [after, before]
            weights += [
                np.full(len(before), weight, np.float32),
                np.full(len(after), 0.7 * weight, np.float32),
            ]
            size += 2 * len(before)
        if size >= PAIRS_AT_ONCE:
            yield np.concatenate(firsts), np.concatenate(seconds), np.concatenate(weights)
            firsts, seconds, weights, size = [], [], [], 0
    if firsts:
        yield np.concatenate(firsts), np.concatenate(seconds), np.concatenate(weights)


def _best_per_row(matrix: Any, max_neighbours: int) -> Any:
    import scipy.sparse as sparse

    columns, values, ends = [], [], [0]
    for row in range(matrix.shape[0]):
        start, end = matrix.indptr[row], matrix.indptr[row + 1]
        best = np.argsort(-matrix.data[start:end], kind="stable")[:max_neighbours]
        best.sort()
        columns.append(matrix.indices[start:end][best])
        values.append(matrix.data[start:end][best])
        ends.append(ends[-1] + len(best))
    return sparse.csr_matrix(
        (np.concatenate(values), np.concatenate(columns), np.array(ends)),
        shape=matrix.shape,
        dtype=np.float32,
    )


def covisit_scores(matrix: Any, history_L: Ints, *, decay: float, last: int) -> Floats:
    """[I] scores of the neighbours of a history's last events; each step back multiplies the weight by ``decay``."""
    recent = history_L[-last:][::-1]
    out = np.zeros(matrix.shape[1], np.float32)
    if not len(recent):
        return out
    starts, ends = matrix.indptr[recent], matrix.indptr[recent + 1]
    counts = ends - starts
    # the neighbours of all events, one event after the other
    places = np.repeat(starts - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
    weights = np.repeat(np.array([decay**step for step in range(len(recent))], np.float32), counts)
    np.add.at(out, matrix.indices[places], weights * matrix.data[places])
    return out


def popularity(histories: Iterable[Ints], items: int) -> Floats:
    """[I] how often each item occurs in the histories: the fallback without fresher counts."""
    flat = [np.asarray(history, np.int64) for history in histories]
    joined = np.concatenate(flat) if flat else np.zeros(0, np.int64)
    return np.bincount(joined, minlength=items).astype(np.float32)
