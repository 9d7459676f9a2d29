"""Rankings and soft scores of the sequence teachers.

Shapes: M teachers, R requests, B requests of a batch, C candidates, I items, K ranks, T text size, H heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from components.finetune.sequence.inputs import negative_probabilities
from rankline.model.networks import Teacher
from rankline.runtime.progress import Progress
from rankline.train.distributed import ALONE, DistributedContext
from rankline.train.examples import Examples, Requests
from rankline.train.item_networks import profile_inputs
from rankline.train.ranks import target_rank
from rankline.train.sampled_items import FusedItems, fuse_all

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
MAX_PAIRS = 1 << 18  # most (request, item) pairs scored at once: memory does not grow with the catalogue
RANKED_REQUESTS, SOFT_REQUESTS = 32, 64  # requests of one batch
RECENT_EVENTS = 10  # the events that a history's mean text vector is taken of


@dataclass(frozen=True)
class CandidateBatch:
    """Some candidates of some requests of a split."""

    data: Examples
    requests: Requests
    rows_B: Ints
    candidates_BC: Ints


@dataclass(frozen=True)
class TeacherEnsemble:
    """One teacher or several, each with its text vectors; the ensemble's score is the mean of theirs."""

    members: list[tuple[Teacher, Tensor]]
    side_IS: Tensor

    @torch.no_grad()
    def fused(self) -> list[FusedItems]:
        """Each member's vectors of the whole catalogue."""
        for model, _ in self.members:
            model.eval()
        return [FusedItems(fuse_all(model.fusion, text_IT, self.side_IS)) for model, text_IT in self.members]

    @torch.no_grad()
    def member_logits(self, fused: list[FusedItems], batch: CandidateBatch) -> Tensor:
        """[M, B, C] each member's logits of the first head."""
        logits = [score_candidates(model, own, batch)[..., 0] for (model, _), own in zip(self.members, fused)]
        return torch.stack(logits)


@dataclass(frozen=True)
class RankedItems:
    """Rankings of requests over the whole catalogue without seen items."""

    best_RK: Ints
    target_ranks: Ints


def score_candidates(model: Teacher, fused: FusedItems, batch: CandidateBatch) -> Tensor:
    """[B, C, H] the teacher's logits for some candidates of some requests."""
    requests, rows_B, device = batch.requests, batch.rows_B, fused.vectors_TD.device
    arrays = (requests.ratings_RL, requests.ages_RL, requests.lengths_R)
    ratings_BL, ages_BL, lengths_B = (torch.from_numpy(part[rows_B]).to(device) for part in arrays)
    features_BCF = torch.from_numpy(batch.data.features(requests, rows_B, batch.candidates_BC)).to(device)
    candidates_BCD, events_BLD = fused.lookup(batch.candidates_BC), fused.lookup(requests.items_RL[rows_B])
    known_BN = profile_inputs(requests.profiles, rows_B, device) if requests.profiles is not None else None
    logits_BCH: Tensor = model(events_BLD, ratings_BL, ages_BL, lengths_B, candidates_BCD, features_BCF, known_BN)
    return logits_BCH


