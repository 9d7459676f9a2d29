"""Metrics of the labels' heads: what was served against what happened.

Shapes: N impressions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from rankline.evaluation import metrics
from rankline.evaluation.report import Decile
from rankline.model.head_values import HeadPolicy

Doubles = npt.NDArray[np.float64]
DECILES = 10
MIN_CHANCE = 1e-7


def chance_metrics(
    happened_N: Doubles, chance_N: Doubles, *, threshold: float | None, bins: int
) -> dict[str, float | None]:
    """Metrics of the chances of a binary label; those that need both outcomes are None where there is one."""
    from sklearn.metrics import average_precision_score, log_loss, precision_recall_fscore_support, roc_auc_score

    share = float(happened_N.mean())
    ranked = {"auc": roc_auc_score, "pr_auc": average_precision_score} if 0 < share < 1 else {}
    deciles = decile_bins(happened_N, chance_N)
    numbers: dict[str, float | None] = {
        "share": share,
        "mean_chance": float(chance_N.mean()),
        "auc": None,
        "pr_auc": None,
        **{name: float(score(happened_N, chance_N)) for name, score in ranked.items()},
        "log_loss": float(log_loss(happened_N, np.clip(chance_N, MIN_CHANCE, 1 - MIN_CHANCE), labels=[0, 1])),
        "ece": metrics.reliability(happened_N, chance_N, bins=bins).error,
        "ece_deciles": float(np.average([abs(each.gap) for each in deciles], weights=[each.count for each in deciles])),
        "worst_decile": max(abs(each.gap) for each in deciles),
    }
    if threshold is not None:
        predicted_N = chance_N >= threshold
        scores = precision_recall_fscore_support(happened_N, predicted_N, average="binary", zero_division=0.0)
        numbers |= dict(zip(("precision", "recall", "f1"), map(float, scores[:3]))) | {"threshold": threshold}
    return numbers


def value_metrics(value_N: Doubles, predicted_N: Doubles) -> dict[str, float | None]:
    """Errors of the predicted values of a label that is not binary, in its own unit."""
    from sklearn.metrics import mean_absolute_error, mean_squared_error

    return {
        "mse": float(mean_squared_error(value_N, predicted_N)),
        "mae": float(mean_absolute_error(value_N, predicted_N)),
        "mean": float(value_N.mean()),
        "mean_predicted": float(predicted_N.mean()),
        "variance": float(value_N.var()),
    }


def decile_bins(happened_N: Doubles, chance_N: Doubles) -> list[Decile]:
    """The impressions in ten equal parts by their chance, the least likely first; equal chances stay together."""
    edges = np.unique(np.quantile(chance_N, np.linspace(0, 1, DECILES + 1)))
    place_N = np.clip(np.searchsorted(edges, chance_N, side="right") - 1, 0, max(0, len(edges) - 2))
    groups = [np.flatnonzero(place_N == place) for place in np.unique(place_N)]
    return [
        Decile(count=len(rows), mean_chance=float(chance_N[rows].mean()), share=float(happened_N[rows].mean()))
        for rows in groups
    ]


def head_metrics(
    head: HeadPolicy, outcome_N: Doubles, served_N: Doubles, at_position_N: Doubles | None, *, bins: int
) -> tuple[dict[str, float | None], list[Decile]]:
    """The metrics of one head, and the deciles of a binary one; ``at_position_N`` is its chance where it was shown."""
    known_N = ~np.isnan(outcome_N)
    outcome_N, served_N = outcome_N[known_N], served_N[known_N]
    if not len(outcome_N):
        return {}, []
    if not head.is_binary:
        return value_metrics(outcome_N, served_N), []
    numbers = chance_metrics(outcome_N, served_N, threshold=head.threshold, bins=bins)
    if at_position_N is not None:
        placed = chance_metrics(outcome_N, at_position_N[known_N], threshold=None, bins=bins)
        chosen = ("auc", "log_loss", "ece", "worst_decile")
        numbers |= {f"{name}_at_position": placed[name] for name in chosen}
    return numbers, decile_bins(outcome_N, served_N)


def columns_of(names: Sequence[str], answers: Sequence[Mapping[str, float]]) -> dict[str, Doubles]:
    """Name -> [N] its value in every answer."""
    return {name: np.array([answer[name] for answer in answers], np.float64) for name in names}
