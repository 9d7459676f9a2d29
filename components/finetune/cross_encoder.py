"""The teacher of queries: a cross-encoder that reads a query and an item together.

It learns to tell the items that answer a query from similar ones: the candidates of BM25 and of the untuned encoder.

Shapes: R requests, B requests of a step, C candidates, I items, N pairs, T text size, W tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from components.finetune import encoder as encoders
from components.finetune.context import TrainingContext
from components.finetune.sequence.inputs import TeacherInputs
from rankline.evaluation import metrics
from rankline.features.bm25 import Bm25
from rankline.model.networks import CrossEncoder
from rankline.runtime.progress import Progress
from rankline.text import Tokenizer
from rankline.train.encode import encode_all
from rankline.train.examples import Examples, Requests
from rankline.train.fit import FitSettings, History, Trainer, fit

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
PAIRS_PER_BATCH = 64
BM25_K1, BM25_B = 0.9, 0.4


@dataclass(frozen=True)
class CandidateFinder:
    """Finds candidates for a query before anything is trained."""

    data: Examples
    bm25: Bm25
    text_IT: Floats
    vectors: Mapping[str, Floats]  # query -> [T]

    @classmethod
    def make(cls, inputs: TeacherInputs, *, stemmer: str) -> CandidateFinder:
        """A finder over the catalogue and every query in the data."""
        data, device = inputs.data, inputs.text_IT.device
        queries = list(dict.fromkeys(query for split in data.splits.values() for query in split.queries if query))
        vectors_QT = encode_all(inputs.encoder, inputs.tokenizer, queries, device=device, progress=Progress())
        bm25 = Bm25.from_texts(data.item_texts, stemmer=stemmer, k1=BM25_K1, b=BM25_B)
        return cls(data, bm25, inputs.text_IT.cpu().numpy(), dict(zip(queries, vectors_QT.cpu().numpy())))

    def retrieval_scores(self, query: str, items: Ints) -> Floats:
        """[C, 2] the cosine of each item's text and the query, and log1p of its BM25 score."""
        similarity_C = self.text_IT[items] @ self.vectors[query]
        return np.stack([similarity_C, np.log1p(self.bm25.scores(query)[items])], 1)

    def candidates(self, requests: Requests, rows: Ints, count: int, rng: np.random.Generator) -> Ints:
        """[R, C] the best items of the encoder and of BM25 by turns, then random ones; each item once."""
        count = min(count, len(self.data.item_ids))
        out_RC = np.zeros((len(rows), count), np.int64)
        for r, row in enumerate(rows):
            by_encoder = np.argsort(-(self.text_IT @ self.vectors[requests.queries[row]]), kind="stable")[:count]
            scores_I = self.bm25.scores(requests.queries[row])
            by_bm25 = np.argsort(-scores_I, kind="stable")[:count]
            by_bm25 = by_bm25[scores_I[by_bm25] > 0]
            interleaved = [item for pair in zip(by_encoder, by_bm25) for item in pair]
            random_items = (
                rng.permutation(len(scores_I))[: 2 * count] if len(by_bm25) < count else np.zeros(0, np.int64)
            )
            merged = dict.fromkeys([*map(int, interleaved), *map(int, by_encoder), *map(int, random_items)])
            out_RC[r] = list(merged)[:count]
        return out_RC