def rank_all(
    ensemble: TeacherEnsemble,
    data: Examples,
    requests: Requests,
    *,
    depth: int = 10,
    distributed: DistributedContext = ALONE,
) -> RankedItems:
    """Rank every item for every request by the first head; several processes share the requests."""
    fused, items = ensemble.fused(), len(data.item_ids)
    columns = max(1, MAX_PAIRS // RANKED_REQUESTS)
    best_RK = np.zeros((len(requests), min(depth, items)), np.int64)
    target_R = np.zeros(len(requests), np.int64)
    first, stride = distributed.rank * RANKED_REQUESTS, distributed.world_size * RANKED_REQUESTS
    for start in range(first, len(requests), stride):
        rows_B = np.arange(start, min(start + RANKED_REQUESTS, len(requests)))
        parts = []
        for first in range(0, items, columns):
            candidates_BC = np.tile(np.arange(first, min(first + columns, items)), (len(rows_B), 1))
            logits_MBC = ensemble.member_logits(fused, CandidateBatch(data, requests, rows_B, candidates_BC))
            parts.append(logits_MBC.mean(0).cpu().numpy())
        for row, scores_I in zip(rows_B, np.concatenate(parts, 1)):
            scores_I[requests.seen[row]] = -np.inf
            best_RK[row] = _top_items(scores_I, depth)
            target_R[row] = target_rank(scores_I, requests.targets[row][0])
    results = [torch.from_numpy(best_RK), torch.from_numpy(target_R)]
    distributed.all_reduce(results)
    return RankedItems(*(part.numpy() for part in results))


def closest_to_history(text_IT: Floats, requests: Requests, depth: int) -> Ints:
    """[R, K] the encoder's own ranking: the unseen items closest to the mean text vector of the last events."""
    return np.stack([_top_items(scores_I, depth) for scores_I in _history_similarity(text_IT, requests)])


def _history_similarity(text_IT: Floats, requests: Requests) -> Iterator[Floats]:
    for row, length in enumerate(requests.lengths_R):
        recent = requests.items_RL[row, max(0, length - RECENT_EVENTS) : length]
        scores_I = text_IT @ text_IT[recent].mean(0) if len(recent) else np.zeros(len(text_IT), np.float32)
        scores_I[requests.seen[row]] = -np.inf
        yield scores_I


def _top_items(scores_I: Floats, depth: int) -> Ints:
    """The best items, equal scores in the order of the rows; -1 where fewer than ``depth`` can be ranked."""
    considered = np.arange(len(scores_I))
    if len(scores_I) > 4 * depth:  # sort only what may be among the best
        least = -np.partition(-scores_I, depth)[depth]
        if np.isfinite(least):
            considered = np.flatnonzero(scores_I >= least)
    order = considered[np.argsort(-scores_I[considered], kind="stable")[:depth]]
    return np.where(np.isfinite(scores_I[order]), order, -1)


def soft_scores(
    ensemble: TeacherEnsemble, data: Examples, requests: Requests, *, count: int, seed: int, progress: Progress
) -> dict[str, npt.NDArray[Any]]:
    """candidates [R, C] and their logits [R, C]: the target, labelled negatives, and sampled items.

    Several teachers add the standard deviation of their logits, deviation [R, C].
    """
    rng, probability_I, fused = np.random.default_rng(seed), negative_probabilities(data), ensemble.fused()
    candidates_RC = rng.choice(len(probability_I), (len(requests), count), p=probability_I)
    for row in range(len(requests)):
        labelled = np.concatenate([requests.targets[row][:1], requests.negatives[row]])[: count // 2]
        candidates_RC[row, : len(labelled)] = labelled
    logits_RC = np.zeros((len(requests), count), np.float32)
    deviation_RC = np.zeros_like(logits_RC)
    for start in range(0, len(requests), SOFT_REQUESTS):
        rows_B = np.arange(start, min(start + SOFT_REQUESTS, len(requests)))
        batch = CandidateBatch(data, requests, rows_B, candidates_RC[rows_B])
        logits_MBC = ensemble.member_logits(fused, batch)
        logits_RC[rows_B] = logits_MBC.mean(0).cpu().numpy()
        deviation_RC[rows_B] = logits_MBC.std(0, correction=0).cpu().numpy()
        progress.update(start + len(rows_B), len(requests))
    labels: dict[str, npt.NDArray[Any]] = {"candidates": candidates_RC, "logits": logits_RC}
    return labels if len(ensemble.members) == 1 else {**labels, "deviation": deviation_RC}


def write_rankings(path: Path, item_ids: list[str], request_ids: list[str], ranked: dict[str, Ints]) -> None:
    """One row per system and request: the ids of its best items in order."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    rows = [
        {"system": system, "request_id": request, "item_ids": [item_ids[i] for i in best_K if i >= 0]}
        for system, best_RK in ranked.items()
        for request, best_K in zip(request_ids, best_RK)
    ]
    schema = pa.schema([("system", pa.string()), ("request_id", pa.string()), ("item_ids", pa.list_(pa.string()))])
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd")
