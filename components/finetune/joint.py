"""Joint training: the encoder reads items with gradients, and keeps its language by guessing masked words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankline.errors import UsageError
from rankline.model import TextEncoder
from rankline.text import Tokenizer

MASKED_SHARE = 0.15  # as in BERT (Devlin et al. 2019)


class LanguageHead(nn.Module):
    """An encoder with a masked-language-model head whose output matrix is the encoder's own word embedding.

    Raises:
        UsageError: the tokenizer has no mask token.
    """

    def __init__(self, reader: TextEncoder, tokenizer: Tokenizer) -> None:
        super().__init__()
        if tokenizer.mask_id is None:
            raise UsageError(
                "this encoder cannot be trained jointly",
                expected="a tokenizer with a mask token ([MASK] or <mask>)",
                found="none",
                hint="set finetune.train_encoder=false, or take another encoder",
            )
        self.reader, self.tokenizer = reader, tokenizer
        self.transform = nn.Sequential(nn.Linear(reader.size, reader.size), nn.GELU(), nn.LayerNorm(reader.size))

    def read(self, texts: Sequence[str], *, rng: np.random.Generator, half: bool, device: Any) -> tuple[Tensor, Tensor]:
        """([B, T] vectors of the texts, the masked-language-model loss over them)."""
        ids_BW, mask_BW = self.tokenizer(texts)
        special_BW = np.isin(ids_BW, self.tokenizer.special_ids)
        chosen_BW = (rng.random(ids_BW.shape) < MASKED_SHARE) & (mask_BW > 0) & ~special_BW
        hidden_ids_BW = np.where(chosen_BW, self.tokenizer.mask_id, ids_BW)
        ids, masked, mask = (torch.from_numpy(part).to(device) for part in (ids_BW, hidden_ids_BW, mask_BW))
        chosen = torch.from_numpy(chosen_BW).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            vectors_BT = self.reader(ids, mask)
            if not chosen_BW.any():
                return vectors_BT, torch.zeros((), device=device)
            guessed_NT = self.transform(self.reader.tokens(masked, mask)[chosen])
            words_VT = self.reader.backbone.get_input_embeddings().weight
            loss = F.cross_entropy((guessed_NT @ words_VT.T).float(), ids[chosen])
        return vectors_BT.float(), loss
