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
from components.evaluate.replay import Asked
from rankline.contracts import SPLITS
from rankline.evaluation import metrics
from rankline.evaluation.report import Latency, ServedParity
from rankline.model.bundle import Bundle
from rankline.runtime.progress import Progress
from rankline.runtime.server_process import Server, serving

Lists = dict[str, list[str]]


@dataclass(frozen=True)
class Heads:
    """How the heads' numbers meet what happened: ranking of pairs, and probabilities against outcomes."""

    numbers: dict[str, float | None]
    reliability: metrics.Reliability | None


@dataclass(frozen=True)
class Measured:
    """What was measured on the candidate's server."""

    lists: Lists
    latency: Latency
    latency_ms: list[float]
    lean: Latency
    memory_bytes: int | None
    heads: Heads
    parity: ServedParity


def candidate(
    bundle: Bundle,
    asked: Sequence[Asked],
    *,
    features: Path,
    student: Path,
    folder: Path,
    config: EvaluateConfig,
    progress: Progress,
) -> Measured:
    """Measure all there is to measure on the candidate's server."""
    with _served(bundle, folder, config) as server:
        progress.phase("replaying: candidate")
        lists = _lists(server, bundle, asked, config, progress)
        memory = server.memory_bytes()
        progress.phase("timing requests")
        timed = _spread(asked, config.latency_samples)
        calls = [one.call(k=config.latency_k) for one in timed]
        latency_ms = replay.timed(server, calls, progress=progress)
        lean_ms = replay.timed(server, [one.lean_call(k=config.latency_k) for one in timed], progress=progress)
        rate = replay.throughput(server, calls, concurrency=config.concurrency)
        progress.phase("judging the heads")
        heads = _heads(server, bundle, asked, lists, features, config, progress)
        if bundle.policy.calibration is not None:
            sure = _sureness(server, asked, lists, config, progress)
            heads = Heads({**heads.numbers, **sure.numbers}, sure.reliability)
        progress.phase("comparing with torch")
        parity = _parity(server, bundle, features, student, config, progress)
        memory = max(memory or 0, server.memory_bytes() or 0) or None
    return Measured(lists, _latency(latency_ms, rate), latency_ms, _latency(lean_ms, None), memory, heads, parity)


def _latency(taken_ms: Sequence[float], rate: float | None) -> Latency:
    p50, p95, p99 = (float(value) for value in np.percentile(taken_ms, [50, 95, 99]))
    return Latency(p50_ms=p50, p95_ms=p95, p99_ms=p99, throughput_rps=rate)


def lists_of(
    bundle: Bundle, asked: Sequence[Asked], *, folder: Path, config: EvaluateConfig, progress: Progress
) -> Lists:
    """Another bundle's lists for the same requests, from a server of its own."""
    with _served(bundle, folder, config) as server:
        return _lists(server, bundle, asked, config, progress)


def _served(bundle: Bundle, folder: Path, config: EvaluateConfig) -> Any:
    return serving(
        bundle.folder,
        folder=folder,
        precision=config.precision,
        start_timeout_s=config.start_timeout_s,
        request_timeout_s=config.request_timeout_s,
        connections=config.concurrency,
    )


def _lists(server: Server, bundle: Bundle, asked: Sequence[Asked], config: EvaluateConfig, progress: Progress) -> Lists:
    def ask(one: Asked) -> list[str]:
        return replay.recommend(server, one, model_id=bundle.model_id, k=config.top_k)

    return replay.each(asked, ask, concurrency=config.concurrency, progress=progress)


def _spread(asked: Sequence[Asked], count: int) -> list[Asked]:
    """At most ``count`` requests, spread evenly over all of them."""
    rows = np.unique(np.linspace(0, len(asked) - 1, min(count, len(asked))).round().astype(int))
    return [asked[row] for row in rows]


