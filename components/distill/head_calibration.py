"""From the outputs of the labels' heads to what is served, fitted on impressions that the heads were not trained on.

Shapes: N impressions, K labels, P positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from components.distill.config import DistillConfig
from components.distill.impressions import Impressions
from components.distill.label_heads import TrainedHeads, outputs, train
from rankline.evaluation import metrics
from rankline.labels import Label
from rankline.model.head_values import CurvePoint, HeadPolicy, PositionShare, head_values
from rankline.model.networks import LabelHeads
from rankline.model.scoring import Catalogue

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Train = Callable[[Ints], TrainedHeads]
MIN_CHANCE = 1e-7
MIN_POINTS, MAX_POINTS, HAPPENED_PER_POINT = 3, 12, 100
CURVE_RIDGE = 1.0  # how little a curve bends, as if by so many impressions


@dataclass(frozen=True)
class HeldOut:
    """[N, K] the outputs for every impression, and what its position adds, by heads not trained on its request."""

    outputs_NK: Doubles
    offsets_NK: Doubles


@dataclass(frozen=True)
class FittedHeads:
    """The heads of the labels, how each is served, and what they reach on the impressions."""

    model: LabelHeads
    policies: dict[str, HeadPolicy]
    reached: dict[str, dict[str, float | None]]


def fit_labels(data: Impressions, catalogue: Catalogue, config: DistillConfig, *, device: torch.device) -> FittedHeads:
    """Train the heads of all labels, calibrate them across folds, and measure what the positions change.

    Raises:
        TooSmall: there is too little to learn a label from.
        UsageError: a label comes after one that is not binary.
    """
    data.refuse_too_few()
    folds = data.folds(config.calibration_folds, np.random.default_rng(config.seed))

    def fitted(config: DistillConfig) -> FittedHeads:
        def train_on(rows: Ints) -> TrainedHeads:
            return train(data, rows, catalogue, config, device=device)

        def outputs_of(heads: TrainedHeads, rows: Ints) -> Doubles:
            return outputs(heads.model, data, rows, catalogue)

        trained = train_on(np.arange(len(data.items_N)))
        held_out = hold_out(data, train_on, outputs_of, folds)
        return FittedHeads(trained.model, *fit_heads(data, trained, held_out))

    heads = fitted(config)
    if any(policy.positions for policy in heads.policies.values()):
        without = fitted(config.model_copy(update={"position_bias": False}))
        for name, numbers in without.reached.items():
            heads.reached[name] |= {f"{metric}_without_position": value for metric, value in numbers.items()}
    return heads


def fit_heads(
    data: Impressions, trained: TrainedHeads, held_out: HeldOut
) -> tuple[dict[str, HeadPolicy], dict[str, dict[str, float | None]]]:
    """How each head is served, and what that reaches on the impressions: label -> metric -> value."""
    outcomes, labels = data.outcomes, dict(data.labels)
    outputs = dict(zip(labels, held_out.outputs_NK.T))
    heads: dict[str, HeadPolicy] = {}
    for name in _parents_first(labels):
        k = list(labels).index(name)
        if labels[name].type == "binary":
            heads[name] = _binary_head(name, k, data, trained, held_out, heads)
        else:
            heads[name] = _value_head(labels[name], outcomes[name], trained.mean_K[k], trained.spread_K[k])
    served = head_values(outputs, heads)
    for name, outcome_N in outcomes.items():
        if heads[name].is_binary:
            known_N = ~np.isnan(outcome_N)
            threshold = best_threshold(outcome_N[known_N], served[name][known_N])
            heads[name] = heads[name].model_copy(update={"threshold": threshold})
    at_positions = head_values(outputs, heads, data.positions_N)
    reached = {
        name: _reached(heads[name], outcomes[name], served[name])
        | ({"log_loss_at_position": log_loss(outcomes[name], at_positions[name])} if heads[name].positions else {})
        for name in labels
    }
    return {name: heads[name] for name in labels}, reached


def _binary_head(
    name: str, k: int, data: Impressions, trained: TrainedHeads, held_out: HeldOut, heads: Mapping[str, HeadPolicy]
) -> HeadPolicy:
    """Platt scaling of a logit; of a label that comes after another one, so that the product of both is calibrated."""
    labels, outcome_N = dict(data.labels), data.outcomes[name]
    known_N = ~np.isnan(outcome_N)
    before_N = np.ones(len(outcome_N))
    after = labels[name].after
    if after:
        outputs = dict(zip(labels, held_out.outputs_NK.T))
        before_N = head_values({each: outputs[each] for each in heads}, heads, data.positions_N)[after]
    logits_N = held_out.outputs_NK[:, k] + held_out.offsets_NK[:, k]
    weight, bias = fit_platt(logits_N[known_N], outcome_N[known_N], before_N=before_N[known_N])
    scaled_N = weight * held_out.outputs_NK[:, k] + bias
    offsets_N = weight * held_out.offsets_NK[:, k]
    curve = fit_curve(scaled_N[known_N], offsets_N[known_N], outcome_N[known_N], before_N=before_N[known_N])
    positions = []
    if np.any(trained.offsets_KP[k]):
        share_P = np.bincount(np.searchsorted(trained.positions_P, data.positions_N)) / len(data.positions_N)
        positions = [
            PositionShare(position=int(position), share=float(share), offset=weight * float(offset))
            for position, share, offset in zip(trained.positions_P, share_P, trained.offsets_KP[k])
        ]
    return HeadPolicy(type="binary", weight=weight, bias=bias, curve=curve, positions=positions, after=after)


def _value_head(label: Label, values_N: Doubles, mean: float, spread: float) -> HeadPolicy:
    low, high = label.scale or (float(np.nanmin(values_N)), float(np.nanmax(values_N)))
    return HeadPolicy(
        type=label.type, weight=float(spread), bias=float(mean), after=label.after, low=float(low), high=float(high)
    )


def hold_out(
    data: Impressions, train: Train, outputs: Callable[[TrainedHeads, Ints], Doubles], folds: list[Ints]
) -> HeldOut:
    """The outputs of every impression by heads that were trained on the other folds."""
    outputs_NK = np.zeros((len(data.items_N), len(data.labels)))
    offsets_NK = np.zeros_like(outputs_NK)
    everything = np.arange(len(data.items_N))
    for fold in folds:
        heads = train(np.setdiff1d(everything, fold))
        outputs_NK[fold] = outputs(heads, fold)
        offsets_NK[fold] = heads.offsets_KP[:, np.searchsorted(heads.positions_P, data.positions_N[fold])].T
    return HeldOut(outputs_NK, offsets_NK)


def fit_platt(logits_N: Doubles, outcome_N: Doubles, *, before_N: Doubles) -> tuple[float, float]:
    """Weight and bias with which sigmoid(weight * logit + bias) * before is most likely (Platt 1999)."""
    logits, outcome, before = (
        torch.from_numpy(np.asarray(part, np.float64)) for part in (logits_N, outcome_N, before_N)
    )
    parameters = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        chance = torch.sigmoid(parameters[0] * logits + parameters[1]) * before
        value = F.binary_cross_entropy(chance.clamp(MIN_CHANCE, 1 - MIN_CHANCE), outcome)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    weight, bias = parameters.detach().tolist()
    if weight < 0 and logits_N.any():  # noise alone: the chance is the same for all, instead of upside down
        return 0.0, fit_platt(np.zeros_like(logits_N), outcome_N, before_N=before_N)[1]
    return max(0.0, float(weight)), float(bias)


def fit_curve(scaled_N: Doubles, offsets_N: Doubles, outcome_N: Doubles, *, before_N: Doubles) -> list[CurvePoint]:
    """A rising curve through a few points that bends Platt's line where it does not fit.

    A mixture of users who care and users who do not has no logit that is a line. The points are at quantiles of the
    logit, at most one for every `HAPPENED_PER_POINT` impressions in which the label happened; none with few of these.
    """
    count = min(MAX_POINTS, int(outcome_N.sum()) // HAPPENED_PER_POINT)
    x_C = np.unique(np.quantile(scaled_N, np.linspace(0.02, 0.98, count))) if count >= MIN_POINTS else np.zeros(0)
    if len(x_C) < MIN_POINTS:
        return []
    shares_NC = torch.from_numpy(np.stack([np.interp(scaled_N, x_C, unit_C) for unit_C in np.eye(len(x_C))], 1))
    straight, offsets, outcome, before = (torch.from_numpy(part) for part in (scaled_N, offsets_N, outcome_N, before_N))
    bends = torch.zeros(len(x_C), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([bends], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        chance = torch.sigmoid(straight + shares_NC @ bends + offsets) * before
        value = F.binary_cross_entropy(chance.clamp(MIN_CHANCE, 1 - MIN_CHANCE), outcome)
        value = value + CURVE_RIDGE / len(outcome) * (bends[2:] - 2 * bends[1:-1] + bends[:-2]).square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    y_C = np.maximum.accumulate(x_C + bends.detach().numpy())
    return [CurvePoint(logit=float(x), calibrated=float(y)) for x, y in zip(x_C, y_C)]


def best_threshold(outcome_N: Doubles, chance_N: Doubles) -> float:
    """The chance from which a label is predicted to happen with the largest F1."""
    order = np.argsort(-chance_N, kind="stable")
    hits_N = np.cumsum(outcome_N[order])
    f1_N = 2 * hits_N / (np.arange(1, len(order) + 1) + outcome_N.sum())
    last_of_equals_N = np.append(np.diff(chance_N[order]) != 0, True)
    return float(chance_N[order[int(np.argmax(np.where(last_of_equals_N, f1_N, -1.0)))]])


def log_loss(outcome_N: Doubles, chance_N: Doubles) -> float:
    """The mean of minus the log of the chance that was given to what happened, where it is known."""
    chance_N = np.clip(chance_N, MIN_CHANCE, 1 - MIN_CHANCE)
    return float(-np.nanmean(np.where(outcome_N > 0, np.log(chance_N), np.log(1 - chance_N)) + 0 * outcome_N))


def _parents_first(labels: Mapping[str, Label]) -> list[str]:
    def depth(name: str) -> int:
        return 1 + depth(labels[name].after) if labels[name].after else 0

    return sorted(labels, key=depth)


def _reached(head: HeadPolicy, outcome_N: Doubles, values_N: Doubles) -> dict[str, float | None]:
    """What a head reaches: AUC and log loss of a binary label, mean squared error of another one."""
    known_N = ~np.isnan(outcome_N)
    outcome_N, values_N = outcome_N[known_N], values_N[known_N]
    if not head.is_binary:
        return {"mse": float(np.mean((values_N - outcome_N) ** 2)), "variance": float(outcome_N.var())}
    return {
        "auc": metrics.auc(outcome_N, values_N),
        "log_loss": log_loss(outcome_N, values_N),
        "share": float(outcome_N.mean()),
        "mean_chance": float(values_N.mean()),
    }
