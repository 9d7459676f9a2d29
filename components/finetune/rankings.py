"""What the teacher thinks: rankings of the frozen requests for evaluation, soft scores for the student.

Shapes: R requests, C candidates, I items, K ranks, T text size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from rankline import training
from rankline.examples import Examples, Requests
from rankline.model import Teacher
from rankline.progress import Progress

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Ranked:
    """Rankings of requests over the whole catalogue, seen items left out."""

    best_RK: Ints
    target_ranks: Ints


def score(model: Teacher, fused_ID: torch.Tensor, data: Examples, requests: Requests, rows: Ints,
          candidates_BC: Ints, device: torch.device) -> torch.Tensor:  # fmt: skip
    """[B, C, H] the teacher's logits for some candidates of some requests."""
    history = (requests.items_RL, requests.ratings_RL, requests.ages_RL, requests.lengths_R)
    items_BL, ratings_BL, ages_BL, lengths_B = (torch.from_numpy(part[rows]).to(device) for part in history)
    features_BCF = torch.from_numpy(data.features(requests, rows, candidates_BC)).to(device)
    candidates_BCD = F.embedding(torch.from_numpy(candidates_BC).to(device), fused_ID)
    events_BLD = F.embedding(items_BL, fused_ID)
    logits_BCH: torch.Tensor = model(events_BLD, ratings_BL, ages_BL, lengths_B, candidates_BCD, features_BCF)
    return logits_BCH


@torch.no_grad()
def rank_all(
    model: Teacher,
    text_IT: torch.Tensor,
    side_IS: torch.Tensor,
    data: Examples,
    requests: Requests,
    *,
    device: torch.device,
    depth: int = 10,
    batch_size: int = 32,
) -> Ranked:
    """Rank every item for every request by the first head."""
    model.eval()
    fused_ID = model.fusion(text_IT, side_IS)
    every_I = np.arange(len(data.item_ids))
    best, ranks = [], []
    for start in range(0, len(requests), batch_size):
        rows = np.arange(start, min(start + batch_size, len(requests)))
        candidates_BI = np.tile(every_I, (len(rows), 1))
        scores_BI = score(model, fused_ID, data, requests, rows, candidates_BI, device)[..., 0].cpu().numpy()
        for row, scores_I in zip(rows, scores_BI):
            scores_I[requests.seen[row]] = -np.inf
            best.append(_top(scores_I, depth))
            ranks.append(training.rank_of(scores_I, requests.targets[row][0]))
    return Ranked(np.array(best, np.int64).reshape(len(requests), -1), np.array(ranks, np.int64))


def mean_history(text_IT: torch.Tensor, requests: Requests) -> Floats:
    """[R, I] what the encoder alone says: closeness to the mean of the words of the last ten events."""
    vectors_IT = text_IT.cpu().numpy()
    out_RI = np.zeros((len(requests), len(vectors_IT)), np.float32)
    for row, length in enumerate(requests.lengths_R):
        recent = requests.items_RL[row, max(0, length - 10) : length]
        if len(recent):
            out_RI[row] = vectors_IT @ vectors_IT[recent].mean(0)
    return out_RI


def best_unseen(scores_RI: Floats, requests: Requests, depth: int) -> Ints:
    """[R, K] the best items of each request without those it has seen."""
    masked_RI = scores_RI.copy()
    for row, seen in enumerate(requests.seen):
        masked_RI[row, seen] = -np.inf
    return np.stack([_top(scores_I, depth) for scores_I in masked_RI])


def _top(scores_I: Floats, depth: int) -> Ints:
    """The best items, -1 where fewer than ``depth`` may be ranked."""
    order = np.argsort(-scores_I, kind="stable")[:depth]
    return np.where(np.isfinite(scores_I[order]), order, -1)


@torch.no_grad()
def soft_scores(
    model: Teacher,
    text_IT: torch.Tensor,
    side_IS: torch.Tensor,
    data: Examples,
    requests: Requests,
    *,
    count: int,
    chance_I: npt.NDArray[np.float64],
    seed: int,
    device: torch.device,
    progress: Progress,
    batch_size: int = 64,
) -> dict[str, npt.NDArray[Any]]:
    """candidates [R, C] and their teacher logits [R, C]: the target, sampled negatives, and items drawn by chance."""
    model.eval()
    rng = np.random.default_rng(seed)
    fused_ID = model.fusion(text_IT, side_IS)
    candidates_RC = rng.choice(len(chance_I), (len(requests), count), p=chance_I)
    for row in range(len(requests)):
        given = np.concatenate([requests.targets[row][:1], requests.negatives[row]])[: count // 2]
        candidates_RC[row, : len(given)] = given
    logits_RC = np.zeros((len(requests), count), np.float32)
    for start in range(0, len(requests), batch_size):
        rows = np.arange(start, min(start + batch_size, len(requests)))
        scored = score(model, fused_ID, data, requests, rows, candidates_RC[rows], device)
        logits_RC[rows] = scored[..., 0].cpu().numpy()
        progress.update(start + len(rows), len(requests))
    return {"candidates": candidates_RC, "logits": logits_RC}


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
