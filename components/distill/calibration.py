"""Calibration of the student: scores become probabilities, and a threshold below which it abstains.

Fitted on validation requests, each scored by a scorer that was not trained on it.

Shapes: R requests, N candidates, X inputs of the regression.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from components.distill import scorer as scorers
from components.distill.config import DistillConfig
from components.distill.scorer import ScorerInputs
from rankline.model.networks import Scorer
from rankline.model.policy import SOFTMAX_CANDIDATES, Calibration, ServingPolicy

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
ANSWERABILITY_FEATURES = ("towers_score", "bm25_log")  # these can tell a query with an answer from one without
RIDGE = 1e-3


@dataclass(frozen=True)
class JudgedRequest:
    """Inputs [N, X] of the best candidates of one request, and which of them are correct."""

    inputs_NX: Floats
    correct_N: npt.NDArray[np.bool_]


def fit_policy(
    inputs: ScorerInputs, train: Callable[[Ints], Scorer], *, config: DistillConfig
) -> tuple[ServingPolicy, dict[str, Any]]:
    """The policy that fits the validation requests, and what it reaches on them.

    ``train`` gives a scorer that was not trained on some rows of the table.
    """
    sources = inputs.names.sources
    selected = [name for name in ANSWERABILITY_FEATURES if name in sources] if config.calibrate == "open" else []
    rng = np.random.default_rng(config.seed)
    judged: list[JudgedRequest] = []
    for fold in np.array_split(rng.permutation(len(inputs.table.rows)), config.calibration_folds):
        judged += _judge(inputs, fold, train(fold), selected, with_unanswerable=config.calibrate == "open")
    weights_X, bias = _fit_logistic_regression(
        np.concatenate([j.inputs_NX for j in judged]), np.concatenate([j.correct_N for j in judged])
    )
    calibration = Calibration(
        share_weight=float(weights_X[0]), feature_weights=dict(zip(selected, map(float, weights_X[1:]))), bias=bias
    )
    probabilities = [1 / (1 + np.exp(-(j.inputs_NX @ weights_X + bias))) for j in judged]
    top_probability = np.array([probability[0] for probability in probabilities])
    correct = np.array([j.correct_N[0] for j in judged])
    metrics: dict[str, Any] = {"calibrated_on": len(top_probability), "first_right": round(float(correct.mean()), 4)}
    if config.calibrate != "open":
        return ServingPolicy(calibration=calibration), metrics
    threshold, precision, answered = _choose_threshold(top_probability, correct, wanted=config.answer_precision)
    metrics |= {"abstain_below": threshold, "answer_precision": precision, "answered": answered}
    return ServingPolicy(calibration=calibration, abstain_below=threshold), metrics


def _judge(
    inputs: ScorerInputs, fold: Ints, scorer: Scorer, selected: list[str], *, with_unanswerable: bool
) -> Iterator[JudgedRequest]:
    """The requests of a fold, and with ``with_unanswerable`` each again in a catalogue without its answers."""
    part = inputs.table.select(fold)
    for r, logits_NH in enumerate(scorers.logits(part, scorer, inputs.catalogue)):
        correct_N = np.isin(part.rows[r], part.targets[r])
        candidate_masks = [np.ones(len(correct_N), bool), *([~correct_N] if with_unanswerable else [])]
        for mask_N in candidate_masks:
            if not mask_N.any():
                continue
            logits_N, features_NF = logits_NH[mask_N, 0], part.features[r][mask_N]
            inputs_NX = Calibration.inputs(logits_N, features_NF, inputs.names.columns, selected)
            best = np.argsort(-logits_N, kind="stable")[:SOFTMAX_CANDIDATES]
            yield JudgedRequest(inputs_NX[best], correct_N[mask_N][best])


def _fit_logistic_regression(inputs_NX: Floats, correct_N: npt.NDArray[np.bool_]) -> tuple[Floats, float]:
    """Weights and bias of a logistic regression with a small ridge penalty for uninformative columns."""
    scale_X = np.maximum(inputs_NX.std(0), 1e-6)
    inputs = torch.from_numpy(inputs_NX / scale_X)
    correct = torch.from_numpy(correct_N.astype(np.float64))
    weights = torch.zeros(inputs.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(inputs @ weights[:-1] + weights[-1], correct)
        value = value + RIDGE * (weights[:-1] ** 2).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    fitted = weights.detach().numpy()
    return fitted[:-1] / scale_X, float(fitted[-1])


def _choose_threshold(
    probability_R: Floats, correct_R: npt.NDArray[np.bool_], *, wanted: float
) -> tuple[float, float, float]:
    """(threshold, precision, answered): the lowest threshold at which the given answers have the wanted precision.

    If none has it, the threshold with the best precision over at least a twentieth of the requests.
    """
    order = np.argsort(-probability_R, kind="stable")
    counts = np.arange(1, len(order) + 1)
    precision = np.cumsum(correct_R[order]) / counts
    enough = counts >= max(1, len(order) // 20)
    reached = np.flatnonzero((precision >= wanted) & enough)
    last = int(reached[-1]) if len(reached) else int(np.argmax(np.where(enough, precision, -1.0)))
    return (
        float(probability_R[order[last]]),
        round(float(precision[last]), 4),
        round(float(counts[last] / len(order)), 4),
    )
