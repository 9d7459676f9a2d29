"""The student's encoder: what it makes of the items' and the queries' words, kept until it has changed.

Shapes: R requests of a split, B requests of a step, I items, N items read with gradients, T text size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from components.distill.config import DistillConfig
from rankline.model import adapters
from rankline.model.encode import encode_all
from rankline.model.networks import TextEncoder
from rankline.runtime.progress import Progress
from rankline.text import Tokenizer
from rankline.train.examples import Examples, Requests

Ints = npt.NDArray[np.int64]


class EncodedTexts:
    """The vectors of all words, and fresh ones, with gradients, for the few of a step where the encoder is trained."""

    def __init__(
        self, data: Examples, reader: TextEncoder, tokenizer: Tokenizer, text_IT: torch.Tensor, *, device: torch.device
    ) -> None:
        self.data, self.encoder, self.tokenizer, self.device = data, reader.to(device), tokenizer, device
        self.items_IT = text_IT.to(device)
        self.queries: dict[str, torch.Tensor] = {}
        self.encode_queries()

    def prepare_training(self, config: DistillConfig) -> None:
        """Make the encoder ready to be trained: which of its weights are, and by which adapters.

        Raises:
            UsageError: the encoder has no place for the adapters, or fewer layers than are to be frozen.
        """
        adapters.freeze_lowest(self.encoder.backbone, config.encoder_frozen_layers, section="distill")
        self.encoder.backbone = adapters.attach(
            self.encoder.backbone,
            kind=config.peft,
            rank=config.peft_rank,
            alpha=config.peft_alpha,
            dropout=config.peft_dropout,
            targets=config.peft_targets,
            section="distill",
        ).to(self.device)

    def encode_queries(self) -> None:
        """Every split's queries as the encoder reads them now; zeros where nothing is asked in words."""
        for split, requests in self.data.splits.items():
            vectors_RT = torch.zeros(1, self.encoder.size, device=self.device).expand(len(requests), -1)
            if len(requests.query_rows):
                vectors_RT = vectors_RT.clone()
                words = [requests.queries[row] for row in requests.query_rows]
                vectors_RT[torch.from_numpy(requests.query_rows).to(self.device)] = self._encode(words, Progress())
            self.queries[split] = vectors_RT

    def encode_items(self, progress: Progress) -> None:
        """Every item as the encoder reads it now."""
        self.items_IT = self._encode(self.data.words, progress)

    def encode_with_gradients(
        self, requests: Requests, rows: Ints, items: Ints, *, use_bf16: bool
    ) -> tuple[Ints, torch.Tensor, torch.Tensor]:
        """([N] the given items, each once; [N, T] their words and [B, T] some requests' queries, with gradients)."""
        fresh_N = np.unique(items)
        texts = [self.data.words[item] for item in fresh_N] + [requests.queries[row] for row in rows]
        ids, mask = (torch.from_numpy(part).to(self.device) for part in self.tokenizer(texts))
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=use_bf16):
            vectors_NT = self.encoder(ids, mask).float()
        fresh_NT, queries_BT = vectors_NT[: len(fresh_N)], vectors_NT[len(fresh_N) :]
        self.items_IT[torch.from_numpy(fresh_N).to(self.device)] = fresh_NT.detach()
        return fresh_N, fresh_NT, queries_BT

    def state(self) -> dict[str, Any]:
        """What has to be kept to go on from here, on the CPU."""
        weights = {name: value.detach().cpu().clone() for name, value in self.encoder.state_dict().items()}
        return {"reader": weights, "items": self.items_IT.cpu().clone()}

    def restore(self, state: dict[str, Any], *, merged: bool = False) -> None:
        """Go back to a kept state; ``merged`` brings the adapters into the weights they adapt, once and for all."""
        self.encoder.load_state_dict(state["reader"])
        if merged:
            self.encoder.backbone = adapters.merge(self.encoder.backbone)
        self.items_IT = state["items"].to(self.device)
        self.encode_queries()

    def _encode(self, words: list[str], progress: Progress) -> torch.Tensor:
        return encode_all(self.encoder, self.tokenizer, words, device=self.device, progress=progress)
