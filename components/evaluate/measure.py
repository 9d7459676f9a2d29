"""What is measured on a running server: its lists, latency, probabilities and logits."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.evaluate import replay
from components.evaluate.config import EvaluateConfig
from components.evaluate.replay import Answer, ReplayRequest
from rankline.contracts import SPLITS
from rankline.evaluation import metrics
from rankline.evaluation.report import Latency, ServedParity
from rankline.features.label_values import liked_from
from rankline.model.bundle import Bundle
from rankline.runtime.progress import Progress
from rankline.runtime.server_process import Server, serving

LIKE = "like"  # the head of a model without declared labels
Lists = dict[str, list[str]]  # request id -> item ids
Logits = dict[str, dict[str, float]]  # item id -> head -> logit


@dataclass(frozen=True)
class HeadMetrics:
    """The heads' logits against outcomes: AUC, calibration error, and the reliability bins."""

    numbers: dict[str, float | None]
    reliability: metrics.Reliability | None


@dataclass(frozen=True)
class Measurements:
    """What was measured on the candidate's server."""

    lists: Lists
    latency: Latency
    latency_ms: list[float]
    lean_latency: Latency
    memory_bytes: int | None
    heads: HeadMetrics
    parity: ServedParity


@dataclass(frozen=True)
class RunningServer:
    """A server on a bundle, and the requests to replay through it."""

    server: Server
    bundle: Bundle
    requests: Sequence[ReplayRequest]
    config: EvaluateConfig
    progress: Progress

    def recommend(self) -> Lists:
        """Request id -> the server's list."""
        return self.map(
            lambda request: replay.recommend(self.server, request, model_id=self.bundle.model_id, k=self.config.top_k)
        )

    def map(
        self, send: Callable[[ReplayRequest], Answer], requests: Sequence[ReplayRequest] | None = None
    ) -> dict[str, Answer]:
        """Request id -> what ``send`` returns for the request, several requests at a time."""
        return replay.map_concurrently(
            self.requests if requests is None else requests,
            send,
            concurrency=self.config.concurrency,
            progress=self.progress,
        )


@contextlib.contextmanager
def running(
    bundle: Bundle, requests: Sequence[ReplayRequest], folder: Path, config: EvaluateConfig, progress: Progress
) -> Iterator[RunningServer]:
    """Start a server on ``bundle`` for as long as the block runs; its log goes to ``folder``."""
    with serving(
        bundle.folder,
        folder=folder,
        precision=config.precision,
        provider=config.provider,
        start_timeout_s=config.start_timeout_s,
        request_timeout_s=config.request_timeout_s,
        connections=config.concurrency,
    ) as server:
        yield RunningServer(server, bundle, requests, config, progress)


def measure_candidate(candidate: RunningServer, *, features: Path, student: Path) -> Measurements:
    """Replay the requests, time some of them, and compare probabilities with outcomes and logits with torch's."""
    server, config, progress = candidate.server, candidate.config, candidate.progress
    progress.phase("replaying: candidate")
    lists = candidate.recommend()
    memory = server.memory_bytes()
    progress.phase("timing requests")
    timed = _evenly_spaced(candidate.requests, config.latency_samples)
    calls = [request.call(k=config.latency_k) for request in timed]
    latency_ms = replay.measure_latency(server, calls, progress=progress)
    lean_calls = [request.lean_call(k=config.latency_k) for request in timed]
    lean_ms = replay.measure_latency(server, lean_calls, progress=progress)
    rate = replay.throughput(server, calls, concurrency=config.concurrency)
    progress.phase("measuring the heads")
    heads = _measure_heads(candidate, lists, features)
    progress.phase("comparing with torch")
    parity = _measure_parity(candidate, features, student)
    memory = max(memory or 0, server.memory_bytes() or 0) or None
    latency, lean_latency = (
        _latency(taken, rate, server.provider()) for taken, rate in ((latency_ms, rate), (lean_ms, None))
    )
    return Measurements(lists, latency, latency_ms, lean_latency, memory, heads, parity)


