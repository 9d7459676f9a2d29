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
from typing import Any

import numpy as np
import numpy.typing as npt

from rankline.errors import IntegrityError
from rankline.evaluation.report import CANDIDATE, PER_REQUEST, REQUESTS, SLICES
from rankline.io.files import first_line

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
    """Read the tables of an evaluation; without a table of requests each one is its own cluster, at no known time.

    Raises:
        IntegrityError: the scores are missing or unreadable, or have two rows for a request and system.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    table = _read_scores(folder / PER_REQUEST)
    metrics = [f.name for f in table.schema if pa.types.is_floating(f.type) or pa.types.is_integer(f.type)]
    system_R = table["system"].cast(pa.string())
    ids_R = table["request_id"].cast(pa.string()).combine_chunks()
    own = ids_R.filter(pc.equal(system_R, CANDIDATE))
    own = own.take(pc.sort_indices(own))
    columns = {metric: table[metric].to_numpy().astype(np.float64) for metric in metrics}
    scores: dict[str, dict[str, Floats]] = {metric: {} for metric in metrics}
    for system in system_R.unique().to_pylist():
        rows = np.flatnonzero(pc.equal(system_R, system).to_numpy(zero_copy_only=False))
        ids = ids_R.take(pa.array(rows))
        order = pc.index_in(own, value_set=ids)
        same = len(ids) == len(own) and not order.null_count
        if system == CANDIDATE or not same:  # the candidate's are no two, so those that are the same are none either
            _refuse_twice(ids, system, folder / PER_REQUEST)
        if same:
            for metric in metrics:
                scores[metric][system] = columns[metric][rows[order.to_numpy()]]
    clusters, at_R = _requests(folder / REQUESTS, own)
    return Evidence(own.to_pylist(), clusters, at_R, scores, _slices(folder / SLICES, own))


def _read_scores(path: Path) -> Any:
    """The table of scores; without its columns or its file, an error that says what to do."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        table = parquet.read_table(path)
        missing = {"request_id", "system"} - set(table.column_names)
        problem = f"no column {', '.join(sorted(missing))}" if missing else ""
    except (OSError, pa.ArrowException) as error:
        problem = first_line(error)
    if problem:
        raise IntegrityError(
            "the per-request scores cannot be read",
            expected=f"{PER_REQUEST} with request_id, system and one column per metric",
            found=problem,
            where=str(path),
            hint="evaluate the bundle again",
        )
    return table


def _refuse_twice(ids: Any, system: str, path: Path) -> None:
    import pyarrow.compute as pc

    if pc.count_distinct(ids).as_py() < len(ids):
        counts = ids.value_counts().to_pylist()
        raise IntegrityError(
            "a request is scored twice",
            expected="one row for each request and system",
            found=f"two rows for request {next(c['values'] for c in counts if c['counts'] > 1)} of {system}",
            where=str(path),
            hint="evaluate the bundle again",
        )


def _requests(path: Path, ids: Any) -> tuple[list[str], Floats]:
    import pyarrow.compute as pc
    import pyarrow.parquet as parquet

    if not path.is_file():
        return ids.to_pylist(), np.zeros(len(ids))
    table = parquet.read_table(path, columns=["request_id", "cluster", "at"])
    row = pc.index_in(ids, value_set=table["request_id"].combine_chunks())
    clusters = pc.coalesce(table["cluster"].combine_chunks().take(row), ids)
    at = pc.coalesce(table["at"].combine_chunks().take(row), 0.0)
    return clusters.to_pylist(), at.to_numpy(zero_copy_only=False).astype(np.float64)


def _slices(path: Path, ids: Any) -> dict[str, Bools]:
    import pyarrow.compute as pc
    import pyarrow.parquet as parquet

    if not path.is_file():
        return {}
    table = parquet.read_table(path, columns=["request_id", "slice"])
    names = table["slice"].combine_chunks().dictionary_encode()
    row = pc.index_in(table["request_id"].combine_chunks(), value_set=ids)
    inside_SR = np.zeros((len(names.dictionary), len(ids)), np.bool_)
    known = row.is_valid().to_numpy(zero_copy_only=False)
    inside_SR[names.indices.to_numpy()[known], row.drop_null().to_numpy()] = True
    return dict(zip(names.dictionary.to_pylist(), inside_SR, strict=True))
