"""How sure the student is: its scores made into chances, and the chance below which it rather says nothing.

Judged on validation requests by scorers that have not seen them. Shapes: N candidates, X inputs of the regression.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from components.distill import scorer as mix
from components.distill.config import DistillConfig
from rankline.contracts import FeatureNames
from rankline.model.networks import Scorer
from rankline.model.policy import RIVALS, Calibration, Policy
from rankline.model.scoring import Catalogue

Floats = npt.NDArray[np.float64]
TELLING = ("towers_score", "bm25_log")  # features that can tell an answer from none at all
RIDGE = 1e-3


@dataclass(frozen=True)
class Judged:
    """Inputs [N, X] of the best candidates of one request, which are right, and whether any could be."""

    inputs_NX: Floats
    right_N: npt.NDArray[np.bool_]


def policy(
    table: mix.Table,
    catalogue: Catalogue,
    names: FeatureNames,
    train: Callable[[npt.NDArray[np.int64]], Scorer],
    *,
    config: DistillConfig,
) -> tuple[Policy, dict[str, Any]]:
    """The policy that fits the validation requests, and what it reaches on them.

    ``train`` gives a scorer that has not seen some rows of ``table``.
    """
    chosen = [name for name in TELLING if name in names.sources] if config.calibrate == "open" else []
    columns = names.columns
    rng = np.random.default_rng(config.seed)
    judged: list[Judged] = []
    for fold in np.array_split(rng.permutation(len(table.rows)), config.calibration_folds):
        scorer = train(fold)
        part = table.take(fold)
        for r, logits_NH in enumerate(mix.logits(part, scorer, catalogue)):
            right_N = np.isin(part.rows[r], part.targets[r])
            worlds = [np.ones(len(right_N), bool)]
            if config.calibrate == "open":  # the same request in a catalogue that has no answer to it
                worlds.append(~right_N)
            for kept_N in (world_N for world_N in worlds if world_N.any()):
                logits_N, features_NF = logits_NH[kept_N, 0], part.features[r][kept_N]
                inputs_NX = Calibration.inputs(logits_N, features_NF, columns, chosen)
                best = np.argsort(-logits_N, kind="stable")[:RIVALS]
                judged.append(Judged(inputs_NX[best], right_N[kept_N][best]))
    weights_X, bias = _fit(np.concatenate([j.inputs_NX for j in judged]), np.concatenate([j.right_N for j in judged]))
    calibration = Calibration(
        share_weight=float(weights_X[0]),
        feature_weights=dict(zip(chosen, map(float, weights_X[1:]))),
        bias=bias,
    )
    chances = [1 / (1 + np.exp(-(j.inputs_NX @ weights_X + bias))) for j in judged]
    first = np.array([chance[0] for chance in chances])
    right = np.array([j.right_N[0] for j in judged])
    found: dict[str, Any] = {"calibrated_on": len(first), "first_right": round(float(right.mean()), 4)}
    if config.calibrate != "open":
        return Policy(calibration=calibration), found
    threshold, precision, answered = _threshold(first, right, wanted=config.answer_precision)
    found |= {"abstain_below": threshold, "answer_precision": precision, "answered": answered}
    return Policy(calibration=calibration, abstain_below=threshold), found


def _fit(inputs_NX: Floats, right_N: npt.NDArray[np.bool_]) -> tuple[Floats, float]:
    """Weights and bias of a logistic regression, a little ridge against columns that tell nothing."""
    scale_X = np.maximum(inputs_NX.std(0), 1e-6)
    inputs = torch.from_numpy(inputs_NX / scale_X)
    right = torch.from_numpy(right_N.astype(np.float64))
    weights = torch.zeros(inputs.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(inputs @ weights[:-1] + weights[-1], right)
        value = value + RIDGE * (weights[:-1] ** 2).sum()
        value.backward()
        return value

    optimizer.step(loss)
    fitted = weights.detach().numpy()
    return fitted[:-1] / scale_X, float(fitted[-1])


def _threshold(chance_R: Floats, right_R: npt.NDArray[np.bool_], *, wanted: float) -> tuple[float, float, float]:
    """(threshold, precision, answered): the lowest at which the answers given are right as often as wanted.

    Where no threshold reaches that, the one with the best precision over at least a twentieth of the requests.
    """
    order = np.argsort(-chance_R, kind="stable")
    counts = np.arange(1, len(order) + 1)
    precision = np.cumsum(right_R[order]) / counts
    enough = counts >= max(1, len(order) // 20)
    reached = np.flatnonzero((precision >= wanted) & enough)
    last = int(reached[-1]) if len(reached) else int(np.argmax(np.where(enough, precision, -1.0)))
    return (
        float(chance_R[order[last]]),
        round(float(precision[last]), 4),
        round(float(counts[last] / len(order)), 4),
    )
