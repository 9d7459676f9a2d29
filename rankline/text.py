"""Words for the language model: how an item reads, and how text becomes tokens.

Training, export and serving share these functions, so that they agree to the last token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
# As the BERT family and the RoBERTa family call them.
SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "<pad>", "<s>", "</s>", "<mask>", "<unk>")


def item_words(item: Mapping[str, Any]) -> str:
    """What the encoder reads of an item: its title, its categories, its text."""
    parts = [item.get("title"), ", ".join(item.get("category") or []), item.get("text")]
    return ". ".join(part for part in parts if part) or str(item["item_id"])


class Tokenizer:
    """A `tokenizers` tokenizer with the padding and truncation of this project."""

    def __init__(self, path: Path, *, max_tokens: int) -> None:
        from tokenizers import Tokenizer as Backend

        self._backend = Backend.from_file(str(path))
        self._backend.enable_truncation(max_length=max_tokens)
        self._backend.no_padding()
        self.pad_id = self._id_of("[PAD]", "<pad>") or 0
        self.mask_id = self._id_of("[MASK]", "<mask>")
        self.special_ids = [found for token in SPECIAL if (found := self._backend.token_to_id(token)) is not None]

    def _id_of(self, *names: str) -> int | None:
        """The id of a token that goes by one of these names."""
        return next((found for name in names if (found := self._backend.token_to_id(name)) is not None), None)

    @property
    def vocabulary_size(self) -> int:
        """How many tokens there are."""
        return int(self._backend.get_vocab_size())

    def __call__(self, texts: Sequence[str]) -> tuple[Ints, Ints]:
        """(input_ids, attention_mask), both int64 [B, T], padded to the longest text."""
        encoded = [encoding.ids for encoding in self._backend.encode_batch(list(texts))]
        width = max((len(ids) for ids in encoded), default=1) or 1
        ids_BT = np.full((len(encoded), width), self.pad_id, np.int64)
        mask_BT = np.zeros((len(encoded), width), np.int64)
        for row, ids in enumerate(encoded):
            ids_BT[row, : len(ids)] = ids
            mask_BT[row, : len(ids)] = 1
        return ids_BT, mask_BT


def batches(texts: Sequence[str], size: int) -> list[list[int]]:
    """Row numbers in batches of texts of similar length, so that little of a batch is padding."""
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    return [order[start : start + size] for start in range(0, len(order), size)]
