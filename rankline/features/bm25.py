"""BM25 scores of items for a query (Robertson & Zaragoza 2009), by the library bm25s.

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
    """A BM25 index over the texts of a catalogue."""

    def __init__(self, index: Any, *, stemmer: str, items: int) -> None:
        self._index, self._stemmer, self._items = index, stemmer, items

    @classmethod
    def from_texts(cls, words: Sequence[str], *, stemmer: str, k1: float, b: float) -> Bm25:
        """Index the items' texts; ``k1`` bounds the weight of a repeated word, ``b`` is the length normalization."""
        tokenized = [lexemes(text, stemmer=stemmer, unigrams=True) for text in words]
        return cls.from_tokens(tokenized, stemmer=stemmer, k1=k1, b=b)

    @classmethod
    def from_tokens(cls, tokenized: Sequence[list[str]], *, stemmer: str, k1: float, b: float) -> Bm25:
        """The same of texts whose words are split already, as by `lexemes` with this stemmer and unigrams."""
        index = _import_bm25s().BM25(k1=k1, b=b)
        if not any(tokenized):  # the library cannot index a catalogue without words
            tokenized = [["\0"], *tokenized[1:]]
        # the library numbers words in the order of a set, which differs in every process
        token_ids = {word: n for n, word in enumerate(sorted({word for tokens in tokenized for word in tokens}))}
        index.index(([[token_ids[word] for word in tokens] for tokens in tokenized], token_ids), show_progress=False)
        return cls(index, stemmer=stemmer, items=len(tokenized))

    def scores(self, query: str) -> Floats:
        """[I] the items' scores for a query; 0 for items that share no word with it."""
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
        """Read an index that ``save`` wrote."""
        settings = json.loads((folder / SETTINGS).read_text())
        index = _import_bm25s().BM25.load(str(folder), show_progress=False)
        return cls(index, stemmer=settings["stemmer"], items=settings["items"])


def _import_bm25s() -> Any:
    """Import bm25s without its log line per call."""
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)
    return bm25s
