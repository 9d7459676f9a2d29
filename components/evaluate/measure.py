"""Everything that is measured on a running server: its lists, its speed, its probabilities, its logits.

Shapes: R requests, N candidates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluate import replay
from components.evaluate.config import EvaluateConfig
from components.evaluate.replay import ReplayRequest
from rankline.contracts import SPLITS
from rankline.evaluation import metrics
from rankline.evaluation.report import Latency, ServedParity
from rankline.model.bundle import Bundle
from rankline.runtime.progress import Progress
from rankline.runtime.server_process import Server, serving

Lists = dict[str, list[str]]


@dataclass(frozen=True)
class HeadMetrics:
    """How the heads' numbers meet what happened: ranking of pairs, and probabilities against outcomes."""

    numbers: dict[str, float | None]
    reliability: metrics.Reliability | None


@dataclass(frozen=True)
class Measurements:
    """What was measured on the candidate's server."""

    lists: Lists
    latency: Latency
    latency_ms: list[float]
    lean: Latency
    memory_bytes: int | None
    heads: HeadMetrics
    parity: ServedParity


def measure_candidate(
    bundle: Bundle,
    requests: Sequence[ReplayRequest],
    *,
    features: Path,
    student: Path,
    folder: Path,
    config: EvaluateConfig,
    progress: Progress,
) -> Measurements:
    """Measure all there is to measure on the candidate's server."""
    with _start_server(bundle, folder, config) as server:
        progress.phase("replaying: candidate")
        lists = _replay_lists(server, bundle, requests, config, progress)
        memory = server.memory_bytes()
        progress.phase("timing requests")
        timed = _evenly_spaced(requests, config.latency_samples)
        calls = [one.call(k=config.latency_k) for one in timed]
        latency_ms = replay.measure_latency(server, calls, progress=progress)
        lean_ms = replay.measure_latency(
            server, [one.lean_call(k=config.latency_k) for one in timed], progress=progress
        )
        rate = replay.throughput(server, calls, concurrency=config.concurrency)
        progress.phase("judging the heads")
        heads = _measure_heads(server, bundle, requests, lists, features, config, progress)
        if bundle.policy.calibration is not None:
            abstention = _measure_calibration(server, requests, lists, config, progress)
            heads = HeadMetrics({**heads.numbers, **abstention.numbers}, abstention.reliability)
        progress.phase("comparing with torch")
        parity = _measure_parity(server, bundle, features, student, config, progress)
        memory = max(memory or 0, server.memory_bytes() or 0) or None
    return Measurements(lists, _latency(latency_ms, rate), latency_ms, _latency(lean_ms, None), memory, heads, parity)


def _latency(taken_ms: Sequence[float], rate: float | None) -> Latency:
    p50, p95, p99 = (float(value) for value in np.percentile(taken_ms, [50, 95, 99]))
    return Latency(p50_ms=p50, p95_ms=p95, p99_ms=p99, throughput_rps=rate)


def replay_lists(
    bundle: Bundle, requests: Sequence[ReplayRequest], *, folder: Path, config: EvaluateConfig, progress: Progress
) -> Lists:
    """Another bundle's lists for the same requests, from a server of its own."""
    with _start_server(bundle, folder, config) as server:
        return _replay_lists(server, bundle, requests, config, progress)


def _start_server(bundle: Bundle, folder: Path, config: EvaluateConfig) -> Any:
    return serving(
        bundle.folder,
        folder=folder,
        precision=config.precision,
        start_timeout_s=config.start_timeout_s,
        request_timeout_s=config.request_timeout_s,
        connections=config.concurrency,
    )


def _replay_lists(
    server: Server, bundle: Bundle, requests: Sequence[ReplayRequest], config: EvaluateConfig, progress: Progress
) -> Lists:
    def ask(one: ReplayRequest) -> list[str]:
        return replay.recommend(server, one, model_id=bundle.model_id, k=config.top_k)

    return replay.map_concurrently(requests, ask, concurrency=config.concurrency, progress=progress)


def _evenly_spaced(requests: Sequence[ReplayRequest], count: int) -> list[ReplayRequest]:
    """At most ``count`` requests, spread evenly over all of them."""
    rows = np.unique(np.linspace(0, len(requests) - 1, min(count, len(requests))).round().astype(int))
    return [requests[row] for row in rows]


