"""The per-request scores of an evaluation, with the cluster, the time and the slices of each request.

    per_request.parquet   request_id, system, and one column per metric
    requests.parquet      request_id, cluster (the user, or the query), at; none in evaluations of earlier versions
    slices.parquet        request_id, slice

Shapes: R requests, in the order of their ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rankline.evaluation.report import CANDIDATE, PER_REQUEST, REQUESTS, SLICES

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Evidence:
    """The candidate's requests, and metric -> system -> score of each, for the systems with the same requests."""

    request_ids: list[str]
    clusters: list[str]
    at_R: Floats
    scores: Mapping[str, Mapping[str, Floats]]
    slices: Mapping[str, Bools] = field(default_factory=dict)

    @property
    def cluster_of(self) -> dict[str, str]:
        """Request id -> its cluster."""
        return dict(zip(self.request_ids, self.clusters, strict=True))

    @property
    def until(self) -> float:
        """The time of the last request, in unix seconds; 0 without times."""
        return float(self.at_R.max(initial=0.0))

    def stacked(self, metric: str, systems: tuple[str, ...]) -> Floats | None:
        """The scores [R, S] of these systems; None if one of them has none, or one that is not a number."""
        by_system = self.scores.get(metric, {})
        if any(system not in by_system for system in systems):
            return None
        values_RS = np.stack([by_system[system] for system in systems], axis=1)
        return values_RS if np.isfinite(values_RS).all() else None


def read_evidence(folder: Path) -> Evidence:
    """Read the tables of an evaluation; without a table of requests each one is its own cluster, at no known time."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    table = parquet.read_table(folder / PER_REQUEST).sort_by([("system", "ascending"), ("request_id", "ascending")])
    systems = np.asarray(table["system"].to_pylist(), dtype=object)
    metrics = [f.name for f in table.schema if pa.types.is_floating(f.type) or pa.types.is_integer(f.type)]
    ids = np.asarray(table["request_id"].to_pylist(), dtype=object)
    own = ids[systems == CANDIDATE]
    scores: dict[str, dict[str, Floats]] = {metric: {} for metric in metrics}
    columns = {metric: table[metric].to_numpy().astype(np.float64) for metric in metrics}
    for system in dict.fromkeys(systems.tolist()):
        rows = systems == system
        if np.array_equal(ids[rows], own):
            for metric in metrics:
                scores[metric][system] = columns[metric][rows]
    clusters, at_R = _requests(folder / REQUESTS, own.tolist())
    return Evidence(own.tolist(), clusters, at_R, scores, _slices(folder / SLICES, own.tolist()))


def _requests(path: Path, ids: list[str]) -> tuple[list[str], Floats]:
    import pyarrow.parquet as parquet

    rows: dict[str, tuple[str, float]] = {}
    if path.is_file():
        columns = parquet.read_table(path, columns=["request_id", "cluster", "at"]).to_pydict()
        pairs = zip(columns["cluster"], columns["at"], strict=True)
        rows = dict(zip(columns["request_id"], pairs, strict=True))
    rows_in_order = [rows.get(each, (each, 0.0)) for each in ids]
    return [cluster for cluster, _ in rows_in_order], np.array([at for _, at in rows_in_order], np.float64)


def _slices(path: Path, ids: list[str]) -> dict[str, Bools]:
    import pyarrow.parquet as parquet

    members: dict[str, set[str]] = {}
    if path.is_file():
        columns = parquet.read_table(path, columns=["request_id", "slice"]).to_pydict()
        for request, name in zip(columns["request_id"], columns["slice"], strict=True):
            members.setdefault(name, set()).add(request)
    return {name: np.array([each in inside for each in ids], np.bool_) for name, inside in members.items()}
