"""Snapshot requests: requests with the history and the features as they were at their time.

They are read from the features artifact. Distillation trains the scorer on them, evaluation replays them. An exposure
is such a request with everything that it showed, and what happened to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rankline.contracts import TIME_ZONE, FrozenState, History
from rankline.features import transforms
from rankline.features.profile import CONTEXT, PROFILE, given_values

REQUESTS, EXPOSURES = "requests.parquet", "exposures.parquet"
ROWS_AT_ONCE = 512  # as Python objects a request takes far more memory than in its table
LABEL_PREFIX = "label_"  # of the columns of exposures that hold the labels


@dataclass(frozen=True)
class SnapshotRequest:
    """One request of a split: its user, query, state and targets."""

    request_id: str
    user_id: str | None
    query: str | None
    state: FrozenState
    targets: list[str]
    target_ratings: list[float]
    target_weights: list[float] = field(default_factory=list)  # parallel to the targets; empty: all weigh the same
    shown: list[str] = field(default_factory=list)  # negatives of the very request: shown, and not chosen


@dataclass(frozen=True)
class Exposure:
    """A request with the items that it showed, their positions (from 1; 0 unknown) and their labels (NaN unknown)."""

    request: SnapshotRequest
    items: list[str]
    positions: list[int]
    labels: dict[str, list[float]]


class ItemSnapshots:
    """Each item's features on each request day."""

    def __init__(self, folder: Path) -> None:
        import pyarrow.parquet as parquet

        table = parquet.read_table(folder / "item_features.parquet").sort_by("snapshot")
        days = table["snapshot"].to_numpy()
        self._columns = table.drop_columns(["snapshot"])
        self._bounds: dict[float, tuple[int, int]] = {}
        start = 0
        for row in range(1, len(days) + 1):
            if row == len(days) or days[row] != days[start]:
                self._bounds[float(days[start])] = (start, row)
                start = row
        self._cached: tuple[float, dict[str, list[Any]]] = (float("nan"), {})

    def columns_on(self, snapshot: float) -> dict[str, list[Any]]:
        """Columns (item_id and one per feature) of the items known on a day."""
        if self._cached[0] != snapshot:
            start, end = self._bounds.get(snapshot, (0, 0))
            self._cached = (snapshot, self._columns.slice(start, end - start).to_pydict() if end else {})
        return self._cached[1]


def read_snapshot_requests(folder: Path, split: str) -> Iterator[SnapshotRequest]:
    """The snapshot requests of a split of the features artifact in ``folder``, ordered by day."""
    for request, _ in _read(folder, REQUESTS, split):
        yield request


def read_exposures(folder: Path, split: str) -> Iterator[Exposure]:
    """The exposures of a split, ordered by day; none in an artifact without them."""
    if not (folder / EXPOSURES).is_file():
        return
    for request, row in _read(folder, EXPOSURES, split):
        labels = {name.removeprefix(LABEL_PREFIX): row[name] for name in row if name.startswith(LABEL_PREFIX)}
        yield Exposure(request, row["items"], row["positions"], labels)


def _read(folder: Path, file: str, split: str) -> Iterator[tuple[SnapshotRequest, dict[str, Any]]]:
    import pyarrow.parquet as parquet

    snapshots = ItemSnapshots(folder)
    table = parquet.read_table(folder / file, filters=[("split", "=", split)])
    ordered = table.sort_by([("snapshot", "ascending"), ("request_id", "ascending")])
    for row in (row for batch in ordered.to_batches(max_chunksize=ROWS_AT_ONCE) for row in batch.to_pylist()):
        state = FrozenState(
            at=row["at"],
            history=History(item_ids=row["history_items"], times=row["history_times"], ratings=row["history_ratings"]),
            seen=row["seen"],
            user_features={name: row[name] or 0.0 for name in transforms.USER},
            affinity=dict(zip(row["affinity_categories"] or [], row["affinity_shares"] or [])),
            profile=given_values(row, PROFILE),
            context=given_values(row, CONTEXT),
            time_zone=row.get(TIME_ZONE) or "",
        )
        # shared by the requests of a day: a validated field would be a copy of the whole catalogue for each of them
        state = state.model_copy(update={"item_features": snapshots.columns_on(row["snapshot"])})
        request = SnapshotRequest(
            row["request_id"],
            row["user_id"],
            row["query"],
            state,
            row["targets"],
            row["target_ratings"],
            row.get("target_weights") or [],
            row.get("shown") or [],
        )
        yield request, row
