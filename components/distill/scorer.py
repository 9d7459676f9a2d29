"""The scorer that weighs the candidate sources: its loss, its quality, and its logits for the parity check.

Shapes: R requests, N candidates of one request, B requests of a batch, C candidates padded to the longest,
D vector size, F features, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.distill.candidate_table import CandidateDrawer, CandidateTable
from components.distill.config import DistillConfig
from rankline.contracts import FeatureNames
from rankline.errors import TooSmall
from rankline.evaluation import metrics
from rankline.evaluation.snapshot_requests import SnapshotRequest
from rankline.features.label_values import LIKED_WITHOUT_LABEL
from rankline.model.networks import HEADS, Scorer
from rankline.model.scoring import Catalogue
from rankline.runtime.progress import Progress
from rankline.train.fit import FitSettings, History, Trainer, fit
from rankline.train.ranks import ndcg_of_ranks, target_rank

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
NO_ROWS = np.zeros(0, np.int64)
MIN_REQUESTS = 10
WARM_UP = 0.05
MISSED = 10_000  # the rank of a target that is no candidate


@dataclass(frozen=True)
class ScorerInputs:
    """What the scorer learns from: drawn candidates with targets, and the teacher's candidates with its logits."""

    table: CandidateTable
    soft_table: CandidateTable
    teacher_RC: Tensor
    catalogue: Catalogue
    names: FeatureNames
    heads: int = len(HEADS)  # 1 where labels have heads of their own
    liked: float = LIKED_WITHOUT_LABEL  # the smallest rating that counts as liked

    @classmethod
    def draw(
        cls,
        requests: Sequence[SnapshotRequest],
        drawer: CandidateDrawer,
        soft: Mapping[str, tuple[Ints, Floats]],
        *,
        heads: int,
        liked: float,
        progress: Progress,
    ) -> ScorerInputs:
        """Draw the candidates of some requests; ``soft`` has the teacher's candidates and logits by request id."""
        labels = [soft[request.request_id] for request in requests]
        candidates = [candidates_C for candidates_C, _ in labels]
        return cls(
            drawer.draw(requests, progress=progress, with_shown=True),
            drawer.draw(requests, progress=progress, fixed_candidates=candidates),
            torch.from_numpy(np.array([logits_C for _, logits_C in labels], np.float32)),
            drawer.catalogue,
            drawer.names,
            heads,
            liked,
        )


class ScorerTrainer(Trainer[Ints]):
    """Trains a scorer; a batch holds rows of the table."""

    def __init__(
        self, scorer: Scorer, inputs: ScorerInputs, rows: Ints, config: DistillConfig, device: torch.device
    ) -> None:
        self.scorer, self.inputs, self.rows, self.config, self.device = scorer, inputs, rows, config, device
        self.positions = target_positions(inputs.table)
        self.mean_gain = inputs.table.mean_gain if inputs.table.gains else 1.0
        optimizer = torch.optim.AdamW(
            scorer.parameters(), lr=config.scorer_learning_rate, weight_decay=config.scorer_weight_decay
        )
        super().__init__({"scorer": scorer}, optimizer, np.random.default_rng(config.seed))

    def batches(self, epoch: int) -> list[Ints]:
        """The requests in random order."""
        self.scorer.train()
        order, size = self.rng.permutation(self.rows), self.config.scorer_batch_size
        return [order[start : start + size] for start in range(0, len(order), size)]

    def step(self, batch: Ints) -> dict[str, float]:
        """The gradients of one step: clicks, likes, and the teacher's soft labels."""
        tensors = self.inputs.table.batch(batch, self.inputs.catalogue)
        left_BD, items_BCD, features_BCF, real_BC = (tensor.to(self.device) for tensor in tensors)
        logits_BCH = self.scorer(left_BD, items_BCD, features_BCF)
        click_loss = self._click_loss(batch, logits_BCH, real_BC)
        if self.inputs.heads > 1:
            click_loss = click_loss + self.config.like_weight * self._like_loss(batch, logits_BCH)
        loss = click_loss + self.config.scorer_soft_weight * self._soft_loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        return {"loss": float(loss.detach())}

    def _click_loss(self, batch: Ints, logits_BCH: Tensor, real_BC: Tensor) -> Tensor:
        """Cross-entropy of the targets among the candidates."""
        click_BC = F.log_softmax(logits_BCH[..., 0].masked_fill(~real_BC, -1e4), -1)
        positions = [self.positions[r] for r in batch]
        log_shares = [click_BC[b, places] for b, places in enumerate(positions)]
        if self.inputs.table.gains:
            log_shares = [shares * self._weights(r) for shares, r in zip(log_shares, batch)]
        return -torch.stack([shares.mean() for shares in log_shares]).mean()

    def _weights(self, r: int) -> Tensor:
        """The weights of a request's targets among its candidates; 1 in the mean over all targets."""
        table = self.inputs.table
        weights = [table.gains[r].get(int(row), self.mean_gain) for row in table.rows[r][self.positions[r]]]
        return torch.tensor(weights, device=self.device) / self.mean_gain

    def _like_loss(self, batch: Ints, logits_BCH: Tensor) -> Tensor:
        """Whether the targets with a rating were liked."""
        likes = self.inputs.table.likes
        rated = [
            (logits_BCH[b, position, 1], float(rating >= self.inputs.liked))
            for b, r in enumerate(batch)
            for position, rating in zip(self.positions[r], likes[r][: len(self.positions[r])])
            if rating > 0
        ]
        if not rated:
            return torch.zeros((), device=self.device)
        liked = torch.tensor([label for _, label in rated]).to(self.device)
        return F.binary_cross_entropy_with_logits(torch.stack([logit for logit, _ in rated]), liked)

    def _soft_loss(self, batch: Ints) -> Tensor:
        """Distillation: the teacher's logits of its own candidates."""
        tensors = self.inputs.soft_table.batch(batch, self.inputs.catalogue)
        left_BD, items_BCD, features_BCF, _ = (tensor.to(self.device) for tensor in tensors)
        temperature = self.config.temperature
        divergence = F.kl_div(
            F.log_softmax(self.scorer(left_BD, items_BCD, features_BCF)[..., 0] / temperature, -1),
            F.log_softmax(self.inputs.teacher_RC[batch].to(self.device) / temperature, -1),
            log_target=True,
            reduction="batchmean",
        )
        return divergence * (temperature**2)


