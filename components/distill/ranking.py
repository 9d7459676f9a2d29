"""Where each request's target stands among all items: the look at validation, a part of the catalogue at a time.

Shapes: R requests, B requests of a block, I items, P items of a part, T text size, D vector size.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rankline.train import sampled_items
from rankline.train.examples import Requests

if TYPE_CHECKING:
    from components.distill.towers import Towers

Ints = npt.NDArray[np.int64]
REQUESTS_PER_BLOCK = 256  # requests scored at once


@torch.no_grad()
def target_ranks(
    model: Towers, requests: Requests, text_IT: Tensor, queries_RT: Tensor, *, device: torch.device
) -> Ints:
    """[R] the rank of each request's first target (0 is the first) by the towers alone, over all unseen items.

    Neither all items' vectors nor a request's scores of all items are ever there at once, unless all are one part.
    Among equals a target stands in the middle, and last where its score is no number, as in `training.rank_of`.
    """
    model.eval()
    fusion, side_IS, items = model.fusion, model.side_IS, len(text_IT)
    single_chunk = [(0, fusion(text_IT, side_IS))] if items <= sampled_items.CHUNK_ITEMS else None

    def parts() -> Iterable[tuple[int, Tensor]]:
        return single_chunk or sampled_items.fused_chunks(fusion, text_IT, side_IS)

    # Left vectors, from the histories' items alone
    target_R = np.array([targets[0] for targets in requests.targets], np.int64)
    left_RD = torch.zeros(len(requests), model.tower.size, device=device)
    for rows in _blocks(np.arange(len(requests))):
        rows_T = sampled_items.unique_items(requests.items_RL[rows])
        fused = (
            sampled_items.FusedItems(single_chunk[0][1])
            if single_chunk
            else sampled_items.fuse(fusion, text_IT, side_IS, rows_T)
        )
        left_RD[torch.from_numpy(rows)] = model.left(fused, requests, rows, queries_RT[rows[0] : rows[-1] + 1], device)

    # A target's own score comes from the very product that its rivals' do, or equals would differ in the last digit;
    # requests whose targets lie in one part are together, so that few products are made for it
    blocks = _blocks(np.argsort(target_R // sampled_items.CHUNK_ITEMS, kind="stable"))
    own_R = torch.full((len(requests),), float("nan"), device=device)
    for first, part_PD in parts():
        for rows in blocks:
            in_chunk = np.flatnonzero((target_R[rows] >= first) & (target_R[rows] < first + len(part_PD)))
            if len(in_chunk):
                scores_BP = _scores(left_RD, part_PD, first, requests, rows)
                own_R[rows[in_chunk]] = scores_BP[in_chunk, target_R[rows[in_chunk]] - first]

    above_R, equal_R = torch.zeros(2, len(requests), dtype=torch.long, device=device)
    for first, part_PD in parts():
        for rows in blocks:
            scores_BP, own_B1 = _scores(left_RD, part_PD, first, requests, rows), own_R[rows].unsqueeze(1)
            above_R[rows] += (scores_BP > own_B1).sum(1)
            equal_R[rows] += (scores_BP == own_B1).sum(1)
    ranks_R = torch.where(own_R.isfinite(), above_R + (equal_R - 1).clamp(min=0) // 2, items - 1)
    ranks: Ints = ranks_R.cpu().numpy()
    return ranks


def _blocks(rows_R: Ints) -> list[Ints]:
    return [rows_R[start : start + REQUESTS_PER_BLOCK] for start in range(0, len(rows_R), REQUESTS_PER_BLOCK)]


def _scores(left_RD: Tensor, part_PD: Tensor, first: int, requests: Requests, rows: Ints) -> Tensor:
    """[B, P] the scores of a part for some requests; minus infinity for seen items and for other right answers."""
    scores_BP = left_RD[torch.from_numpy(rows)] @ part_PD.T
    for place, row in enumerate(rows):
        excluded = np.concatenate([requests.seen[row], requests.targets[row][1:]]) - first
        scores_BP[place, torch.from_numpy(excluded[(excluded >= 0) & (excluded < len(part_PD))])] = -torch.inf
    return scores_BP
