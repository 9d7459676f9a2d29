"""The words of items as TF-IDF vectors, and the items whose words resemble those of a history.

Items that nobody has chosen yet have words already: this source proposes them.

Shapes: I items, V words, L events of a history (oldest first).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rankline.text import lexemes

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def word_vectors(texts: Sequence[str], *, stemmer: str) -> Any:
    """[I, V] CSR of unit rows: (1 + log of a word's count) * inverse document frequency (Salton & Buckley 1988)."""
    import scipy.sparse as sparse

    tokenized = [lexemes(text, stemmer=stemmer) for text in texts]
    ids = {word: n for n, word in enumerate(sorted({word for tokens in tokenized for word in tokens}))}
    rows = np.repeat(np.arange(len(texts)), [len(tokens) for tokens in tokenized])
    columns = np.array([ids[word] for tokens in tokenized for word in tokens], np.int64)
    shape = (len(texts), max(len(ids), 1))
    counts_IV = sparse.coo_matrix((np.ones(len(rows)), (rows, columns)), shape).tocsr()  # adds up what recurs
    weights_V = 1.0 + np.log((1 + len(texts)) / (1 + np.bincount(counts_IV.indices, minlength=shape[1])))
    counts_IV.data = (1.0 + np.log(counts_IV.data)) * weights_V[counts_IV.indices]
    lengths_I = np.sqrt(np.asarray(counts_IV.multiply(counts_IV).sum(axis=1)).ravel())
    vectors_IV = sparse.diags(1.0 / np.maximum(lengths_I, 1e-9)) @ counts_IV
    return vectors_IV.tocsr().astype(np.float32)


def history_scores(words_IV: Any, history_L: Ints, *, decay: float, last: int) -> Floats:
    """[I] likeness to the words of a history's last events; each step back multiplies the weight by ``decay``."""
    recent = history_L[-last:]
    if not len(recent):
        return np.zeros(words_IV.shape[0], np.float32)
    weights_L = (decay ** np.arange(len(recent))[::-1]).astype(np.float32)
    history_V = np.asarray(words_IV[recent].T @ weights_L, np.float32)
    return np.asarray(words_IV @ history_V, np.float32)