def train(
    inputs: ScorerInputs,
    config: DistillConfig,
    *,
    device: torch.device,
    progress: Progress,
    excluded_rows: Ints = NO_ROWS,
) -> tuple[Scorer, History]:
    """Train a scorer on all requests but ``excluded_rows``; the scorer on the CPU.

    Raises:
        TooSmall: fewer than ten requests have their target among their candidates.
    """
    rows = _usable_rows(inputs.table, excluded_rows)
    torch.manual_seed(config.seed)
    scorer = _build_scorer(inputs, rows, config).to(device)
    settings = FitSettings(
        epochs=config.scorer_epochs,
        learning_rate=config.scorer_learning_rate,
        warm_up=WARM_UP,
        section="distill",
        rate_setting="scorer_learning_rate",
    )
    progress.phase("training the scorer")
    trainer = ScorerTrainer(scorer, inputs, rows, config, device)
    history = fit(trainer, settings, checkpoints=None, progress=progress)
    scorer.cpu().eval()
    return scorer, history


def _usable_rows(table: CandidateTable, excluded_rows: Ints) -> Ints:
    """The requests whose target is among their candidates."""
    rows = np.array([r for r, positions in enumerate(target_positions(table)) if len(positions)], np.int64)
    usable = rows[~np.isin(rows, excluded_rows)]
    if len(usable) < MIN_REQUESTS:
        raise TooSmall(
            "there are too few validation requests to train the scorer",
            expected=f"at least {MIN_REQUESTS} whose target is among their candidates",
            found=f"{len(usable)} of {len(table.rows)}",
            hint="provide more data, or raise distill.candidates_per_source",
        )
    return usable


def _build_scorer(inputs: ScorerInputs, rows: Ints, config: DistillConfig) -> Scorer:
    features = inputs.table.features
    scorer = Scorer(
        size=inputs.table.left_RD.shape[1],
        features=features[0].shape[1],
        pair=config.scorer_pair,
        hidden=config.scorer_hidden,
        dropout=config.scorer_dropout,
        heads=inputs.heads,
    )
    has_users = "covisit_share" in inputs.names.sources
    if config.scorer_begins == "towers" or (config.scorer_begins == "auto" and not has_users):
        scorer.begin_F[inputs.names.columns.index("towers_behind_best")] = 1.0  # a logit: the towers learn a softmax
    scorer.standardize.fit(torch.from_numpy(np.concatenate([features[r] for r in rows])))
    return scorer


def target_positions(table: CandidateTable) -> list[Ints]:
    """The positions of each request's targets among its candidates."""
    return [np.flatnonzero(np.isin(rows, targets)) for rows, targets in zip(table.rows, table.targets)]


@torch.no_grad()
def logits(table: CandidateTable, scorer: nn.Module, catalogue: Catalogue) -> list[Floats]:
    """[N, H] torch's logits for each request's candidates."""
    out = []
    for r in range(len(table.rows)):
        left_BD, items_BCD, features_BCF, _ = table.batch(np.array([r]), catalogue)
        out.append(scorer(left_BD, items_BCD, features_BCF)[0].numpy())
    return out


def ndcg(table: CandidateTable, scorer: Scorer, catalogue: Catalogue) -> float:
    """nDCG@10 of the scorer by the first target of each request, by all of them where they are graded."""
    scores = logits(table, scorer, catalogue)
    if table.gains:
        ranked = [rows[np.argsort(-scores_NH[:, 0], kind="stable")] for rows, scores_NH in zip(table.rows, scores)]
        return metrics.mean_graded_ndcg(ranked, table.gains, k=10)
    ranks: list[int] = []
    for r, scores_NH in enumerate(scores):
        positions = np.flatnonzero(np.isin(table.rows[r], table.targets[r][:1]))
        ranks.append(target_rank(scores_NH[:, 0], positions[0]) if len(positions) else MISSED)
    return ndcg_of_ranks(np.array(ranks), k=10)


def write_parity(path: Path, table: CandidateTable, scorer: Scorer, catalogue: Catalogue) -> None:
    """One row per request: its candidates and the logits of the first head, to compare the served model with."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    columns = {
        "request_id": table.ids,
        "item_ids": [[catalogue.item_ids[i] for i in rows] for rows in table.rows],
        "logits": [scores_NH[:, 0].tolist() for scores_NH in logits(table, scorer, catalogue)],
    }
    parquet.write_table(pa.table(columns), path, compression="zstd")