def _heads(
    server: Server,
    bundle: Bundle,
    asked: Sequence[Asked],
    lists: Lists,
    features: Path,
    config: EvaluateConfig,
    progress: Progress,
) -> Heads:
    """AUC of the first head, targets against sampled negatives; AUC and calibration of `like`, rated targets.

    Some features of a candidate are relative to the best candidate beside it, so the targets are scored among
    the list that was served, as they would be.
    """
    import pyarrow.parquet as parquet

    table = parquet.read_table(features / "negatives.parquet").to_pydict()
    negatives = dict(zip(table["request_id"], table["item_ids"]))

    def ask(one: Asked) -> dict[str, dict[str, float]]:
        others = [*lists[one.request_id], *negatives.get(one.request_id, ())]
        return replay.rank(server, one, list(dict.fromkeys([*one.request.targets, *others])))

    answers = replay.each(asked, ask, concurrency=config.concurrency, progress=progress)
    first = bundle.manifest.heads[0]
    areas, liked, chances = [], [], []
    for one in asked:
        logits = answers[one.request_id]
        targets = one.request.targets
        served = [item for item in lists[one.request_id] if item not in targets]
        sampled = negatives.get(one.request_id) or served
        scores = [logits[item][first] for item in [*targets, *sampled]]
        areas.append(metrics.auc([True] * len(targets) + [False] * len(sampled), scores))
        for item, rating in zip(targets, one.request.target_ratings):
            # 0 stands for "no rating known", which is no dislike
            if rating and "like" in logits[item]:
                liked.append(rating >= config.like_rating)
                chances.append(0.5 * (1.0 + math.tanh(logits[item]["like"] / 2)))  # the sigmoid
    known = [area for area in areas if area is not None]
    reliability = metrics.reliability(liked, chances, bins=config.bins) if liked else None
    return Heads(
        numbers={
            f"{first}_auc": float(np.mean(known)) if known else None,
            "like_auc": metrics.auc(liked, chances),
            "like_ece": reliability.error if reliability else None,
            "like_share": float(np.mean(liked)) if liked else None,
            "like_mean_score": float(np.mean(chances)) if liked else None,
            "rated_targets": float(len(liked)),
        },
        reliability=reliability,
    )


def _sureness(
    server: Server, asked: Sequence[Asked], lists: Lists, config: EvaluateConfig, progress: Progress
) -> Heads:
    """Whether what the model calls likely is right that often, and whether it abstains when it should.

    Every request is asked twice: as it is, and among what was served for it without its answers, where the only
    right thing is to abstain.
    """

    def ask(one: Asked) -> tuple[list[tuple[bool, float]], bool, bool]:
        targets = set(one.request.targets)
        route, body = one.call(k=config.latency_k)
        answer = server.post(route, body)
        told = [(item["item_id"] in targets, item["probability"]) for item in answer["items"]]
        wrong = [item for item in lists[one.request_id] if item not in targets]
        silent = bool(wrong) and server.post("/v1/rank", one.body(candidates=wrong))["abstained"]
        return told, answer["abstained"], silent

    answers = list(replay.each(asked, ask, concurrency=config.concurrency, progress=progress).values())
    pairs = [pair for told, _, _ in answers for pair in told]
    given = [told[0][0] for told, abstained, _ in answers if told and not abstained]
    reliability = metrics.reliability([right for right, _ in pairs], [p for _, p in pairs], bins=config.bins)
    return Heads(
        numbers={
            "chance_ece": reliability.error,
            "answered_share": len(given) / len(answers),
            "answered_precision": float(np.mean(given)) if given else None,
            "silent_without_answer": float(np.mean([silent for _, _, silent in answers])),
        },
        reliability=reliability,
    )


def _parity(
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

    def ask(one: Asked) -> tuple[float, bool]:
        expected = torch_logits[one.request_id]
        answer = replay.rank(server, one, list(expected))
        served = {item: answer[item][first] for item in expected}
        return compare(served, expected, tie_tolerance=config.tie_tolerance)

    results: dict[str, tuple[float, bool]] = {}
    for split in SPLITS:
        chosen = [one for one, _ in replay.read(features, split=split, chosen=set(torch_logits))]
        results |= replay.each(chosen, ask, concurrency=config.concurrency, progress=progress)
    replay.in_order("the served side of the parity check", results, list(torch_logits), where=path)
    return ServedParity(
        requests=len(results),
        served_max_abs_difference=max((difference for difference, _ in results.values()), default=None),
        same_top10_share=float(np.mean([same for _, same in results.values()])) if results else None,
    )


def compare(
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
