"""From ranked lists to the report's numbers: means, intervals, differences, slices.

Shapes: R requests, M metrics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.evaluate.attributes import ITEM, Attribute
from components.evaluate.config import EvaluateConfig
from rankline.evaluation import metrics
from rankline.evaluation.report import (
    CANDIDATE,
    PER_REQUEST,
    REQUESTS,
    Estimate,
    ExposureScores,
    GroupExposure,
    SliceScores,
)
from rankline.evaluation.snapshot_requests import SnapshotRequest
from rankline.gates.clusters import Clustered

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
REPORTED_GROUPS = 20  # of an attribute: some have thousands
Scores = Mapping[str, Mapping[str, Floats]]  # system -> metric -> [R]


def score(
    ranked: Mapping[str, Sequence[Sequence[str]]], requests: Sequence[SnapshotRequest], *, config: EvaluateConfig
) -> Scores:
    """System -> metric -> score of each request, [R]; the weights of targets are their gains."""
    targets = [request.targets for request in requests]
    weights = [request.target_weights for request in requests]
    gains = weights if any(weights) else None
    return {
        name: metrics.ranking(metrics.judge(lists, targets, depth=config.top_k, gains=gains), config.ks)
        for name, lists in ranked.items()
    }


def estimates(
    scores: Scores, requests: Sequence[SnapshotRequest], *, config: EvaluateConfig
) -> dict[str, dict[str, Estimate]]:
    """System -> metric -> mean over the requests, with its bootstrap interval over users."""
    names = [(system, metric) for system, by_metric in scores.items() for metric in by_metric]
    values_RM = np.stack([scores[system][metric] for system, metric in names], axis=1)
    result: dict[str, dict[str, Estimate]] = {system: {} for system in scores}
    for (system, metric), estimate in zip(names, _intervals(values_RM, requests, config)):
        result[system][metric] = estimate
    return result


def differences(
    scores: Scores, requests: Sequence[SnapshotRequest], *, config: EvaluateConfig
) -> dict[str, dict[str, dict[str, float | None]]]:
    """System -> metric at the primary's length -> candidate minus system, paired by request."""
    suffix = length_suffix(config.primary)
    names = [
        (system, metric)
        for system, by_metric in scores.items()
        for metric in by_metric
        if system != CANDIDATE and metric.endswith(suffix)
    ]
    values_RM = np.stack([scores[CANDIDATE][metric] - scores[system][metric] for system, metric in names], 1)
    result: dict[str, dict[str, dict[str, float | None]]] = {}
    for (system, metric), estimate in zip(names, _intervals(values_RM, requests, config)):
        result.setdefault(system, {})[metric] = estimate.model_dump()
    return result


def list_statistics(
    ranked: Sequence[Sequence[str]],
    categories: Mapping[str, Sequence[str]],
    counts: Mapping[str, float],
    histories_R: Floats,
    *,
    config: EvaluateConfig,
) -> dict[str, float | None]:
    """Coverage, diversity, novelty and popularity bias of a system's lists at the primary's length.

    ``counts`` has every item; ``histories_R`` is how popular the items of the requests' histories are.
    """
    k = int(length_suffix(config.primary)[1:])
    exposed = metrics.exposure(ranked, k=k)
    lists_R = metrics.log_popularity([items[:k] for items in ranked], counts)
    return {
        f"coverage@{k}": metrics.coverage(ranked, items=len(counts), k=k),
        f"diversity@{k}": _mean(metrics.diversity(ranked, categories, k=k)),
        f"novelty@{k}": _mean(metrics.novelty(ranked, counts, items=len(counts), k=k)),
        f"popularity_lift@{k}": _mean(lists_R - histories_R),
        f"gini@{k}": metrics.gini([exposed.get(item, 0.0) for item in counts]),
    }


def exposures(
    ranked: Sequence[Sequence[str]],
    targets: Sequence[Sequence[str]],
    item_ids: Sequence[str],
    attributes: Mapping[str, Attribute],
    *,
    config: EvaluateConfig,
) -> dict[str, ExposureScores]:
    """Attribute ("category") -> how the exposure of lists at the primary's length is divided among its groups."""
    exposed = metrics.exposure(ranked, k=int(length_suffix(config.primary)[1:]))
    wanted = Counter(item for items in targets for item in items)
    by_attribute = {}
    for name, attribute in attributes.items():
        catalogue, shown, relevant = (
            metrics.group_shares(weights, attribute.groups)
            for weights in (
                [1.0] * len(item_ids),
                [exposed.get(item, 0.0) for item in item_ids],
                [float(wanted[item]) for item in item_ids],
            )
        )
        if shown and len(catalogue) > 1:
            by_attribute[name.removeprefix(f"{ITEM}.")] = _exposure_scores(shown, catalogue, relevant)
    return by_attribute


