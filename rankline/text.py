"""Text for the language model: the text of an item or a query, and its tokens.

Training, export and serving share these functions and so agree on every token.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
# of the BERT and RoBERTa families
SPECIAL_TOKENS = ("[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "<pad>", "<s>", "</s>", "<mask>", "<unk>")


def item_text(item: Mapping[str, Any]) -> str:
    """The text of an item for the encoder: title, categories, text."""
    parts = [item.get("title"), ", ".join(item.get("category") or []), item.get("text")]
    return ". ".join(part for part in parts if part) or str(item["item_id"])


def query_text(text: str | None, turns: Sequence[str] | None, *, last: int) -> str:
    """The text of a query for the encoder: its text, or the ``last`` turns of a conversation.

    The newest turn comes first, since a text that is too long is truncated at its end.
    """
    non_empty = [turn for turn in (turns or []) if turn]
    return "\n".join(reversed(non_empty[-last:])) if non_empty else text or ""


# Scripts without spaces between words. Their text is split into overlapping character bigrams, as by Lucene's CJK
# analyzer, which matches words of any length without a dictionary. scx are script extensions: some letters belong to
# several scripts, such as the long vowel of コーヒー to Hiragana and Katakana.
_UNSPACED = "".join(rf"\p{{scx={script}}}" for script in ("Hani", "Hira", "Kana", "Thai", "Laoo", "Khmr", "Mymr"))
_LETTERS = r"\p{L}\p{M}\p{N}"


def lexemes(text: str, *, stemmer: str = "", unigrams: bool = False) -> list[str]:
    """The terms of a text for BM25, in any script; ``stemmer`` names a Snowball stemmer, empty for none.

    ``unigrams`` adds the single characters of text that is split into bigrams. Documents have them, so that a query
    of one character matches; longer queries do not, so that they match only their bigrams.
    """
    matches = _splitter().findall(unicodedata.normalize("NFKC", text).casefold())
    tokens: list[str] = []
    spaced: list[str] = []
    for unspaced, spaced_word in matches:
        if spaced_word:
            spaced.append(spaced_word)
        else:
            tokens += [unspaced[k : k + 2] for k in range(len(unspaced) - 1)]
            tokens += unspaced if unigrams or len(unspaced) == 1 else ()
    return tokens + (_stemmer(stemmer)(spaced) if stemmer else spaced)


@functools.cache
def _splitter() -> Any:
    import regex

    return regex.compile(rf"([[{_LETTERS}]&&[{_UNSPACED}]]+)|([[{_LETTERS}]--[{_UNSPACED}]]+)", regex.VERSION1)


@functools.cache
def _stemmer(language: str) -> Callable[[list[str]], list[str]]:
    import Stemmer

    return Stemmer.Stemmer(language).stemWords  # type: ignore[no-any-return]


class Tokenizer:
    """A `tokenizers` tokenizer that truncates and pads."""

    def __init__(self, path: Path, *, max_tokens: int) -> None:
        from tokenizers import Tokenizer as Backend

        self._backend = Backend.from_file(str(path))
        self._backend.enable_truncation(max_length=max_tokens)
        self._backend.no_padding()
        self.pad_id = self._find_token_id("[PAD]", "<pad>") or 0
        self.mask_id = self._find_token_id("[MASK]", "<mask>")
        self.special_ids = [
            token_id for token in SPECIAL_TOKENS if (token_id := self._find_token_id(token)) is not None
        ]

    def _find_token_id(self, *names: str) -> int | None:
        """The id of the first of these tokens that the vocabulary has."""
        ids = map(self._backend.token_to_id, names)
        return next((token_id for token_id in ids if token_id is not None), None)

    @property
    def vocabulary_size(self) -> int:
        """The number of tokens."""
        return int(self._backend.get_vocab_size())

    def __call__(self, texts: Sequence[str]) -> tuple[Ints, Ints]:
        """(input_ids, attention_mask), both int64 [B, T], padded to the longest text."""
        ids_BT, mask_BT, _ = self._pad(self._backend.encode_batch(list(texts)))
        return ids_BT, mask_BT

    def pairs(self, lefts: Sequence[str], rights: Sequence[str]) -> tuple[Ints, Ints, Ints]:
        """(input_ids, attention_mask, token_type_ids) of pairs of texts; the longer of a pair is truncated first."""
        return self._pad(self._backend.encode_batch(list(zip(lefts, rights))))

    def _pad(self, encoded: Sequence[Any]) -> tuple[Ints, Ints, Ints]:
        width = max((len(encoding.ids) for encoding in encoded), default=1) or 1
        ids_BT = np.full((len(encoded), width), self.pad_id, np.int64)
        mask_BT, types_BT = np.zeros((len(encoded), width), np.int64), np.zeros((len(encoded), width), np.int64)
        for row, encoding in enumerate(encoded):
            ids_BT[row, : len(encoding.ids)] = encoding.ids
            mask_BT[row, : len(encoding.ids)] = 1
            types_BT[row, : len(encoding.ids)] = encoding.type_ids
        return ids_BT, mask_BT, types_BT

    def word_ids(self, texts: Sequence[str]) -> list[list[int | None]]:
        """The index of each token's word in its text; None for special tokens."""
        return [encoding.word_ids for encoding in self._backend.encode_batch(list(texts))]


def batches_by_length(texts: Sequence[str], size: int) -> list[list[int]]:
    """Row numbers in batches of texts of similar length, which need little padding."""
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    return [order[start : start + size] for start in range(0, len(order), size)]
