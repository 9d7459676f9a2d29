"""The rank of each request's target among all items, for validation, one chunk of the catalogue at a time.

Shapes: R requests, B requests of a block, I items, P items of a chunk, T text size, D vector size.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from components.distill.towers import Towers
from rankline.train import sampled_items
from rankline.train.examples import Requests
from rankline.train.sampled_items import FusedItems, ItemInputs

Ints = npt.NDArray[np.int64]
Chunk = tuple[int, Tensor]  # the row of its first item, [P, D] their vectors
REQUESTS_PER_BLOCK = 256  # requests scored at once


@torch.no_grad()
def target_ranks(model: Towers, requests: Requests, text_IT: Tensor, queries_RT: Tensor) -> Ints:
    """[R] the rank of each request's first target (0 is the first) by the towers alone, over all unseen items.

    A large catalogue never has all its vectors, or a request's scores of all items, in memory at once. Among equal
    scores a target is in the middle, and last where its score is not a number, as in `ranks.target_rank`.
    """
    model.eval()
    whole = [(0, model.fusion(text_IT, model.side_IS))] if len(text_IT) <= sampled_items.CHUNK_ITEMS else None

    def chunks() -> Iterable[Chunk]:
        return whole or sampled_items.fused_chunks(model.fusion, text_IT, model.side_IS)

    left_RD = _left_vectors(model, requests, text_IT, queries_RT, whole)
    target_R = np.array([targets[0] for targets in requests.targets], np.int64)
    # requests whose targets lie in one chunk share a block, so that few products are needed for the targets' scores
    blocks = _blocks(np.argsort(target_R // sampled_items.CHUNK_ITEMS, kind="stable"))
    target_score_R = _target_scores(left_RD, chunks(), requests, target_R, blocks)
    above_R, equal_R = torch.zeros(2, len(requests), dtype=torch.long, device=text_IT.device)
    for first, chunk_PD in chunks():
        for rows in blocks:
            scores_BP = _scores(left_RD, chunk_PD, first, requests, rows)
            target_score_B1 = target_score_R[rows].unsqueeze(1)
            above_R[rows] += (scores_BP > target_score_B1).sum(1)
            equal_R[rows] += (scores_BP == target_score_B1).sum(1)
    ranks_R = torch.where(target_score_R.isfinite(), above_R + (equal_R - 1).clamp(min=0) // 2, len(text_IT) - 1)
    ranks: Ints = ranks_R.cpu().numpy()
    return ranks


@torch.no_grad()
def best_items(model: Towers, requests: Requests, text_IT: Tensor, queries_RT: Tensor, *, count: int) -> Ints:
    """[R, count] the best unseen items of each request by the towers alone, -1 where there are fewer."""
    model.eval()
    whole = [(0, model.fusion(text_IT, model.side_IS))] if len(text_IT) <= sampled_items.CHUNK_ITEMS else None
    left_RD = _left_vectors(model, requests, text_IT, queries_RT, whole)
    best_RK = torch.full((len(requests), count), -1, dtype=torch.long, device=text_IT.device)
    score_RK = torch.full((len(requests), count), -torch.inf, device=text_IT.device)
    for first, chunk_PD in whole or sampled_items.fused_chunks(model.fusion, text_IT, model.side_IS):
        for rows in _blocks(np.arange(len(requests))):
            scores_BP = _scores(left_RD, chunk_PD, first, requests, rows, without_other_targets=False)
            items_BP = torch.arange(first, first + len(chunk_PD), device=text_IT.device).expand_as(scores_BP)
            merged = torch.cat([score_RK[rows], scores_BP], 1), torch.cat([best_RK[rows], items_BP], 1)
            score_RK[rows], places = merged[0].topk(count)
            best_RK[rows] = merged[1].gather(1, places)
    best_RK[~score_RK.isfinite()] = -1
    best: Ints = best_RK.cpu().numpy()
    return best


def _left_vectors(
    model: Towers, requests: Requests, text_IT: Tensor, queries_RT: Tensor, whole: list[Chunk] | None
) -> Tensor:
    """[R, D] the left vectors, from the items of the histories alone where the catalogue is in chunks."""
    left_RD = torch.zeros(len(requests), model.tower.size, device=text_IT.device)
    for rows in _blocks(np.arange(len(requests))):
        if whole:
            fused = FusedItems(whole[0][1])
        else:
            rows_T = sampled_items.unique_items(requests.items_RL[rows])
            fused = ItemInputs(text_IT, model.side_IS, rows_T).fuse(model.fusion)
        left_RD[torch.from_numpy(rows)] = model.left(fused, requests, rows, queries_RT[rows[0] : rows[-1] + 1])
    return left_RD


def _target_scores(
    left_RD: Tensor, chunks: Iterable[Chunk], requests: Requests, target_R: Ints, blocks: list[Ints]
) -> Tensor:
    """[R] each target's score, from the same product as the other items': equals would differ in the last digit."""
    score_R = torch.full((len(requests),), float("nan"), device=left_RD.device)
    for first, chunk_PD in chunks:
        for rows in blocks:
            in_chunk = np.flatnonzero((target_R[rows] >= first) & (target_R[rows] < first + len(chunk_PD)))
            if len(in_chunk):
                scores_BP = _scores(left_RD, chunk_PD, first, requests, rows)
                score_R[rows[in_chunk]] = scores_BP[in_chunk, target_R[rows[in_chunk]] - first]
    return score_R


def _blocks(rows_R: Ints) -> list[Ints]:
    return [rows_R[start : start + REQUESTS_PER_BLOCK] for start in range(0, len(rows_R), REQUESTS_PER_BLOCK)]


def _scores(
    left_RD: Tensor,
    chunk_PD: Tensor,
    first: int,
    requests: Requests,
    rows: Ints,
    *,
    without_other_targets: bool = True,
) -> Tensor:
    """[B, P] the scores of a chunk for some requests; minus infinity for seen items and for other targets."""
    scores_BP = left_RD[torch.from_numpy(rows)] @ chunk_PD.T
    for b, row in enumerate(rows):
        others = requests.targets[row][1:] if without_other_targets else requests.targets[row][:0]
        excluded = np.concatenate([requests.seen[row], others]) - first
        scores_BP[b, torch.from_numpy(excluded[(excluded >= 0) & (excluded < len(chunk_PD))])] = -torch.inf
    return scores_BP
