"""Baselines of the words: BM25 for queries, TF-IDF of what a user had.

Shapes: I items, L events of a history, W words.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from components.evaluate.baselines.items import Floats, Scorer, TrainingItems, recency_weights
from rankline.contracts import FrozenState
from rankline.features.bm25 import Bm25
from rankline.text import lexemes

# (k1, b), the default first: of equal ones the first is taken
BM25_SETTINGS = ((0.9, 0.4), *((k1, b) for k1 in (0.6, 1.2, 2.0) for b in (0.25, 0.5, 0.75)))


def bm25_options(texts: Sequence[str], *, stemmer: str) -> Iterator[tuple[tuple[float, float], Scorer]]:
    """(k1, b) and the BM25 with these settings, one after another."""
    tokenized = [lexemes(text, stemmer=stemmer, unigrams=True) for text in texts]
    for k1, b in BM25_SETTINGS:
        yield (k1, b), _of_query(Bm25.from_tokens(tokenized, stemmer=stemmer, k1=k1, b=b))


def _of_query(index: Bm25) -> Scorer:
    return lambda state, query: index.scores(query)


def tfidf_vectors(texts: Sequence[str], *, stemmer: str) -> Any | None:
    """[I, W] sparse TF-IDF vectors of the items' words, of length 1; None where no item has a word."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    analyzer = functools.partial(lexemes, stemmer=stemmer, unigrams=True)
    if not any(analyzer(text) for text in texts):
        return None
    vectors_IW = TfidfVectorizer(analyzer=analyzer, sublinear_tf=True, dtype=np.float32).fit_transform(texts)
    return vectors_IW.tocsr()


def mean_of_history(items: TrainingItems, vectors_IT: Any, *, decay: float, last: int | None = None) -> Scorer:
    """Scores by the product with the weighted mean of the vectors of a history, or of its ``last`` events."""

    def score(state: FrozenState, query: str) -> Floats:
        history_L = items.rows(state.history.item_ids)
        recent_L = history_L if last is None else history_L[-last:]
        if not len(recent_L):
            return np.zeros(len(items.item_ids), np.float32)
        mean_T = vectors_IT[recent_L].T @ recency_weights(len(recent_L), decay=decay)
        return np.asarray(vectors_IT @ mean_T, np.float32)

    return score