def _measure_heads(
    server: Server,
    bundle: Bundle,
    requests: Sequence[ReplayRequest],
    lists: Lists,
    features: Path,
    config: EvaluateConfig,
    progress: Progress,
) -> HeadMetrics:
    """AUC of the first head, targets against sampled negatives; AUC and calibration of `like`, rated targets.

    Some features of a candidate are relative to the best candidate beside it, so the targets are scored among
    the list that was served, as they would be.
    """
    import pyarrow.parquet as parquet

    table = parquet.read_table(features / "negatives.parquet").to_pydict()
    negatives = dict(zip(table["request_id"], table["item_ids"]))

    def ask(one: ReplayRequest) -> dict[str, dict[str, float]]:
        others = [*lists[one.request_id], *negatives.get(one.request_id, ())]
        return replay.rank(server, one, list(dict.fromkeys([*one.request.targets, *others])))

    answers = replay.map_concurrently(requests, ask, concurrency=config.concurrency, progress=progress)
    first = bundle.manifest.heads[0]
    aucs, liked, probabilities = [], [], []
    for one in requests:
        logits = answers[one.request_id]
        targets = one.request.targets
        served = [item for item in lists[one.request_id] if item not in targets]
        sampled = negatives.get(one.request_id) or served
        scores = [logits[item][first] for item in [*targets, *sampled]]
        aucs.append(metrics.auc([True] * len(targets) + [False] * len(sampled), scores))
        for item, rating in zip(targets, one.request.target_ratings):
            # 0 stands for "no rating known", which is no dislike
            if rating and "like" in logits[item]:
                liked.append(rating >= config.like_rating)
                probabilities.append(0.5 * (1.0 + math.tanh(logits[item]["like"] / 2)))  # the sigmoid
    known = [auc for auc in aucs if auc is not None]
    reliability = metrics.reliability(liked, probabilities, bins=config.bins) if liked else None
    return HeadMetrics(
        numbers={
            f"{first}_auc": float(np.mean(known)) if known else None,
            "like_auc": metrics.auc(liked, probabilities),
            "like_ece": reliability.error if reliability else None,
            "like_share": float(np.mean(liked)) if liked else None,
            "like_mean_score": float(np.mean(probabilities)) if liked else None,
            "rated_targets": float(len(liked)),
        },
        reliability=reliability,
    )


def _measure_calibration(
    server: Server, requests: Sequence[ReplayRequest], lists: Lists, config: EvaluateConfig, progress: Progress
) -> HeadMetrics:
    """Whether what the model calls likely is right that often, and whether it abstains when it should.

    Every request is asked twice: as it is, and among what was served for it without its answers, where the only
    right thing is to abstain.
    """

    def ask(one: ReplayRequest) -> tuple[list[tuple[bool, float]], bool, bool]:
        targets = set(one.request.targets)
        route, body = one.call(k=config.latency_k)
        answer = server.post(route, body)
        predictions = [(item["item_id"] in targets, item["probability"]) for item in answer["items"]]
        wrong = [item for item in lists[one.request_id] if item not in targets]
        abstained_without_target = bool(wrong) and server.post("/v1/rank", one.body(candidates=wrong))["abstained"]
        return predictions, answer["abstained"], abstained_without_target

    answers = list(replay.map_concurrently(requests, ask, concurrency=config.concurrency, progress=progress).values())
    pairs = [pair for predictions, _, _ in answers for pair in predictions]
    answered = [predictions[0][0] for predictions, abstained, _ in answers if predictions and not abstained]
    reliability = metrics.reliability([right for right, _ in pairs], [p for _, p in pairs], bins=config.bins)
    return HeadMetrics(
        numbers={
            "chance_ece": reliability.error,
            "answered_share": len(answered) / len(answers),
            "answered_precision": float(np.mean(answered)) if answered else None,
            "silent_without_answer": float(
                np.mean([abstained_without_target for _, _, abstained_without_target in answers])
            ),
        },
        reliability=reliability,
    )


def _measure_parity(
    server: Server, bundle: Bundle, features: Path, student: Path, config: EvaluateConfig, progress: Progress
) -> ServedParity:
    """Served logits of the first head against torch's, for the requests and candidates the student kept."""
    import pyarrow.parquet as parquet

    path = student / "parity.parquet"
    if not path.is_file():
        return ServedParity()
    rows = parquet.read_table(path).to_pylist()
    torch_logits = {row["request_id"]: dict(zip(row["item_ids"], row["logits"])) for row in rows}
    first = bundle.manifest.heads[0]

    def ask(one: ReplayRequest) -> tuple[float, bool]:
        expected = torch_logits[one.request_id]
        answer = replay.rank(server, one, list(expected))
        served = {item: answer[item][first] for item in expected}
        return compare_logits(served, expected, tie_tolerance=config.tie_tolerance)

    results: dict[str, tuple[float, bool]] = {}
    for split in SPLITS:
        chosen = [one for one, _ in replay.read_requests(features, split=split, chosen=set(torch_logits))]
        results |= replay.map_concurrently(chosen, ask, concurrency=config.concurrency, progress=progress)
    replay.ordered_answers("the served side of the parity check", results, list(torch_logits), where=path)
    return ServedParity(
        requests=len(results),
        served_max_abs_difference=max((difference for difference, _ in results.values()), default=None),
        same_top10_share=float(np.mean([same for _, same in results.values()])) if results else None,
    )


def compare_logits(
    served: Mapping[str, float], expected: Mapping[str, float], *, tie_tolerance: float, k: int = 10
) -> tuple[float, bool]:
    """The largest difference of two sets of logits, and whether their first ``k`` are the same.

    Two items that swap places are the same where the expected logits put them within ``tie_tolerance``.
    """
    difference = max(abs(served[item] - value) for item, value in expected.items())
    best_served = sorted(expected, key=lambda item: -served[item])[:k]
    best_expected = sorted(expected, key=lambda item: -expected[item])[:k]
    same = all(
        abs(expected[left] - expected[right]) <= tie_tolerance for left, right in zip(best_served, best_expected)
    )
    return difference, same