def _latency(taken_ms: Sequence[float], rate: float | None, provider: str | None) -> Latency:
    p50, p95, p99 = (float(value) for value in np.percentile(taken_ms, [50, 95, 99]))
    return Latency(p50_ms=p50, p95_ms=p95, p99_ms=p99, throughput_rps=rate, provider=provider)


def _evenly_spaced(requests: Sequence[ReplayRequest], count: int) -> list[ReplayRequest]:
    """At most ``count`` requests, spread evenly over all of them."""
    rows = np.unique(np.linspace(0, len(requests) - 1, min(count, len(requests))).round().astype(int))
    return [requests[row] for row in rows]


def _measure_heads(candidate: RunningServer, lists: Lists, features: Path) -> HeadMetrics:
    """AUC of the first head on targets and sampled negatives; AUC and calibration of `like` on rated targets.

    Some features of a candidate are relative to the best candidate beside it, so the targets are scored together with
    the list that was served. A calibrated model's abstentions are measured as well.
    """
    import pyarrow.parquet as parquet

    table = parquet.read_table(features / "negatives.parquet").to_pydict()
    negatives: dict[str, list[str]] = dict(zip(table["request_id"], table["item_ids"]))

    def rank(request: ReplayRequest) -> Logits:
        others = [*lists[request.request_id], *negatives.get(request.request_id, ())]
        return replay.rank(candidate.server, request, list(dict.fromkeys([*request.request.targets, *others])))

    logits = candidate.map(rank)
    first = candidate.bundle.manifest.heads[0]
    auc = _mean_auc(candidate.requests, logits, lists, negatives, head=first)
    heads = _measure_likes(candidate, logits, features)
    heads = HeadMetrics({f"{first}_auc": auc, **heads.numbers}, heads.reliability)
    if candidate.bundle.policy.calibration is not None:
        calibration = _measure_calibration(candidate, lists)
        heads = HeadMetrics({**heads.numbers, **calibration.numbers}, calibration.reliability)
    return heads


def _mean_auc(
    requests: Sequence[ReplayRequest],
    logits: Mapping[str, Logits],
    lists: Lists,
    negatives: Mapping[str, Sequence[str]],
    *,
    head: str,
) -> float | None:
    """The mean over requests of the AUC of targets against sampled negatives, or against what was served."""
    aucs = []
    for request in requests:
        targets = request.request.targets
        served = [item for item in lists[request.request_id] if item not in targets]
        sampled = negatives.get(request.request_id) or served
        scores = [logits[request.request_id][item][head] for item in [*targets, *sampled]]
        aucs.append(metrics.auc([True] * len(targets) + [False] * len(sampled), scores))
    known = [auc for auc in aucs if auc is not None]
    return float(np.mean(known)) if known else None


def _measure_likes(candidate: RunningServer, logits: Mapping[str, Logits], features: Path) -> HeadMetrics:
    """The `like` head on rated targets: does it rank liked ones first, and are its probabilities right?

    A model with declared labels has none; `label_heads.measure_labels` measures it.
    """
    if LIKE not in candidate.bundle.manifest.heads:
        return HeadMetrics({}, None)
    smallest = liked_from(json.loads((features / "summary.json").read_text()))
    liked, probabilities = [], []
    for request in candidate.requests:
        for item, rating in zip(request.request.targets, request.request.target_ratings):
            scores = logits[request.request_id][item]
            if rating:  # 0 means no rating, which is not a dislike
                liked.append(rating >= smallest)
                probabilities.append(0.5 * (1.0 + math.tanh(scores[LIKE] / 2)))  # the sigmoid
    reliability = metrics.reliability(liked, probabilities, bins=candidate.config.bins) if liked else None
    return HeadMetrics(
        numbers={
            "like_auc": metrics.auc(liked, probabilities),
            "like_ece": reliability.error if reliability else None,
            "like_share": float(np.mean(liked)) if liked else None,
            "like_mean_score": float(np.mean(probabilities)) if liked else None,
            "rated_targets": float(len(liked)),
        },
        reliability=reliability,
    )


