"""From ranked lists to what the report says of them: means, intervals, differences, slices.

Shapes: R requests, M metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.evaluate.config import EvaluateConfig
from rankline.evaluation import bootstrap, metrics
from rankline.evaluation.report import CANDIDATE, PER_REQUEST, Estimate, SliceScores

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Scores = Mapping[str, Mapping[str, Floats]]  # system -> metric -> [R]


def score(
    ranked: Mapping[str, Sequence[Sequence[str]]], targets: Sequence[Sequence[str]], *, config: EvaluateConfig
) -> Scores:
    """Every metric of every request for every system."""
    return {
        name: metrics.ranking(metrics.judge(lists, targets, depth=config.top_k), config.ks)
        for name, lists in ranked.items()
    }


def estimates(scores: Scores, *, config: EvaluateConfig) -> dict[str, dict[str, Estimate]]:
    """System -> metric -> mean over the requests, with its interval."""
    names = [(system, metric) for system, of_system in scores.items() for metric in of_system]
    values_RM = np.stack([scores[system][metric] for system, metric in names], axis=1)
    out: dict[str, dict[str, Estimate]] = {system: {} for system in scores}
    for (system, metric), estimate in zip(names, _intervals(values_RM, config)):
        out[system][metric] = estimate
    return out


def differences(scores: Scores, *, config: EvaluateConfig) -> dict[str, dict[str, dict[str, float | None]]]:
    """System -> metric -> candidate minus system, paired by request, for metrics at the primary's length."""
    suffix = "@" + config.primary.partition("@")[2]
    names = [
        (system, metric)
        for system, of_system in scores.items()
        for metric in of_system
        if system != CANDIDATE and metric.endswith(suffix)
    ]
    values_RM = np.stack([scores[CANDIDATE][metric] - scores[system][metric] for system, metric in names], 1)
    out: dict[str, dict[str, dict[str, float | None]]] = {}
    for (system, metric), estimate in zip(names, _intervals(values_RM, config)):
        out.setdefault(system, {})[metric] = estimate.model_dump()
    return out


def list_statistics(
    ranked: Sequence[Sequence[str]],
    categories: Mapping[str, Sequence[str]],
    counts: Mapping[str, float],
    *,
    config: EvaluateConfig,
) -> dict[str, float | None]:
    """What a system's lists look like as a whole, at the primary's length; ``counts`` names every item."""
    k = int(config.primary.partition("@")[2])
    return {
        f"coverage@{k}": metrics.coverage(ranked, items=len(counts), k=k),
        f"diversity@{k}": _mean(metrics.diversity(ranked, categories, k=k)),
        f"novelty@{k}": _mean(metrics.novelty(ranked, counts, items=len(counts), k=k)),
    }


def by_slice(masks: Mapping[str, Bools], scores: Scores, *, config: EvaluateConfig) -> dict[str, SliceScores]:
    """Slice -> how many requests it has and each system's means on them, at the primary's length."""
    suffix = "@" + config.primary.partition("@")[2]
    return {
        name: SliceScores(
            requests=int(mask_R.sum()),
            systems={
                system: {m: float(v_R[mask_R].mean()) for m, v_R in of_system.items() if m.endswith(suffix)}
                for system, of_system in scores.items()
            },
        )
        for name, mask_R in masks.items()
    }


def write_tables(report: Path, ids: Sequence[str], scores: Scores, masks: Mapping[str, Bools]) -> None:
    """per_request.parquet (a row a system and request) and slices.parquet (a row a slice and request)."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    tables = [
        pa.table({"request_id": list(ids), "system": [system] * len(ids), **of_system})
        for system, of_system in scores.items()
    ]
    parquet.write_table(pa.concat_tables(tables), report / PER_REQUEST, compression="zstd")
    members = [(one, name) for name, mask_R in masks.items() for one, inside in zip(ids, mask_R) if inside]
    columns = {
        "request_id": pa.array([one for one, _ in members], pa.string()),
        "slice": pa.array([name for _, name in members], pa.string()),
    }
    parquet.write_table(pa.table(columns), report / "slices.parquet", compression="zstd")


def _intervals(values_RM: Floats, config: EvaluateConfig) -> list[Estimate]:
    intervals = bootstrap.intervals(values_RM, resamples=config.bootstrap_samples, seed=config.seed)
    return [Estimate(mean=one.mean, low=one.low, high=one.high) for one in intervals]


def _mean(values_R: Floats) -> float | None:
    """The mean of what could be measured; None if nothing could."""
    known_R = values_R[~np.isnan(values_R)]
    return float(known_R.mean()) if known_R.size else None
