"""The nearest-neighbour index of a catalogue, and its recall."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rankline.model.catalogue.settings import IndexSettings
from rankline.model.catalogue_files import INDEX

VECTORS = "vectors.fp32.npy"
MAX_EXACT_ITEMS = 100_000
RECALL_QUERIES, RECALL_DEPTH = 200, 100  # how many vectors are searched for, and neighbours of each


def write_index(folder: Path, settings: IndexSettings, *, exact_below: int = MAX_EXACT_ITEMS) -> str:
    """Write the index over a catalogue's fp32 vectors; return its kind."""
    import faiss

    index: Any
    vectors_ID = np.load(folder / VECTORS)
    count, size = vectors_ID.shape
    kind = settings.kind if settings.kind != "auto" else ("exact" if count < exact_below else "hnsw")
    if kind == "exact":
        index = faiss.IndexFlatIP(size)
    else:
        index = faiss.IndexHNSWFlat(size, settings.links, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 2 * settings.search
        index.hnsw.efSearch = settings.search
    index.add(vectors_ID)
    faiss.write_index(index, str(folder / INDEX))
    return kind


def index_recall(folder: Path) -> float:
    """Share of the exact nearest neighbours that a catalogue's index finds, for a sample of its items.

    Zero if the index does not match the vectors.
    """
    import faiss

    vectors_ID = np.load(folder / VECTORS)
    index, (count, size) = faiss.read_index(str(folder / INDEX)), vectors_ID.shape
    if index.ntotal != count or index.d != size:
        return 0.0
    exact = faiss.IndexFlatIP(size)
    exact.add(vectors_ID)
    queries = vectors_ID[np.linspace(0, count - 1, min(count, RECALL_QUERIES)).astype(int)]
    depth = min(RECALL_DEPTH, count)
    approximate, nearest = index.search(queries, depth)[1], exact.search(queries, depth)[1]
    return float(np.mean([len(np.intersect1d(a, b)) / depth for a, b in zip(approximate, nearest)]))