def _measure_calibration(candidate: RunningServer, lists: Lists) -> HeadMetrics:
    """Are the probabilities right, and does the model abstain when it should?

    Every request is sent twice: as it is, and with the served list without the targets as its candidates, where
    abstaining is the only right answer.
    """
    server = candidate.server

    def recommend_and_rank(request: ReplayRequest) -> tuple[list[tuple[bool, float]], bool, bool]:
        targets = set(request.request.targets)
        answer = server.post(*request.call(k=candidate.config.latency_k))
        predictions = [(item["item_id"] in targets, item["probability"]) for item in answer["items"]]
        wrong = [item for item in lists[request.request_id] if item not in targets]
        abstained_without_target = bool(wrong) and server.post("/v1/rank", request.body(candidates=wrong))["abstained"]
        return predictions, answer["abstained"], abstained_without_target

    answers = list(candidate.map(recommend_and_rank).values())
    pairs = [pair for predictions, _, _ in answers for pair in predictions]
    answered = [predictions[0][0] for predictions, abstained, _ in answers if predictions and not abstained]
    reliability = metrics.reliability([hit for hit, _ in pairs], [p for _, p in pairs], bins=candidate.config.bins)
    return HeadMetrics(
        numbers={
            "chance_ece": reliability.error,
            "answered_share": len(answered) / len(answers),
            "answered_precision": float(np.mean(answered)) if answered else None,
            "silent_without_answer": float(np.mean([abstained for _, _, abstained in answers])),
        },
        reliability=reliability,
    )


def _measure_parity(candidate: RunningServer, features: Path, student: Path) -> ServedParity:
    """Served logits of the first head against torch's, for the requests and candidates in parity.parquet."""
    import pyarrow.parquet as parquet

    path = student / "parity.parquet"
    if not path.is_file():
        return ServedParity()
    rows = parquet.read_table(path).to_pylist()
    torch_logits = {row["request_id"]: dict(zip(row["item_ids"], row["logits"])) for row in rows}
    first = candidate.bundle.manifest.heads[0]

    def compare(request: ReplayRequest) -> tuple[float, bool]:
        expected = torch_logits[request.request_id]
        answer = replay.rank(candidate.server, request, list(expected))
        served = {item: answer[item][first] for item in expected}
        return compare_logits(served, expected, tie_tolerance=candidate.config.tie_tolerance)

    results: dict[str, tuple[float, bool]] = {}
    for split in SPLITS:
        requests = [request for request, _ in replay.read_requests(features, split=split, chosen=set(torch_logits))]
        results |= candidate.map(compare, requests)
    replay.ordered_answers("the server in the parity check", results, list(torch_logits), where=path)
    return ServedParity(
        requests=len(results),
        provider=candidate.server.provider(),
        served_max_abs_difference=max((difference for difference, _ in results.values()), default=None),
        same_top10_share=float(np.mean([same for _, same in results.values()])) if results else None,
    )


def compare_logits(
    served: Mapping[str, float], expected: Mapping[str, float], *, tie_tolerance: float, k: int = 10
) -> tuple[float, bool]:
    """The largest difference of two sets of logits, and whether their first ``k`` items are the same.

    Two items may swap places if their expected logits are within ``tie_tolerance``.
    """
    difference = max(abs(served[item] - value) for item, value in expected.items())
    best_served = sorted(expected, key=lambda item: -served[item])[:k]
    best_expected = sorted(expected, key=lambda item: -expected[item])[:k]
    same = all(
        abs(expected[left] - expected[right]) <= tie_tolerance for left, right in zip(best_served, best_expected)
    )
    return difference, same
