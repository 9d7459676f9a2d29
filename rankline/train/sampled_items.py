"""The few items that a step of training touches, and a large catalogue a part at a time.

Where items are sampled, a step fuses only the items it has to do with and moves only their own vectors: what it takes
does not grow with the catalogue. Whoever needs all items, to validate or to save, goes through them in parts.

Shapes: I items, T items touched, N items read with gradients, P items of a part, S side size, D vector size; text_IT
is [I, text size].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from rankline.model.networks import ItemFusion

Ints = npt.NDArray[np.int64]
NO_ITEMS = np.zeros(0, np.int64)
CHUNK_ITEMS = 1 << 15  # items of a part: catalogues up to this size are in one piece


@dataclass(frozen=True)
class FusedItems:
    """The fused vectors of all items, or of the few that a step touches; asked for by the items' own numbers."""

    vectors_TD: Tensor
    rows_T: Ints | None = None

    def lookup(self, items: Ints) -> Tensor:
        """[…, D] the vectors of some items.

        By F.embedding, because on several threads the gradient of table[rows] is summed in whatever order they come,
        and no run would be like another.
        """
        positions = items if self.rows_T is None else np.searchsorted(self.rows_T, items)
        return F.embedding(torch.from_numpy(positions).to(self.vectors_TD.device), self.vectors_TD)


class SparseItemEmbedding:
    """The items' own vectors, taken out and moved one by one: those that a step does not touch cost it nothing."""

    def __init__(self, fusion: ItemFusion, *, learning_rate: float) -> None:
        self.table_ID = fusion.own.weight
        self.optimizer = torch.optim.SparseAdam([self.table_ID], lr=learning_rate)

    def gather(self, rows_T: Ints) -> Tensor:
        """[T, D] the vectors of some items, to gather a step's gradient."""
        positions = torch.from_numpy(rows_T).to(self.table_ID.device)
        return F.embedding(positions, self.table_ID.detach()).requires_grad_()

    def apply_gradient(self, rows_T: Ints, own_TD: Tensor) -> None:
        """Move these items' vectors by the gradient that was gathered in what `take` gave."""
        positions = torch.from_numpy(rows_T).to(self.table_ID.device).unsqueeze(0)
        assert own_TD.grad is not None
        self.table_ID.grad = torch.sparse_coo_tensor(
            positions, own_TD.grad, self.table_ID.shape, check_invariants=False
        )
        self.optimizer.step()  # type: ignore[no-untyped-call]
        self.table_ID.grad = None


def unique_items(*parts: Any) -> Ints:
    """[T] the items in all these arrays, sorted, each once."""
    return np.unique(np.concatenate([np.asarray(part, np.int64).ravel() for part in parts]))


def fuse(
    fusion: ItemFusion,
    text_IT: Tensor,
    side_IS: Tensor,
    rows_T: Ints | None = None,
    *,
    own_TD: Tensor | None = None,
    fresh_N: Ints = NO_ITEMS,
    fresh_NT: Tensor | None = None,
) -> FusedItems:
    """The fused vectors of the items ``rows_T`` with their own vectors ``own_TD``, or of the whole catalogue.

    Of the items ``fresh_N`` the text vectors are ``fresh_NT``, which carry gradients.
    """
    device = text_IT.device
    fresh_index = torch.from_numpy(fresh_N).to(device)
    if rows_T is None:
        return FusedItems(
            fusion(text_IT if fresh_NT is None else text_IT.index_copy(0, fresh_index, fresh_NT), side_IS)
        )
    item_index = torch.from_numpy(rows_T).to(device)
    words_TT = text_IT[item_index]
    if fresh_NT is not None:
        words_TT = words_TT.index_copy(0, torch.searchsorted(item_index, fresh_index), fresh_NT)
    return FusedItems(fusion(words_TT, side_IS[item_index], rows_T=item_index, own_TD=own_TD), rows_T)


@torch.no_grad()
def fused_chunks(fusion: ItemFusion, text_IT: Tensor, side_IS: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The whole catalogue without gradients, a part at a time: (its first item's number, [P, D] fused vectors)."""
    for first in range(0, len(text_IT), CHUNK_ITEMS):
        some = slice(first, first + CHUNK_ITEMS)
        yield first, fusion(text_IT[some], side_IS[some], rows_T=some)


@torch.no_grad()
def fuse_all(fusion: ItemFusion, text_IT: Tensor, side_IS: Tensor) -> Tensor:
    """[I, D] the fused vectors of the whole catalogue without gradients, put together from its parts."""
    fused_ID = torch.empty_like(fusion.own.weight, device=text_IT.device)
    for first, part_PD in fused_chunks(fusion, text_IT, side_IS):
        fused_ID[first : first + len(part_PD)] = part_PD
    return fused_ID
