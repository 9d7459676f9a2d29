"""The few items that a training step touches, and a large catalogue in chunks.

Where items are sampled, a step fuses and updates only the items it touches, so its cost does not grow with the
catalogue. Validation and saving go through all items in chunks.

Shapes: I items, T items that a step touches, N items encoded with gradients, P items of a chunk, S side size,
D vector size; text_IT is [I, text size].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankline.model.networks import ItemFusion

Ints = npt.NDArray[np.int64]
NO_ITEMS = np.zeros(0, np.int64)
CHUNK_ITEMS = 1 << 15  # catalogues up to this size are one chunk


@dataclass(frozen=True)
class FusedItems:
    """The fused vectors of all items, or of the few that a step touches, looked up by item row."""

    vectors_TD: Tensor
    rows_T: Ints | None = None  # sorted; None: all items

    def lookup(self, items: Ints) -> Tensor:
        """[…, D] the vectors of some items."""
        # F.embedding, because several threads sum the gradient of table[rows] in an order that differs between runs
        positions = items if self.rows_T is None else np.searchsorted(self.rows_T, items)
        return F.embedding(torch.from_numpy(positions).to(self.vectors_TD.device), self.vectors_TD)


class SparseItemEmbedding:
    """The item embeddings, updated row by row: items that a step does not touch cost nothing."""

    def __init__(self, fusion: ItemFusion, *, learning_rate: float) -> None:
        self.table_ID = fusion.own.weight
        self.optimizer = torch.optim.SparseAdam([self.table_ID], lr=learning_rate)
        self._rows_T = NO_ITEMS
        self.gathered_TD = torch.zeros(0)

    def gather(self, rows_T: Ints) -> Tensor:
        """[T, D] the embeddings of some items, which collect the gradient of a step."""
        self._rows_T = rows_T
        positions = torch.from_numpy(rows_T).to(self.table_ID.device)
        self.gathered_TD = F.embedding(positions, self.table_ID.detach()).requires_grad_()
        return self.gathered_TD

    def apply_gradient(self) -> None:
        """Update the gathered embeddings by their gradient."""
        assert self.gathered_TD.grad is not None
        positions = torch.from_numpy(self._rows_T).to(self.table_ID.device).unsqueeze(0)
        self.table_ID.grad = torch.sparse_coo_tensor(
            positions, self.gathered_TD.grad, self.table_ID.shape, check_invariants=False
        )
        self.optimizer.step()  # type: ignore[no-untyped-call]
        self.table_ID.grad = None


def dense_parameters(model: nn.Module, item_embedding: SparseItemEmbedding | None) -> list[Tensor]:
    """The weights of a model that are updated in every step: all but sparsely updated embeddings."""
    return [weight for weight in model.parameters() if item_embedding is None or weight is not item_embedding.table_ID]


def unique_items(*parts: Any) -> Ints:
    """[T] the items in all these arrays, sorted, each once."""
    return np.unique(np.concatenate([np.asarray(part, np.int64).ravel() for part in parts]))


@dataclass(frozen=True)
class ItemInputs:
    """What item vectors are fused from in one step, by default of the whole catalogue without gradients in its texts.

    Args:
        rows_T: the items to fuse, sorted; None for all.
        own_TD: their embeddings, where these are updated sparsely.
        fresh_N: the items whose text vectors ``fresh_NT`` carry gradients.
    """

    text_IT: Tensor
    side_IS: Tensor
    rows_T: Ints | None = None
    own_TD: Tensor | None = None
    fresh_N: Ints = field(default_factory=lambda: NO_ITEMS)
    fresh_NT: Tensor | None = None

    def fuse(self, fusion: ItemFusion) -> FusedItems:
        """The fused vectors of the items."""
        device = self.text_IT.device
        fresh_index = torch.from_numpy(self.fresh_N).to(device)
        if self.rows_T is None:
            text_IT = self.text_IT
            if self.fresh_NT is not None:
                text_IT = text_IT.index_copy(0, fresh_index, self.fresh_NT)
            return FusedItems(fusion(text_IT, self.side_IS))
        item_index = torch.from_numpy(self.rows_T).to(device)
        text_TT = self.text_IT[item_index]
        if self.fresh_NT is not None:
            text_TT = text_TT.index_copy(0, torch.searchsorted(item_index, fresh_index), self.fresh_NT)
        return FusedItems(fusion(text_TT, self.side_IS[item_index], rows_T=item_index, own_TD=self.own_TD), self.rows_T)


@torch.no_grad()
def fused_chunks(fusion: ItemFusion, text_IT: Tensor, side_IS: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The whole catalogue without gradients, chunk by chunk: (the row of its first item, [P, D] fused vectors)."""
    for first in range(0, len(text_IT), CHUNK_ITEMS):
        chunk = slice(first, first + CHUNK_ITEMS)
        yield first, fusion(text_IT[chunk], side_IS[chunk], rows_T=chunk)


@torch.no_grad()
def fuse_all(fusion: ItemFusion, text_IT: Tensor, side_IS: Tensor) -> Tensor:
    """[I, D] the fused vectors of the whole catalogue without gradients, computed chunk by chunk."""
    fused_ID = torch.empty_like(fusion.own.weight, device=text_IT.device)
    for first, chunk_PD in fused_chunks(fusion, text_IT, side_IS):
        fused_ID[first : first + len(chunk_PD)] = chunk_PD
    return fused_ID
