"""The heads of the declared labels on a running server: the test exposures sent through it, and what happened.

Shapes: N impressions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluate import replay
from components.evaluate.label_metrics import columns_of, head_metrics
from components.evaluate.measure import RunningServer
from components.evaluate.replay import ReplayRequest
from rankline.evaluation.report import HeadScores
from rankline.evaluation.snapshot_requests import Exposure
from rankline.features.label_values import declared_labels, outcomes
from rankline.model.head_values import head_values

VALIDATION = "heads.json"  # of the student: what its heads reach across folds


def measure_labels(candidate: RunningServer, *, features: Path, student: Path, split: str) -> dict[str, HeadScores]:
    """Label -> what its head reaches on the exposures of a split; empty for a model without declared labels.

    A chance is compared with what happened wherever the item was shown, and once more with the chance at that very
    position where the model knows what positions add.
    """
    heads, config = candidate.bundle.policy.heads, candidate.config
    labels = {name: each for name, each in declared_labels(_read(features / "summary.json")).items() if name in heads}
    if not labels:
        return {}
    chosen = replay.sample_exposures(features, split=split, max_exposures=config.max_exposures, seed=config.seed)
    answers, positions, values = [], list[int](), {name: list[float]() for name in labels}
    for exposure, answered in _answers(candidate, features, split, chosen):
        rows = [n for n, item in enumerate(exposure.items) if item in answered]
        answers += [answered[exposure.items[n]] for n in rows]
        positions += [exposure.positions[n] for n in rows]
        for name in labels:
            values[name] += [_number(exposure.labels[name][n]) for n in rows]
    served = columns_of(list(labels), [answer["heads"] for answer in answers])
    outputs = columns_of(list(heads), [answer["logits"] for answer in answers])
    at_position = head_values(outputs, heads, positions)
    happened, reached = outcomes(labels, values), _read(student / VALIDATION)
    scores = {}
    for name in labels:
        placed_N = at_position[name] if any(each.positions for each in heads.values()) else None
        numbers, deciles = head_metrics(heads[name], happened[name], served[name], placed_N, bins=config.bins)
        scores[name] = HeadScores(
            type=labels[name].type,
            impressions=int((~np.isnan(happened[name])).sum()),
            metrics=numbers,
            deciles=deciles,
            validation=reached.get(name, {}),
        )
    return scores


def _answers(
    candidate: RunningServer, features: Path, split: str, chosen: set[str]
) -> Iterator[tuple[Exposure, dict[str, Any]]]:
    """Each exposure with the server's answer for its items, by item."""
    exposures = list(replay.read_exposures(features, split=split, chosen=chosen))

    def rank(request: ReplayRequest) -> dict[str, Any]:
        exposure = by_id[request.request_id]
        answer = candidate.server.post("/v1/rank", request.body(candidates=list(dict.fromkeys(exposure.items))))
        return {item["item_id"]: item for item in answer["items"]}

    by_id = {request.request_id: exposure for request, exposure in exposures}
    answers = candidate.map(rank, [request for request, _ in exposures])
    for request, exposure in exposures:
        yield exposure, answers[request.request_id]


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return content


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
