"""BM25: how well the words of a query and of an item meet (Robertson & Zaragoza 2009), by the library bm25s.

Shapes: I items.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rankline.text import lexemes

Floats = npt.NDArray[np.float32]
SETTINGS = "settings.json"


class Bm25:
    """The words of a catalogue, weighed ahead of time; what a query scores is a sum over its own words."""

    def __init__(self, index: Any, *, stemmer: str, items: int) -> None:
        self._index, self._stemmer, self._items = index, stemmer, items

    @classmethod
    def from_texts(cls, words: Sequence[str], *, stemmer: str, k1: float, b: float) -> Bm25:
        """The index of the items' words; ``k1`` bounds what repeating a word is worth, ``b`` what length costs."""
        index = _import_bm25s().BM25(k1=k1, b=b)
        tokenized = [lexemes(text, stemmer=stemmer, unigrams=True) for text in words]
        if not any(tokenized):  # the library cannot index a catalogue without a single word
            tokenized = [["\0"], *tokenized[1:]]
        # left to number the words by itself it does so in the order of a set, another one in every process
        token_ids = {word: n for n, word in enumerate(sorted({word for tokens in tokenized for word in tokens}))}
        index.index(([[token_ids[word] for word in tokens] for tokens in tokenized], token_ids), show_progress=False)
        return cls(index, stemmer=stemmer, items=len(words))

    def scores(self, query: str) -> Floats:
        """[I] what each item scores for a query; 0 where they share no word."""
        known = [word for word in lexemes(query, stemmer=self._stemmer) if word in self._index.vocab_dict]
        if not known:
            return np.zeros(self._items, np.float32)
        scores_I: Floats = self._index.get_scores(known).astype(np.float32)
        return scores_I

    def save(self, folder: Path) -> None:
        """Write the index into a folder."""
        self._index.save(str(folder), show_progress=False)
        (folder / SETTINGS).write_text(json.dumps({"stemmer": self._stemmer, "items": self._items}) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Bm25:
        """The index that ``save`` wrote."""
        settings = json.loads((folder / SETTINGS).read_text())
        index = _import_bm25s().BM25.load(str(folder), show_progress=False)
        return cls(index, stemmer=settings["stemmer"], items=settings["items"])


def _import_bm25s() -> Any:
    """bm25s, told to keep to itself what it does at every call."""
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)
    return bm25s