def with_targets(candidates_RC: Ints, requests: Requests, rows: Ints) -> Ints:
    """[R, C] the candidates with each request's targets first, at most half of the places."""
    out_RC = candidates_RC.copy()
    width = out_RC.shape[1]
    for r, row in enumerate(rows):
        targets = list(map(int, requests.targets[row][: max(1, width // 2)]))
        out_RC[r] = list(dict.fromkeys([*targets, *map(int, candidates_RC[r])]))[:width]
    return out_RC


@dataclass(frozen=True)
class CrossEncoderScorer:
    """A cross-encoder with everything it needs to score candidates."""

    model: CrossEncoder
    tokenizer: Tokenizer
    texts: list[str]
    finder: CandidateFinder
    device: torch.device
    use_bf16: bool

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: value.cpu().contiguous() for name, value in self.model.state_dict().items()}

    def logits(self, requests: Requests, rows: Ints, candidates_BC: Ints) -> torch.Tensor:
        """[B, C] the score of every candidate of some requests."""
        queries = [requests.queries[row] for row in rows for _ in range(candidates_BC.shape[1])]
        arrays = self.tokenizer.pairs(queries, [self.texts[item] for item in candidates_BC.ravel()])
        ids, mask, types = (torch.from_numpy(part).to(self.device) for part in arrays)
        retrieval = [
            self.finder.retrieval_scores(requests.queries[row], items) for row, items in zip(rows, candidates_BC)
        ]
        retrieval_N2 = torch.from_numpy(np.concatenate(retrieval)).to(self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.use_bf16):
            logits_N: torch.Tensor = self.model(ids, mask, types, retrieval_N2)
        return logits_N.float().view(candidates_BC.shape)

    @torch.no_grad()
    def scores(self, requests: Requests, rows: Ints, candidates_RC: Ints, *, progress: Progress) -> Floats:
        """[R, C] the same for many requests, a few at a time."""
        self.model.eval()
        out_RC = np.zeros(candidates_RC.shape, np.float32)
        rows_per_batch = max(1, PAIRS_PER_BATCH // max(1, candidates_RC.shape[1]))
        for start in range(0, len(rows), rows_per_batch):
            part = slice(start, start + rows_per_batch)
            out_RC[part] = self.logits(requests, rows[part], candidates_RC[part]).cpu().numpy()
            progress.update(min(start + rows_per_batch, len(rows)), len(rows))
        return out_RC


class CrossEncoderTrainer(Trainer[Ints]):
    """Trains a cross-encoder to pick the target among hard negatives; a batch holds positions in `rows_R`."""

    def __init__(
        self, scorer: CrossEncoderScorer, data: Examples, context: TrainingContext, rng: np.random.Generator
    ) -> None:
        config = context.config
        self.scorer, self.config, self.progress = scorer, config, context.progress
        self.train, self.valid = data.splits["train"], data.splits["valid"]
        self.rows_R, self.valid_rows = self.train.query_rows, self.valid.query_rows[: config.pair_valid_requests]
        self.candidates_RC = scorer.finder.candidates(self.train, self.rows_R, config.soft_candidates, rng)
        self.valid_RC = scorer.finder.candidates(self.valid, self.valid_rows, config.soft_candidates, rng)
        model = scorer.model
        groups = [
            {"params": list(model.reader.parameters()), "peak": config.encoder_learning_rate},
            {"params": [*model.head.parameters(), *model.wide.parameters()], "peak": config.learning_rate},
        ]
        optimizer = torch.optim.AdamW(groups, lr=config.encoder_learning_rate, weight_decay=config.weight_decay)
        super().__init__({"model": model}, optimizer, rng)

    def batches(self, epoch: int) -> list[Ints]:
        """Some of the train queries in random order."""
        self.progress.phase("training the cross-encoder")
        self.scorer.model.train()
        count = min(self.config.pair_train_requests or len(self.rows_R), len(self.rows_R))
        steps = max(1, -(-count // self.config.pair_requests))
        return np.array_split(self.rng.permutation(len(self.rows_R))[:count], steps)

    def step(self, batch: Ints) -> dict[str, float]:
        """The gradients of one step: cross-entropy of the target among its negatives."""
        rows_B = self.rows_R[batch]
        candidates_BC = _draw_candidates(
            self.train, rows_B, self.candidates_RC[batch], self.config.pair_negatives, self.rng
        )
        logits_BC = self.scorer.logits(self.train, rows_B, candidates_BC)
        first_B = torch.zeros(len(batch), dtype=torch.long, device=logits_BC.device)
        if self.train.target_weights:
            weights = torch.from_numpy(self.train.weights(rows_B, candidates_BC[:, 0])).to(logits_BC.device)
            loss = (F.cross_entropy(logits_BC, first_B, reduction="none") * weights).mean()
        else:
            loss = F.cross_entropy(logits_BC, first_B)
        loss.backward()  # type: ignore[no-untyped-call]
        return {"pair_loss": float(loss.detach())}

    def validate(self) -> float:
        """nDCG@10 of the reranked candidates; a target that is no candidate counts as missed."""
        self.progress.phase("reranking validation candidates")
        scores_RC = self.scorer.scores(self.valid, self.valid_rows, self.valid_RC, progress=self.progress)
        gains = [self.valid.target_gains[row] for row in self.valid_rows] if self.valid.target_gains else None
        return _ndcg(scores_RC, self.valid_RC, [self.valid.targets[row] for row in self.valid_rows], gains)


def train(
    inputs: TeacherInputs,
    context: TrainingContext,
    *,
    folder: Path,
    load_weights: Callable[[CrossEncoder], bool] | None = None,
) -> tuple[CrossEncoderScorer, History]:
    """Train a cross-encoder from a copy of the encoder; a killed run resumes from its last epoch.

    ``folder`` holds the encoder's tokenizer.

    Raises:
        TrainingError: the loss is not a number.
    """
    config, data = context.config, inputs.data
    rng = np.random.default_rng(config.seed)
    torch.manual_seed(config.seed)
    tokenizer = encoders.load_tokenizer(folder, source=config.encoder, max_tokens=config.pair_tokens)
    context.progress.phase("finding candidates for the queries")
    finder = CandidateFinder.make(inputs, stemmer=config.stemmer)
    model = CrossEncoder(copy.deepcopy(inputs.encoder))
    if load_weights is not None:
        load_weights(model)
    model = model.to(context.device)
    scorer = CrossEncoderScorer(model, tokenizer, data.item_texts, finder, context.device, context.use_bf16)
    trainer = CrossEncoderTrainer(scorer, data, context, rng)
    settings = FitSettings(
        epochs=config.pair_epochs,
        learning_rate=config.encoder_learning_rate,
        warm_up=config.warm_up,
        gradient_clip=config.gradient_clip,
        evaluate_every=1,
        rate_setting="encoder_learning_rate",
    )
    return scorer, fit(trainer, settings, checkpoints=context.checkpoints, progress=context.progress)


def _draw_candidates(
    requests: Requests, rows: Ints, candidates_BC: Ints, negatives: int, rng: np.random.Generator
) -> Ints:
    """[B, 1 + negatives] one target of each request, then candidates that are none of its targets."""
    negatives = min(negatives, candidates_BC.shape[1] - 1) or 1
    out_BC = np.zeros((len(rows), 1 + negatives), np.int64)
    for b, row in enumerate(rows):
        targets = requests.targets[row]
        others = candidates_BC[b][~np.isin(candidates_BC[b], targets)]
        out_BC[b, 0] = rng.choice(targets)
        out_BC[b, 1:] = rng.choice(others, negatives, replace=len(others) < negatives) if len(others) else targets[0]
        if requests.shown:  # what was judged as not relevant takes the places of other negatives
            judged = rng.permutation(requests.shown[row])[:negatives]
            out_BC[b, 1 : 1 + len(judged)] = judged
    return out_BC


def _ndcg(scores_RC: Floats, candidates_RC: Ints, targets: list[Ints], gains: list[Floats] | None = None) -> float:
    """nDCG@10 of the candidates in the order of their scores."""
    ranked = [
        [str(item) for item in row[np.argsort(-scores, kind="stable")]] for row, scores in zip(candidates_RC, scores_RC)
    ]
    if not ranked:
        return 0.0
    grades = [of.tolist() for of in gains] if gains else None
    judged = metrics.judge(ranked, [[str(item) for item in rows] for rows in targets], depth=10, gains=grades)
    return float(metrics.ndcg(judged, 10).mean())
