"""Controls of the words: what remains of a ranking by text vectors if the words say less.

Shapes: I items, T text size.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from components.evaluate.baselines.items import Floats, Scorer, TrainingItems
from components.evaluate.baselines.words import mean_of_history, tfidf_vectors
from rankline.evaluation.report import CONTROL

TEXT_VECTORS = "text_vectors.npy"  # of the teacher
LAST = 10  # the events that the untuned encoder's mean is taken of, too


def word_controls(
    items: TrainingItems, texts: list[str], teacher: Path, *, stemmer: str, seed: int
) -> Iterator[tuple[str, Scorer]]:
    """System -> scores by the mean of a history's text vectors: as they are, and with each control in their place.

    The encoder's vectors, those of other items (`titles_shuffled`), random ones of the same size, and TF-IDF reduced to
    that size by a singular value decomposition. Random weights of the encoder need a run: `rankline ablate`.
    """
    path = teacher / TEXT_VECTORS
    if not path.is_file():
        return
    vectors_IT: Floats = np.load(path).astype(np.float32)
    if len(vectors_IT) != len(items.item_ids):
        return
    rng = np.random.default_rng(seed)
    options = {
        "words": vectors_IT,
        "titles_shuffled": vectors_IT[rng.permutation(len(vectors_IT))],
        "random_vectors": _unit(rng.standard_normal(vectors_IT.shape).astype(np.float32)),
    }
    if (reduced_IT := _reduced(texts, vectors_IT.shape[1], stemmer=stemmer, seed=seed)) is not None:
        options["tfidf_svd"] = reduced_IT
    for name, each_IT in options.items():
        yield f"{CONTROL}{name}", mean_of_history(items, each_IT, decay=1.0, last=LAST)


def _reduced(texts: list[str], size: int, *, stemmer: str, seed: int) -> Floats | None:
    """[I, T] TF-IDF vectors in fewer dimensions (latent semantic analysis); None where there are too few words."""
    from sklearn.decomposition import TruncatedSVD

    vectors_IW = tfidf_vectors(texts, stemmer=stemmer)
    if vectors_IW is None or min(vectors_IW.shape) <= 2:
        return None
    components = min(size, min(vectors_IW.shape) - 1)
    reduced_IT = TruncatedSVD(components, random_state=seed).fit_transform(vectors_IW)
    return _unit(np.asarray(reduced_IT, np.float32))


def _unit(vectors_IT: Floats) -> Floats:
    lengths_I = np.linalg.norm(vectors_IT, axis=1, keepdims=True)
    return np.asarray(vectors_IT / np.maximum(lengths_I, 1e-9), np.float32)
