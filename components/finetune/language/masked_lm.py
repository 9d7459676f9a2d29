"""The encoder as a masked language model, to learn a catalogue's language or to keep its own.

Shapes: B texts, W tokens, T text size, N masked tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankline.errors import UsageError
from rankline.model.networks import TextEncoder
from rankline.text import Tokenizer

MASKED_SHARE = 0.15  # as in BERT (Devlin et al. 2019)
MAX_WORD_PIECES = 8  # a longer word is in a script without spaces and is masked piece by piece


@dataclass(frozen=True)
class MaskedTexts:
    """Texts as tokens [B, W], and which of the tokens are masked."""

    ids_BW: npt.NDArray[np.int64]
    mask_BW: npt.NDArray[np.int64]
    target_BW: npt.NDArray[np.bool_]

    def part(self, rows: slice) -> MaskedTexts:
        """Some of the texts."""
        return MaskedTexts(self.ids_BW[rows], self.mask_BW[rows], self.target_BW[rows])


class MaskedLanguageModel(nn.Module):
    """An encoder with a masked-language-model head whose output matrix is the encoder's own word embedding.

    Raises:
        UsageError: the tokenizer has no mask token.
    """

    def __init__(
        self, reader: TextEncoder, tokenizer: Tokenizer, *, share: float = MASKED_SHARE, whole_words: bool = False
    ) -> None:
        super().__init__()
        if tokenizer.mask_id is None:
            raise UsageError(
                "this encoder cannot be trained jointly",
                expected="a tokenizer with a mask token ([MASK] or <mask>)",
                found="no mask token",
                hint="set finetune.train_encoder=false and finetune.adapt_steps=0, or take another encoder",
            )
        self.reader, self.tokenizer, self.share, self.whole_words = reader, tokenizer, share, whole_words
        self.mask_id = tokenizer.mask_id
        self.transform = nn.Sequential(nn.Linear(reader.size, reader.size), nn.GELU(), nn.LayerNorm(reader.size))

    def masked(self, texts: Sequence[str], *, rng: np.random.Generator) -> MaskedTexts:
        """The texts as tokens with some of them masked, never a special token."""
        ids_BW, mask_BW = self.tokenizer(texts)
        drawn_BW = rng.random(ids_BW.shape)
        if self.whole_words:  # all pieces of a word share the number drawn for its first piece
            drawn_BW = np.take_along_axis(drawn_BW, self._first_pieces(texts, ids_BW.shape), 1)
        special_BW = np.isin(ids_BW, self.tokenizer.special_ids)
        return MaskedTexts(ids_BW, mask_BW, (drawn_BW < self.share) & (mask_BW > 0) & ~special_BW)

    def _first_pieces(self, texts: Sequence[str], shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """[B, W] the position of the first token of each token's word."""
        first_BW = np.tile(np.arange(shape[1]), (shape[0], 1))
        for row, words in enumerate(self.tokenizer.word_ids(texts)):
            word_starts: dict[int, int] = {}
            for position, word in enumerate(words):
                if word is not None:
                    start = word_starts.setdefault(word, position)
                    first_BW[row, position] = start if position - start < MAX_WORD_PIECES else position
        return first_BW

    def forward(
        self, masked: MaskedTexts, *, use_bf16: bool, device: torch.device, vectors: bool = True
    ) -> tuple[Tensor, Tensor]:
        """([B, T] text vectors, or zeros without ``vectors``; the loss over the masked tokens)."""
        hidden_ids_BW = np.where(masked.target_BW, self.mask_id, masked.ids_BW)
        arrays = (masked.ids_BW, hidden_ids_BW, masked.mask_BW, masked.target_BW)
        ids, hidden, mask, chosen = (torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in arrays)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=use_bf16):
            vectors_BT = self.reader(ids, mask) if vectors else torch.zeros(len(ids), self.reader.size, device=device)
            if not masked.target_BW.any():
                return vectors_BT.float(), torch.zeros((), device=device)
            predicted_NT = self.transform(self.reader.token_vectors(hidden, mask)[chosen])
            embedding_VT = self.reader.backbone.get_input_embeddings().weight
            loss = F.cross_entropy((predicted_NT @ embedding_VT.T).float(), ids[chosen])
        return vectors_BT.float(), loss
