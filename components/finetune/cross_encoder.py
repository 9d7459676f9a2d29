"""The teacher's query side: a cross-encoder that reads a query and an item together.

It learns to tell the items that answer a query from others that look alike: the candidates of BM25 and of the
untuned encoder. Shapes: R requests, B requests of a step, C candidates, I items, N pairs, T text size, W tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from components.finetune import encoder as encoders
from components.finetune.config import FinetuneConfig
from rankline.features.bm25 import Bm25
from rankline.model.encode import encode_all
from rankline.model.networks import CrossEncoder, TextEncoder
from rankline.runtime.progress import Progress
from rankline.text import Tokenizer
from rankline.train import training
from rankline.train.examples import Examples, Requests

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
PAIRS_PER_BATCH = 64


@dataclass(frozen=True)
class CandidateFinder:
    """Who proposes candidates for a query before anything is trained."""

    data: Examples
    bm25: Bm25
    text_IT: Floats
    vectors: Mapping[str, Floats]  # a query's words -> [T]

    @classmethod
    def make(
        cls, data: Examples, reader: TextEncoder, tokenizer: Tokenizer, text_IT: torch.Tensor, *, stemmer: str,
        device: torch.device,
    ) -> CandidateFinder:  # fmt: skip
        """A finder over the catalogue, and over every query there is, as the encoder reads them."""
        asked = list(dict.fromkeys(query for each in data.splits.values() for query in each.queries if query))
        vectors_QT = encode_all(reader, tokenizer, asked, device=device, progress=Progress()).cpu().numpy()
        bm25 = Bm25.from_texts(data.words, stemmer=stemmer, k1=0.9, b=0.4)
        return cls(data, bm25, text_IT.cpu().numpy(), dict(zip(asked, vectors_QT)))

    def retrieval_scores(self, query: str, items: Ints) -> Floats:
        """[C, 2] the cosine of each item's words and the query's, and log1p of its BM25."""
        similarity_C = self.text_IT[items] @ self.vectors[query]
        return np.stack([similarity_C, np.log1p(self.bm25.scores(query)[items])], 1)

    def candidates(self, requests: Requests, rows: Ints, count: int, rng: np.random.Generator) -> Ints:
        """[R, C] the likeliest items by words and by the encoder in turn; filled up at random, each item once."""
        count = min(count, len(self.data.item_ids))
        out_RC = np.zeros((len(rows), count), np.int64)
        for r, row in enumerate(rows):
            by_encoder = np.argsort(-(self.text_IT @ self.vectors[requests.queries[row]]), kind="stable")[:count]
            scores_I = self.bm25.scores(requests.queries[row])
            by_words = np.argsort(-scores_I, kind="stable")[:count]
            by_words = by_words[scores_I[by_words] > 0]
            interleaved = [item for pair in zip(by_encoder, by_words) for item in pair]
            random_items = (
                rng.permutation(len(scores_I))[: 2 * count] if len(by_words) < count else np.zeros(0, np.int64)
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
class PairScorer:
    """A cross-encoder, what it needs to score candidates, who finds them, and what is told of its training."""

    model: CrossEncoder
    tokenizer: Tokenizer
    words: list[str]
    device: torch.device
    use_bf16: bool
    finder: CandidateFinder
    summary: dict[str, Any]

    def weights(self) -> dict[str, torch.Tensor]:
        """All that was learnt, to be saved."""
        return {name: value.cpu().contiguous() for name, value in self.model.state_dict().items()}

    def logits(self, requests: Requests, rows: Ints, candidates_BC: Ints) -> torch.Tensor:
        """[B, C] the score of every candidate of some requests."""
        query_texts = [requests.queries[row] for row in rows for _ in range(candidates_BC.shape[1])]
        item_texts = [self.words[item] for item in candidates_BC.ravel()]
        ids, mask, types = (
            torch.from_numpy(part).to(self.device) for part in self.tokenizer.pairs(query_texts, item_texts)
        )
        retrieval = [
            self.finder.retrieval_scores(requests.queries[row], items) for row, items in zip(rows, candidates_BC)
        ]
        retrieval_scores = torch.from_numpy(np.concatenate(retrieval)).to(self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.use_bf16):
            logits_N = self.model(ids, mask, types, retrieval_scores)
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


def train(
    data: Examples,
    reader: TextEncoder,
    text_IT: torch.Tensor,
    *,
    folder: Path,
    config: FinetuneConfig,
    device: torch.device,
    progress: Progress,
    checkpoints: Path | None,
    load_weights: Callable[[CrossEncoder], bool] | None = None,
) -> PairScorer:
    """A cross-encoder begun from a copy of ``reader``; a killed run goes on from its last epoch.

    ``folder`` holds the encoder's tokenizer.

    Raises:
        TrainingError: the loss became NaN.
    """
    rng = np.random.default_rng(config.seed)
    torch.manual_seed(config.seed)
    train_set, valid_set = data.splits["train"], data.splits["valid"]
    asked, valid_rows = train_set.query_rows, valid_set.query_rows[: config.pair_valid_requests]
    item_tokenizer = encoders.load_tokenizer(folder, source=config.encoder, max_tokens=config.max_tokens)
    long = encoders.load_tokenizer(folder, source=config.encoder, max_tokens=config.pair_tokens)
    progress.phase("finding candidates for the queries")
    finder = CandidateFinder.make(data, reader, item_tokenizer, text_IT, stemmer=config.stemmer, device=device)
    candidates_RC = finder.candidates(train_set, asked, config.soft_candidates, rng)
    valid_RC = finder.candidates(valid_set, valid_rows, config.soft_candidates, rng)

    use_bf16 = training.pick_autocast(config.precision, device)
    model = CrossEncoder(copy.deepcopy(reader))
    if load_weights is not None:
        load_weights(model)
    model = model.to(device)
    summary: dict[str, Any] = {}
    pairs = PairScorer(model, long, data.words, device, use_bf16, finder, summary)
    groups = [
        {"params": list(model.reader.parameters()), "peak": config.encoder_learning_rate},
        {"params": [*model.head.parameters(), *model.wide.parameters()], "peak": config.learning_rate},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.encoder_learning_rate, weight_decay=config.weight_decay)
    checkpointer = training.Checkpoints(checkpoints)
    state = checkpointer.load(rng) or {"epoch": 0, "best": -1.0, "best_epoch": 0, "curve": []}
    resumed_at = state["epoch"]
    if resumed_at:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])

    requests_per_epoch = min(config.pair_train_requests or len(asked), len(asked))
    steps = max(1, -(-requests_per_epoch // config.pair_requests))
    for epoch in range(state["epoch"], config.pair_epochs):
        progress.phase("training the cross-encoder")
        model.train()
        losses = []
        for step, picked in enumerate(np.array_split(rng.permutation(len(asked))[:requests_per_epoch], steps)):
            fraction = (epoch + step / steps) / config.pair_epochs
            for group in optimizer.param_groups:
                group["lr"] = training.learning_rate_at(fraction, peak=group["peak"], warm_up=config.warm_up)
            chosen_BC = _draw_candidates(train_set, asked[picked], candidates_RC[picked], config.pair_negatives, rng)
            logits_BC = pairs.logits(train_set, asked[picked], chosen_BC)
            loss = F.cross_entropy(logits_BC, torch.zeros(len(picked), dtype=torch.long, device=device))
            value = float(loss.detach())
            training.check_finite(value, step="finetune", epoch=epoch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
            optimizer.step()
            losses.append(value)
            progress.update(
                epoch * steps + step + 1, config.pair_epochs * steps, loss=value, lr=optimizer.param_groups[0]["lr"],
                valid=state["best"] if state["best"] >= 0 else float("nan"),
            )  # fmt: skip
        progress.phase("reranking validation candidates")
        scores_RC = pairs.scores(valid_set, valid_rows, valid_RC, progress=progress)
        valid_ndcg = _ndcg(scores_RC, valid_RC, [valid_set.targets[row] for row in valid_rows])
        if valid_ndcg > state["best"]:
            weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
            state.update(best=valid_ndcg, best_epoch=epoch, weights=weights)
        state["curve"].append({"epoch": epoch, "pair_loss": float(np.mean(losses)), "valid_ndcg@10": valid_ndcg})
        state["epoch"] = epoch + 1
        checkpointer.save({**state, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, rng)
    model.load_state_dict(state["weights"])
    summary.update({name: state[name] for name in ("best", "best_epoch", "curve")}, resumed_at=resumed_at)
    return pairs


def _draw_candidates(
    requests: Requests, rows: Ints, candidates_BC: Ints, negatives: int, rng: np.random.Generator
) -> Ints:
    """[B, 1 + wrong] one target of each request, then candidates that are none of its targets."""
    negatives = min(negatives, candidates_BC.shape[1] - 1) or 1
    out_BC = np.zeros((len(rows), 1 + negatives), np.int64)
    for b, row in enumerate(rows):
        targets = requests.targets[row]
        others = candidates_BC[b][~np.isin(candidates_BC[b], targets)]
        out_BC[b, 0] = rng.choice(targets)
        out_BC[b, 1:] = rng.choice(others, negatives, replace=len(others) < negatives) if len(others) else targets[0]
    return out_BC


def _ndcg(scores_RC: Floats, candidates_RC: Ints, targets: list[Ints]) -> float:
    """nDCG@10 of the candidates put in order by their scores; a target that is no candidate counts as missed."""
    from rankline.evaluation import metrics

    ranked = [[str(item) for item in row[np.argsort(-scores, kind="stable")]] for row, scores in
              zip(candidates_RC, scores_RC)]  # fmt: skip
    if not ranked:
        return 0.0
    judged = metrics.judge(ranked, [[str(item) for item in wanted] for wanted in targets], depth=10)
    return float(metrics.ndcg(judged, 10).mean())
