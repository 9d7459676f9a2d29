"""The student's encoder, and the vectors it gives to all items and queries.

Shapes: R requests of a split, B requests of a step, I items, N items encoded with gradients, T text size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from components.distill.config import DistillConfig
from rankline.model import adapters
from rankline.model.networks import TextEncoder
from rankline.runtime.progress import Progress
from rankline.text import Tokenizer
from rankline.train.encode import encode_all
from rankline.train.examples import Examples, Requests

Ints = npt.NDArray[np.int64]


class EncodedTexts:
    """The vectors of all texts; where the encoder is trained, a step encodes its few texts with gradients."""

    def __init__(
        self, data: Examples, encoder: TextEncoder, tokenizer: Tokenizer, text_IT: torch.Tensor, *, device: torch.device
    ) -> None:
        self.data, self.encoder, self.tokenizer, self.device = data, encoder.to(device), tokenizer, device
        self.items_IT = text_IT.to(device)
        self.is_trained = False
        self.queries: dict[str, torch.Tensor] = {}
        self.encode_queries()

    def prepare_training(self, config: DistillConfig) -> None:
        """Freeze layers and attach adapters as the settings ask.

        Raises:
            UsageError: the encoder has no layers for the adapters, or fewer layers than are to be frozen.
        """
        self.is_trained = True
        self.encoder.backbone = adapters.prepare(self.encoder.backbone, config, section="distill").to(self.device)

    def finish_training(self) -> None:
        """Merge the adapters into the encoder's weights, and encode the queries with the result."""
        self.encoder.backbone = adapters.merge(self.encoder.backbone)
        self.encode_queries()

    def encode_queries(self) -> None:
        """Encode every split's queries [R, T], zeros for a request without a query, and the texts of users."""
        for split, requests in self.data.splits.items():
            if requests.profiles is not None and self.data.profile is not None and self.data.profile.texts:
                requests.profiles.text_UT = self._encode(requests.profiles.texts, Progress())
            vectors_RT = torch.zeros(1, self.encoder.size, device=self.device).expand(len(requests), -1)
            rows = requests.query_rows
            if len(rows):
                vectors_RT = vectors_RT.clone()
                queries = [requests.queries[row] for row in rows]
                vectors_RT[torch.from_numpy(rows).to(self.device)] = self._encode(queries, Progress())
            self.queries[split] = vectors_RT

    def encode_items(self, progress: Progress) -> None:
        self.items_IT = self._encode(self.data.item_texts, progress)

    def encode_with_gradients(
        self, requests: Requests, rows: Ints, items: Ints, *, use_bf16: bool
    ) -> tuple[Ints, torch.Tensor, torch.Tensor]:
        """([N] the given items, each once; [N, T] their vectors and [B, T] some requests' queries, with gradients)."""
        fresh_N = np.unique(items)
        texts = [self.data.item_texts[item] for item in fresh_N] + [requests.queries[row] for row in rows]
        ids, mask = (torch.from_numpy(part).to(self.device) for part in self.tokenizer(texts))
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=use_bf16):
            vectors_NT = self.encoder(ids, mask).float()
        fresh_NT, queries_BT = vectors_NT[: len(fresh_N)], vectors_NT[len(fresh_N) :]
        self.items_IT[torch.from_numpy(fresh_N).to(self.device)] = fresh_NT.detach()
        return fresh_N, fresh_NT, queries_BT

    def state_dict(self) -> dict[str, Any]:
        """The encoder's weights and the vectors of the items."""
        return {
            **{f"encoder.{name}": value for name, value in self.encoder.state_dict().items()},
            "items": self.items_IT,
        }

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Restore the encoder and the items' vectors, and encode the queries with it."""
        weights = {name: value for name, value in state_dict.items() if name != "items"}
        self.encoder.load_state_dict({name.removeprefix("encoder."): value for name, value in weights.items()})
        self.items_IT = state_dict["items"].to(self.device)
        self.encode_queries()

    def _encode(self, texts: list[str], progress: Progress) -> torch.Tensor:
        return encode_all(self.encoder, self.tokenizer, texts, device=self.device, progress=progress)
