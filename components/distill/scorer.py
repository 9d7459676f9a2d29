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

from components.distill import mixing
from components.distill.candidate_table import CandidateDrawer, CandidateTable
from components.distill.config import DistillConfig
from components.distill.mixing import target_places
from rankline.contracts import FeatureNames
from rankline.evaluation.snapshot_requests import SnapshotRequest
from rankline.features.label_values import LIKED_WITHOUT_LABEL
from rankline.model.networks import HEADS, Scorer
from rankline.model.scoring import Catalogue
from rankline.runtime.progress import Progress
from rankline.train.fit import FitSettings, History, Trainer, fit

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
NO_ROWS = np.zeros(0, np.int64)
WARM_UP = 0.05


@dataclass(frozen=True)
class ScorerInputs:
    """What the scorer learns from: drawn candidates with targets, and the teacher's candidates with its logits."""

    table: CandidateTable
    soft_table: CandidateTable | None  # none where soft labels have no weight
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
        """Draw the candidates of some requests; ``soft`` has the teacher's candidates and logits by request id, and is
        empty where they have no weight."""
        labels = [soft[request.request_id] for request in requests] if soft else []
        candidates = [candidates_C for candidates_C, _ in labels]
        return cls(
            drawer.draw(requests, progress=progress, with_shown=True),
            drawer.draw(requests, progress=progress, fixed_candidates=candidates) if labels else None,
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
        self.positions = target_places(inputs.table)
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
        loss = self._click_loss(batch, logits_BCH, real_BC)
        if self.inputs.heads > 1:
            loss = loss + self.config.like_weight * self._like_loss(batch, logits_BCH)
        if self.inputs.soft_table is not None:
            soft_loss = self._soft_loss(batch, self.inputs.soft_table)
            loss = loss + self.config.scorer_soft_weight * soft_loss
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

    def _soft_loss(self, batch: Ints, soft_table: CandidateTable) -> Tensor:
        """Distillation: the teacher's logits of its own candidates."""
        tensors = soft_table.batch(batch, self.inputs.catalogue)
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
    begin_F: Floats,
    device: torch.device,
    progress: Progress,
    excluded_rows: Ints = NO_ROWS,
) -> tuple[Scorer, History]:
    """Train a scorer that begins at a mix, on all requests but ``excluded_rows``; the scorer on the CPU."""
    rows = usable_rows(inputs.table, excluded_rows)
    scorer = build(inputs, begin_F, config).to(device)
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


def usable_rows(table: CandidateTable, excluded_rows: Ints = NO_ROWS) -> Ints:
    """The requests whose target is among their candidates."""
    rows = np.array([r for r, places in enumerate(target_places(table)) if len(places)], np.int64)
    return rows[~np.isin(rows, excluded_rows)]


def build(inputs: ScorerInputs, begin_F: Floats, config: DistillConfig) -> Scorer:
    """A scorer whose first head gives a mix and nothing else, until it is trained."""
    torch.manual_seed(config.seed)
    scorer = Scorer(
        size=inputs.table.left_RD.shape[1],
        features=len(inputs.names.columns),
        pair=config.scorer_pair,
        hidden=config.scorer_hidden,
        dropout=config.scorer_dropout,
        heads=inputs.heads,
    )
    scorer.begin_F.copy_(torch.from_numpy(begin_F))
    if inputs.table.features:
        scorer.standardize.fit(torch.from_numpy(np.concatenate(inputs.table.features)))
    return scorer.eval()


@torch.no_grad()
def logits(table: CandidateTable, scorer: nn.Module, catalogue: Catalogue) -> list[Floats]:
    """[N, H] torch's logits for each request's candidates."""
    out = []
    for r in range(len(table.rows)):
        left_BD, items_BCD, features_BCF, _ = table.batch(np.array([r]), catalogue)
        out.append(scorer(left_BD, items_BCD, features_BCF)[0].numpy())
    return out


def ndcg(table: CandidateTable, scorer: Scorer, catalogue: Catalogue) -> npt.NDArray[np.float64]:
    """[R] nDCG@10 of each request by the scorer's first head."""
    return mixing.ndcg(table, [scores_NH[:, 0] for scores_NH in logits(table, scorer, catalogue)])


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