def _exposure_scores(
    shown: Mapping[str, float], catalogue: Mapping[str, float], relevant: Mapping[str, float]
) -> ExposureScores:
    gaps = {name: abs(shown.get(name, 0.0) - share) for name, share in catalogue.items()}
    largest = sorted(gaps, key=lambda name: (-gaps[name], name))[:REPORTED_GROUPS]
    return ExposureScores(
        max_gap=max(gaps.values()),
        max_gap_to_relevance=max(abs(shown.get(name, 0.0) - relevant.get(name, 0.0)) for name in catalogue)
        if relevant
        else None,
        groups={
            name: GroupExposure(
                exposure=shown.get(name, 0.0),
                catalogue=catalogue[name],
                relevance=relevant.get(name, 0.0) if relevant else None,
            )
            for name in largest
        },
    )


def by_slice(masks: Mapping[str, Bools], scores: Scores, *, config: EvaluateConfig) -> dict[str, SliceScores]:
    """Slice -> its number of requests and, unless it is too small, each system's means at the primary's length."""
    suffix = length_suffix(config.primary)
    return {
        name: SliceScores(
            requests=int(mask_R.sum()),
            systems={
                system: {
                    metric: float(values_R[mask_R].mean()) if mask_R.sum() >= config.slice_minimum else None
                    for metric, values_R in by_metric.items()
                    if metric.endswith(suffix)
                }
                for system, by_metric in scores.items()
            },
        )
        for name, mask_R in masks.items()
    }


def write_tables(
    report: Path, ids: Sequence[str], requests: Sequence[SnapshotRequest], scores: Scores, masks: Mapping[str, Bools]
) -> None:
    """Write per_request.parquet (one row per system and request), slices.parquet (one per slice and request), and
    requests.parquet (whose request each one is, and when it was made)."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    tables = [
        pa.table({"request_id": list(ids), "system": [system] * len(ids), **by_metric})
        for system, by_metric in scores.items()
    ]
    parquet.write_table(pa.concat_tables(tables), report / PER_REQUEST, compression="zstd")
    members = [
        (request_id, name) for name, mask_R in masks.items() for request_id, inside in zip(ids, mask_R) if inside
    ]
    columns = {
        "request_id": pa.array([request_id for request_id, _ in members], pa.string()),
        "slice": pa.array([name for _, name in members], pa.string()),
    }
    parquet.write_table(pa.table(columns), report / "slices.parquet", compression="zstd")
    _write_requests(report, requests)


def _write_requests(report: Path, requests: Sequence[SnapshotRequest]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    columns = {
        "request_id": pa.array([each.request_id for each in requests], pa.string()),
        "cluster": pa.array([_cluster(each) for each in requests], pa.string()),
        "at": pa.array([each.state.at for each in requests], pa.float64()),
    }
    parquet.write_table(pa.table(columns), report / REQUESTS, compression="zstd")


def _cluster(request: SnapshotRequest) -> str:
    """Whose requests are alike: those of a user; without users, those with the same query."""
    if request.user_id is not None:
        return f"user {request.user_id}"
    return f"query {request.query}" if request.query else request.request_id


def length_suffix(metric: str) -> str:
    """The list length of a metric, as its name ends: "@10" of "ndcg@10"."""
    return "@" + metric.partition("@")[2]


def _intervals(values_RM: Floats, requests: Sequence[SnapshotRequest], config: EvaluateConfig) -> list[Estimate]:
    columns = Clustered.of(values_RM, [_cluster(each) for each in requests])
    effects = columns.effects(resamples=config.bootstrap_samples, seed=config.seed)
    return [Estimate(mean=each.mean, low=each.low, high=each.high) for each in effects]


def _mean(values_R: Floats) -> float | None:
    """The mean of the values that are not NaN; None without any."""
    known_R = values_R[~np.isnan(values_R)]
    return float(known_R.mean()) if known_R.size else None
