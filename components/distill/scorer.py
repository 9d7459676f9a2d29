"""The scorer that mixes the sources: its training table, its loop, and what torch says for the parity check.

Shapes: R requests, N candidates of one request, C candidates padded to the longest, D vector size,
F features, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from components.distill.config import DistillConfig
from rankline.contracts import FeatureNames
from rankline.errors import TooSmall
from rankline.evaluation.snapshot_requests import SnapshotRequest
from rankline.features.transforms import stars
from rankline.model import scoring
from rankline.model.networks import HistoryTower, Scorer
from rankline.model.scoring import CandidateSettings, Catalogue
from rankline.runtime.progress import Progress
from rankline.train import training

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
QueryVectors = Mapping[str, Floats]  # request id -> [D] its query's vector, of those that are asked in words
NO_ROWS = np.zeros(0, np.int64)
MIN_REQUESTS = 10


@torch.no_grad()
def left_vector(
    tower: HistoryTower, request: SnapshotRequest, catalogue: Catalogue, max_history: int, query_D: Floats | None
) -> Floats:
    """[D] the left vector of one request: its history's plus its query's; zeros where there is neither."""
    query_part_D = np.zeros(tower.size, np.float32) if query_D is None else query_D
    history = scoring.truncate_history(request.state, max_history).history
    ratings = history.ratings or [0.0] * len(history.item_ids)
    known = [(item, rating) for item, rating in zip(history.item_ids, ratings) if item in catalogue.index]
    if not known:
        return query_part_D
    rows_L = catalogue.rows([item for item, _ in known])
    ratings_L = stars([rating for _, rating in known])
    left_BD = tower(
        torch.from_numpy(catalogue.vectors_ID[rows_L])[None],
        torch.from_numpy(ratings_L)[None],
        torch.tensor([len(rows_L)]),
    )
    left_D: Floats = left_BD[0].numpy() + query_part_D
    return left_D


@dataclass(frozen=True)
class CandidateTable:
    """The candidates of some requests with all that the scorer reads of them."""

    ids: list[str]
    left_RD: Floats
    rows: list[Ints]
    features: list[Floats]
    targets: list[Ints]
    likes: list[Floats]

    @property
    def recall(self) -> float:
        """Share of the requests whose target is among their candidates."""
        hits = [bool(np.isin(targets, rows).any()) for rows, targets in zip(self.rows, self.targets)]
        return float(np.mean(hits)) if hits else 0.0

    @property
    def mean_candidates(self) -> float:
        """Candidates a request, on average."""
        return float(np.mean([len(rows) for rows in self.rows])) if self.rows else 0.0

    @classmethod
    def draw(
        cls,
        requests: Sequence[SnapshotRequest],
        tower: HistoryTower,
        catalogue: Catalogue,
        settings: CandidateSettings,
        names: FeatureNames,
        *,
        queries: QueryVectors,
        progress: Progress,
        fixed_candidates: Sequence[Ints] | None = None,
    ) -> CandidateTable:
        """Draw candidates as serving does, or take the ones ``fixed_candidates``."""
        lefts, rows, features = [], [], []
        for done, request in enumerate(requests):
            state = scoring.truncate_history(request.state, settings.max_history)
            left_D = left_vector(tower, request, catalogue, settings.max_history, queries.get(request.request_id))
            scores = scoring.source_scores(state, left_D, catalogue, settings, query=request.query or "")
            seen = catalogue.rows(state.seen)
            rows_N = (
                scoring.draw_candidates(scores, seen, per_source=settings.candidates_per_source)
                if fixed_candidates is None
                else fixed_candidates[done]
            )
            context = scoring.context_features(state)
            lefts.append(left_D)
            rows.append(rows_N)
            features.append(scoring.candidate_features(state, context, rows_N, scores, catalogue, names))
            progress.update(done + 1, len(requests))
        return cls(
            ids=[request.request_id for request in requests],
            left_RD=np.stack(lefts) if lefts else np.zeros((0, tower.size), np.float32),
            rows=rows,
            features=features,
            targets=[catalogue.rows(request.targets) for request in requests],
            likes=[np.array(request.target_ratings, np.float32) for request in requests],
        )

    def select(self, rows: Ints) -> CandidateTable:
        """Some of the requests."""

        def pick(values: list[Any]) -> list[Any]:
            return [values[row] for row in rows]

        return CandidateTable(
            pick(self.ids),
            self.left_RD[rows],
            pick(self.rows),
            pick(self.features),
            pick(self.targets),
            pick(self.likes),
        )

    def batch(self, picked: Ints, catalogue: Catalogue) -> tuple[torch.Tensor, ...]:
        """left [B, D], items [B, C, D], features [B, C, F], which places are real [B, C]."""
        width = max(len(self.rows[r]) for r in picked)
        rows_BC = np.zeros((len(picked), width), np.int64)
        features_BCF = np.zeros((len(picked), width, self.features[0].shape[1]), np.float32)
        real_BC = np.zeros((len(picked), width), bool)
        for b, r in enumerate(picked):
            count = len(self.rows[r])
            rows_BC[b, :count], features_BCF[b, :count], real_BC[b, :count] = (
                self.rows[r],
                self.features[r],
                True,
            )
        items_BCD = catalogue.vectors_ID[rows_BC]
        return tuple(torch.from_numpy(a) for a in (self.left_RD[picked], items_BCD, features_BCF, real_BC))


def train(
    table: CandidateTable,
    requests: Sequence[SnapshotRequest],
    catalogue: Catalogue,
    *,
    soft: tuple[Ints, Floats, dict[str, int]],
    names: FeatureNames,
    config: DistillConfig,
    device: torch.device,
    progress: Progress,
    tower: HistoryTower,
    queries: QueryVectors,
    excluded_rows: Ints = NO_ROWS,
) -> tuple[Scorer, dict[str, Any]]:
    """Train the scorer on the candidates of ``table``, ``but`` some rows; the scorer on the CPU, its curve and its fit.

    Raises:
        TooSmall: fewer than ten requests have their target among their candidates.
    """
    target_positions = [_target_positions(rows, targets) for rows, targets in zip(table.rows, table.targets)]
    usable = np.array(
        [r for r, found in enumerate(target_positions) if len(found) and r not in excluded_rows], np.int64
    )
    if len(usable) < MIN_REQUESTS:
        raise TooSmall(
            "too few validation requests to learn how the sources mix",
            expected=f"at least {MIN_REQUESTS} whose target is among their candidates",
            found=f"{len(usable)} of {len(table.rows)}",
            hint="give more data, or raise distill.candidates_per_source",
        )
    candidates_RC, logits_RC, soft_row = soft
    settings = CandidateSettings(config.candidates_per_source, config.covisit_decay, config.max_history)
    soft_candidates = [candidates_RC[soft_row[request.request_id]] for request in requests]
    soft_table = CandidateTable.draw(
        requests,
        tower,
        catalogue,
        settings,
        names,
        queries=queries,
        progress=progress,
        fixed_candidates=soft_candidates,
    )
    teacher_RC = torch.from_numpy(np.stack([logits_RC[soft_row[request.request_id]] for request in requests]))

    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    size, features = table.left_RD.shape[1], table.features[0].shape[1]
    scorer = Scorer(
        size=size,
        features=features,
        pair=config.scorer_pair,
        hidden=config.scorer_hidden,
        dropout=config.scorer_dropout,
    )
    has_users = "covisit_share" in names.sources
    if config.scorer_begins == "towers" or (config.scorer_begins == "auto" and not has_users):
        scorer.begin_F[names.columns.index("towers_behind_best")] = (
            1.0  # a logit as it is: the towers learnt by softmax
        )
    scorer.standardize.fit(torch.from_numpy(np.concatenate([table.features[r] for r in usable])))
    scorer.to(device)
    optimizer = torch.optim.AdamW(
        scorer.parameters(), lr=config.scorer_learning_rate, weight_decay=config.scorer_weight_decay
    )
    curve = []
    progress.phase("training the scorer")
    for epoch in range(config.scorer_epochs):
        scorer.train()
        order = rng.permutation(usable)
        starts = range(0, len(order), config.scorer_batch_size)
        losses = []
        for step, start in enumerate(starts):
            fraction = (epoch + step / len(starts)) / config.scorer_epochs
            optimizer.param_groups[0]["lr"] = training.learning_rate_at(
                fraction, peak=config.scorer_learning_rate, warm_up=0.05
            )
            picked = order[start : start + config.scorer_batch_size]
            left_BD, items_BCD, features_BCF, real_BC = (x.to(device) for x in table.batch(picked, catalogue))
            logits_BCH = scorer(left_BD, items_BCD, features_BCF)
            click_BC = F.log_softmax(logits_BCH[..., 0].masked_fill(~real_BC, -1e4), -1)
            click_loss = -torch.stack([click_BC[b, target_positions[r]].mean() for b, r in enumerate(picked)]).mean()
            liked = [
                (logits_BCH[b, p, 1], float(rating >= 4))
                for b, r in enumerate(picked)
                for p, rating in zip(target_positions[r], table.likes[r][: len(target_positions[r])])
                if rating > 0
            ]
            like_loss = (
                F.binary_cross_entropy_with_logits(
                    torch.stack([logit for logit, _ in liked]), torch.tensor([y for _, y in liked]).to(device)
                )
                if liked
                else torch.zeros((), device=device)
            )
            left_BD, items_BCD, features_BCF, _ = (x.to(device) for x in soft_table.batch(picked, catalogue))
            soft_loss = F.kl_div(
                F.log_softmax(scorer(left_BD, items_BCD, features_BCF)[..., 0] / config.temperature, -1),
                F.log_softmax(teacher_RC[picked].to(device) / config.temperature, -1),
                log_target=True,
                reduction="batchmean",
            ) * (config.temperature**2)
            loss = click_loss + config.like_weight * like_loss + config.scorer_soft_weight * soft_loss
            value = float(loss.detach())
            training.check_finite(value, step="distill", epoch=epoch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(value)
            progress.update(epoch * len(starts) + step + 1, config.scorer_epochs * len(starts), loss=value)
        curve.append({"epoch": epoch, "loss": float(np.mean(losses))})
    scorer.cpu().eval()
    return scorer, {"curve": curve, "ndcg": ndcg(table, scorer, catalogue)}


def _target_positions(rows_N: Ints, targets: Ints) -> Ints:
    """Where the targets stand among the candidates."""
    return np.flatnonzero(np.isin(rows_N, targets))


@torch.no_grad()
def logits(table: CandidateTable, scorer: Scorer, catalogue: Catalogue) -> list[Floats]:
    """[N, H] torch's logits for each request's candidates."""
    out = []
    for r in range(len(table.rows)):
        left_BD, items_BCD, features_BCF, _ = table.batch(np.array([r]), catalogue)
        out.append(scorer(left_BD, items_BCD, features_BCF)[0].numpy())
    return out


def ndcg(table: CandidateTable, scorer: Scorer, catalogue: Catalogue) -> float:
    """nDCG@10 of the mix on the first target of each request."""
    ranks = []
    for r, scores_NH in enumerate(logits(table, scorer, catalogue)):
        positions = np.flatnonzero(table.rows[r] == table.targets[r][0]) if len(table.targets[r]) else []
        ranks.append(training.target_rank(scores_NH[:, 0], positions[0]) if len(positions) else 10_000)
    return training.ndcg_of_ranks(np.array(ranks), k=10)


def write_parity(path: Path, table: CandidateTable, scorer: Scorer, catalogue: Catalogue) -> None:
    """One row a request: its candidates and the first head's logits, for the served model to be held against."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    scored = logits(table, scorer, catalogue)
    parquet.write_table(
        pa.table(
            {
                "request_id": table.ids,
                "item_ids": [[catalogue.item_ids[i] for i in rows] for rows in table.rows],
                "logits": [scores_NH[:, 0].tolist() for scores_NH in scored],
            }
        ),
        path,
        compression="zstd",
    )
