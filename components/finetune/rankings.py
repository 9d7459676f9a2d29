"""What the teachers think: rankings of the frozen requests for evaluation, soft scores for the student.

Shapes: M teachers, R requests, C candidates, I items, K ranks, T text size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from components.finetune.distributed import DistributedContext
from rankline.model.networks import Teacher
from rankline.runtime.progress import Progress
from rankline.train import sampled_items, training
from rankline.train.examples import Examples, Requests
from rankline.train.sampled_items import FusedItems

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
MAX_PAIRS = 1 << 18  # most (request, item) pairs scored at once: memory does not grow with the catalogue


@dataclass(frozen=True)
class TeacherEnsemble:
    """One teacher or several, each with the item vectors it reads; together they say the mean of what each says."""

    members: list[tuple[Teacher, torch.Tensor]]
    side_IS: torch.Tensor

    @torch.no_grad()
    def fused(self) -> list[FusedItems]:
        """What each member makes of the catalogue."""
        for model, _ in self.members:
            model.eval()
        return [
            FusedItems(sampled_items.fuse_all(model.fusion, text_IT, self.side_IS)) for model, text_IT in self.members
        ]

    @torch.no_grad()
    def member_logits(self, fused: list[FusedItems], data: Examples, requests: Requests, rows: Ints,
                 candidates_BC: Ints, device: torch.device) -> torch.Tensor:  # fmt: skip
        """[M, B, C] each member's logits of the first head."""
        logits = [
            score_candidates(model, own, data, requests, rows, candidates_BC, device)[..., 0]
            for (model, _), own in zip(self.members, fused)
        ]
        return torch.stack(logits)


@dataclass(frozen=True)
class RankedItems:
    """Rankings of requests over the whole catalogue, seen items left out."""

    best_RK: Ints
    target_ranks: Ints


def score_candidates(model: Teacher, fused: FusedItems, data: Examples, requests: Requests, rows: Ints,
          candidates_BC: Ints, device: torch.device) -> torch.Tensor:  # fmt: skip
    """[B, C, H] the teacher's logits for some candidates of some requests."""
    arrays = (requests.ratings_RL, requests.ages_RL, requests.lengths_R)
    ratings_BL, ages_BL, lengths_B = (torch.from_numpy(part[rows]).to(device) for part in arrays)
    features_BCF = torch.from_numpy(data.features(requests, rows, candidates_BC)).to(device)
    candidates_BCD, events_BLD = fused.lookup(candidates_BC), fused.lookup(requests.items_RL[rows])
    logits_BCH: torch.Tensor = model(events_BLD, ratings_BL, ages_BL, lengths_B, candidates_BCD, features_BCF)
    return logits_BCH


def rank_all(
    ensemble: TeacherEnsemble,
    data: Examples,
    requests: Requests,
    *,
    device: torch.device,
    depth: int = 10,
    batch_size: int = 32,
    ranks: DistributedContext = DistributedContext(),  # noqa: B008  # alone
) -> RankedItems:
    """Rank every item for every request by the first head; several processes share the requests."""
    fused = ensemble.fused()
    items = len(data.item_ids)
    columns = max(1, MAX_PAIRS // batch_size)
    best_RK = np.zeros((len(requests), min(depth, items)), np.int64)
    target_R = np.zeros(len(requests), np.int64)
    for start in range(ranks.rank * batch_size, len(requests), ranks.world_size * batch_size):
        rows = np.arange(start, min(start + batch_size, len(requests)))
        parts = []
        for first in range(0, items, columns):
            candidates_BC = np.tile(np.arange(first, min(first + columns, items)), (len(rows), 1))
            parts.append(
                ensemble.member_logits(fused, data, requests, rows, candidates_BC, device).mean(0).cpu().numpy()
            )
        scores_BI = np.concatenate(parts, 1)
        for row, scores_I in zip(rows, scores_BI):
            scores_I[requests.seen[row]] = -np.inf
            best_RK[row] = _top_items(scores_I, depth)
            target_R[row] = training.target_rank(scores_I, requests.targets[row][0])
    results = [torch.from_numpy(best_RK), torch.from_numpy(target_R)]
    ranks.sum(results)
    return RankedItems(*(part.numpy() for part in results))


def closest_to_history(text_IT: torch.Tensor, requests: Requests, depth: int) -> Ints:
    """[R, K] what the encoder alone says: the unseen items closest to the mean of the words of the last ten events."""
    return np.stack([_top_items(scores_I, depth) for scores_I in _history_similarity(text_IT.cpu().numpy(), requests)])


def _history_similarity(vectors_IT: Floats, requests: Requests) -> Iterator[Floats]:
    for row, length in enumerate(requests.lengths_R):
        recent = requests.items_RL[row, max(0, length - 10) : length]
        scores_I = vectors_IT @ vectors_IT[recent].mean(0) if len(recent) else np.zeros(len(vectors_IT), np.float32)
        scores_I[requests.seen[row]] = -np.inf
        yield scores_I


def _top_items(scores_I: Floats, depth: int) -> Ints:
    """The best items, equals in their own order; -1 where fewer than ``depth`` may be ranked."""
    considered = np.arange(len(scores_I))
    if len(scores_I) > 4 * depth:  # only what may be among the best is sorted
        least = -np.partition(-scores_I, depth)[depth]
        if np.isfinite(least):
            considered = np.flatnonzero(scores_I >= least)
    order = considered[np.argsort(-scores_I[considered], kind="stable")[:depth]]
    return np.where(np.isfinite(scores_I[order]), order, -1)


def soft_scores(
    ensemble: TeacherEnsemble,
    data: Examples,
    requests: Requests,
    *,
    count: int,
    probability_I: npt.NDArray[np.float64],
    seed: int,
    device: torch.device,
    progress: Progress,
    batch_size: int = 64,
) -> dict[str, npt.NDArray[Any]]:
    """candidates [R, C] and their logits [R, C]: the target, sampled negatives, and items drawn by chance.

    Several teachers add how far they disagree, deviation [R, C].
    """
    rng = np.random.default_rng(seed)
    fused = ensemble.fused()
    candidates_RC = rng.choice(len(probability_I), (len(requests), count), p=probability_I)
    for row in range(len(requests)):
        labelled = np.concatenate([requests.targets[row][:1], requests.negatives[row]])[: count // 2]
        candidates_RC[row, : len(labelled)] = labelled
    logits_RC = np.zeros((len(requests), count), np.float32)
    deviation_RC = np.zeros_like(logits_RC)
    for start in range(0, len(requests), batch_size):
        rows = np.arange(start, min(start + batch_size, len(requests)))
        logits_MBC = ensemble.member_logits(fused, data, requests, rows, candidates_RC[rows], device)
        logits_RC[rows] = logits_MBC.mean(0).cpu().numpy()
        deviation_RC[rows] = logits_MBC.std(0, correction=0).cpu().numpy()
        progress.update(start + len(rows), len(requests))
    labels = {"candidates": candidates_RC, "logits": logits_RC}
    return labels if len(ensemble.members) == 1 else {**labels, "deviation": deviation_RC}


def write_rankings(path: Path, item_ids: list[str], request_ids: list[str], ranked: dict[str, Ints]) -> None:
    """One row a system and request: the ids of its best items in order."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    rows = [
        {"system": system, "request_id": request, "item_ids": [item_ids[i] for i in best_K if i >= 0]}
        for system, best_RK in ranked.items()
        for request, best_K in zip(request_ids, best_RK)
    ]
    schema = pa.schema([("system", pa.string()), ("request_id", pa.string()), ("item_ids", pa.list_(pa.string()))])
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd")
