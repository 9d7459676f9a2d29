"""Point-in-time joins: the features as the feature store knew them at each request's time.

There are two methods, with the same values. `feast` asks Feast itself. `fast` lets DuckDB join what Feast's registry
defines (asof.py); every run also asks Feast for a sample of the rows and refuses a difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from components.featurize.asof import ROW_COLUMN, input_columns, is_ordered, join_views, view_definitions
from rankline.errors import IntegrityError
from rankline.io.sql import memory_database
from rankline.runtime.progress import Progress


@dataclass(frozen=True)
class JoinSettings:
    """How to join: DuckDB keeps to ``memory_mb`` and spills into the folder ``spill``, Feast takes ``chunk`` rows.

    ``check_rows`` of the fast join's rows are drawn by ``seed`` and compared with Feast's.
    """

    method: Literal["fast", "feast"]
    check_rows: int
    seed: int
    memory_mb: int
    spill: Path
    chunk: int = 50_000


class PointInTimeJoin:
    """The same features joined to many parts of the entity rows, which are ``rows`` in all."""

    def __init__(self, store: Any, features: Sequence[str], settings: JoinSettings, *, rows: int) -> None:
        import numpy as np

        self._store, self._features, self._settings = store, list(features), settings
        self._fast = settings.method == "fast"
        self._names = [feature.split(":")[1] for feature in features]
        drawn = np.random.default_rng(settings.seed).choice(rows, min(settings.check_rows, rows), replace=False)
        self._sample = np.sort(drawn) if self._fast else drawn[:0]
        self._sampled_rows: list[Any] = []
        self._sampled_features: list[Any] = []
        self._rows = 0
        if self._fast:
            self._db = memory_database(settings.spill, memory_mb=settings.memory_mb)
            self._views, self._on_demand = view_definitions(store, features)
            self._ordered_paths = {view.path for view in self._views if is_ordered(self._db, view)}

    def join(self, entity_rows: Any, *, progress: Progress = Progress()) -> Any:
        """An Arrow table of the features for each of ``entity_rows``, in their order.

        ``entity_rows`` has the entity keys, `event_timestamp` (µs, UTC) and what on-demand views read.

        Raises:
            IntegrityError: the join lost or duplicated rows.
        """
        import pyarrow as pa

        if not self._fast:
            return historical_features(
                self._store, entity_rows, self._features, chunk=self._settings.chunk, progress=progress
            )
        answer = join_views(self._db, entity_rows, self._views, in_order=self._ordered_paths)
        for view in self._on_demand:
            computed = view.transform_arrow(answer.select(input_columns(view)))
            for name in (field.name for field in view.features):
                answer = answer.append_column(name, computed[name])
        answer = answer.select(self._names)
        first, end = self._rows, self._rows + len(entity_rows)
        sampled = pa.array(self._sample[(self._sample >= first) & (self._sample < end)] - first)
        self._sampled_rows.append(entity_rows.take(sampled))
        self._sampled_features.append(answer.take(sampled))
        self._rows = end
        return answer

    def check(self) -> int:
        """Compare the sampled rows with Feast's, after the last join; returns how many were compared.

        Raises:
            IntegrityError: a value differs.
        """
        import pyarrow as pa

        if not self._fast:
            return 0
        self._db.close()  # Feast needs the memory
        if not sum(map(len, self._sampled_rows)):
            return 0
        entity_rows, fast = pa.concat_tables(self._sampled_rows), pa.concat_tables(self._sampled_features)
        feast = historical_features(
            self._store, entity_rows, self._features, chunk=len(entity_rows), progress=Progress()
        )
        for name in self._names:
            for row, (fast_value, feast_value) in enumerate(zip(fast[name].to_pylist(), feast[name].to_pylist())):
                if not _equal(fast_value, feast_value):
                    raise IntegrityError(
                        f"the fast join and Feast do not agree about {name}",
                        expected=f"{feast_value!r}, which Feast answers",
                        found=f"{fast_value!r} for {_describe_row(entity_rows.slice(row, 1))}",
                        where=str(self._store.repo_path),
                        hint="set featurize.join=feast and report this; two rows with the same key, event_timestamp "
                        "and known_at make the answer ambiguous",
                    )
        return len(entity_rows)


def historical_features(
    store: Any, entity_rows: Any, features: Sequence[str], *, chunk: int, progress: Progress
) -> Any:
    """Feast's own point-in-time join, ``chunk`` rows at a time.

    ``entity_rows`` is an Arrow table of entity keys, `event_timestamp` (µs, UTC) and what on-demand views read. The
    answer is an Arrow table of ``features`` ("view:name") by name, in the same order; what nobody knew is null.

    Raises:
        IntegrityError: Feast lost or duplicated rows.
    """
    import numpy as np
    import pyarrow as pa

    names = [feature.split(":")[1] for feature in features]
    if not len(entity_rows):
        return pa.table({name: pa.nulls(0) for name in names})
    parts = []
    for start in range(0, len(entity_rows), chunk):
        part = entity_rows.slice(start, chunk)
        part = part.append_column(ROW_COLUMN, pa.array(np.arange(start, start + len(part))))
        # without the filter, Feast finds a row by its event_timestamp before it was known
        answer = store.get_historical_features(
            part.to_pandas(), features=list(features), filter_by_created_timestamp=True
        ).to_arrow()
        if sorted(answer[ROW_COLUMN].to_pylist()) != part[ROW_COLUMN].to_pylist():
            raise IntegrityError(
                "the feature store lost or duplicated rows",
                expected=f"{len(part)} rows, each once",
                found=f"{len(answer)} rows, {len(set(answer[ROW_COLUMN].to_pylist()))} different",
                where=f"{store.repo_path}, {', '.join(sorted({f.split(':')[0] for f in features}))}",
                hint="use the duckdb offline store; the dask one drops rows outside the TTL",
            )
        parts.append(answer.sort_by(ROW_COLUMN).select(names))
        progress.update(start + len(part), len(entity_rows))
    return pa.concat_tables(parts)


def _equal(left: Any, right: Any) -> bool:
    """Whether two values are the same, up to rounding that depends on the order of a sum."""
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    if _is_missing(left) or _is_missing(right):
        return _is_missing(left) and _is_missing(right)
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-12)
    return bool(left == right)


def _is_missing(value: Any) -> bool:
    """Whether there is no value: Feast returns null for a NaN that a request brings."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _describe_row(row: Any) -> str:
    return ", ".join(f"{name} {value[0]}" for name, value in row.to_pydict().items())
