"""Point-in-time joins: what the feature store knew at a moment, and of which nothing is lost.

Two ways give the same values. `feast` asks Feast itself. `fast` reads the same definitions out of Feast's
registry (source, moments, TTL, keys, on-demand functions) and lets DuckDB do an ASOF join; every run asks
Feast for a sample of the rows, too, and refuses a difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from rankline.errors import IntegrityError, UsageError
from rankline.runtime.progress import Progress

ROW_COLUMN = "request_row"
TIMESTAMP_COLUMN = "event_timestamp"


class PointInTimeJoin:
    """One question put to the store over and over, a part of the rows at a time.

    ``rows`` is how many there will be in all, of which ``check_rows`` are drawn by ``seed`` and compared with
    Feast's answers by `check`. DuckDB keeps to ``memory_mb`` and spills into the folder ``spill``.
    """

    def __init__(
        self,
        store: Any,
        features: Sequence[str],
        *,
        way: Literal["fast", "feast"],
        rows: int,
        check_rows: int,
        seed: int,
        memory_mb: int,
        spill: Path,
        chunk: int = 50_000,
    ) -> None:
        import numpy as np

        self._store, self._features, self._way, self._chunk = store, list(features), way, chunk
        self._names = [feature.split(":")[1] for feature in features]
        drawn = np.random.default_rng(seed).choice(rows, min(check_rows, rows), replace=False)
        self._sample = np.sort(drawn) if way == "fast" else drawn[:0]
        self._sampled_rows: list[Any] = []
        self._sampled_features: list[Any] = []
        self._rows = 0
        if way == "fast":
            self._db = database(spill, memory_mb)
            self._views, self._on_demand = _view_definitions(store, features)
            self._ordered_paths = {view.path for view in self._views if _is_ordered(self._db, view)}

    def join(self, entity_rows: Any, *, progress: Progress = Progress()) -> Any:
        """What was known for each row of ``asked``, in its order: an Arrow table of the features.

        ``asked`` has the entity keys, `event_timestamp` (µs, UTC) and what on-demand views want.

        Raises:
            IntegrityError: the store gave back fewer or more rows than it was asked for.
        """
        import pyarrow as pa

        if self._way == "feast":
            return historical_features(self._store, entity_rows, self._features, chunk=self._chunk, progress=progress)
        answer = _join_views(self._db, entity_rows, self._views, in_order=self._ordered_paths)
        for view in self._on_demand:
            computed = view.transform_arrow(answer.select(_input_columns(view)))
            for name in (field.name for field in view.features):
                answer = answer.append_column(name, computed[name])
        answer = answer.select(self._names)
        sampled = (
            self._sample[(self._sample >= self._rows) & (self._sample < self._rows + len(entity_rows))] - self._rows
        )
        self._sampled_rows.append(entity_rows.take(pa.array(sampled)))
        self._sampled_features.append(answer.take(pa.array(sampled)))
        self._rows += len(entity_rows)
        return answer

    def check(self) -> int:
        """Compare the drawn rows with Feast's own answers; the number of rows compared. Nothing is asked after it.

        Raises:
            IntegrityError: a value differs.
        """
        import pyarrow as pa

        if self._way == "feast":
            return 0
        self._db.close()  # Feast needs memory, too
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
                        f"the fast join and Feast's own do not agree about {name}",
                        expected=f"{feast_value!r}, which Feast answers",
                        found=f"{fast_value!r} for {_describe_row(entity_rows.slice(row, 1))}",
                        where=str(self._store.repo_path),
                        hint="set featurize.join=feast and report this; two rows of one key, one moment and one "
                        "known time make an answer a matter of chance",
                    )
        return len(entity_rows)


def database(spill: Path, memory_mb: int) -> Any:
    """A DuckDB of our own that keeps to its memory and spills into a folder."""
    import duckdb

    db = duckdb.connect(config={"memory_limit": f"{memory_mb}MB", "temp_directory": str(spill)})
    db.execute("SET TimeZone = 'UTC'")
    return db


def historical_features(
    store: Any, entity_rows: Any, features: Sequence[str], *, chunk: int, progress: Progress
) -> Any:
    """The features of every row of ``asked`` as they were known at its `event_timestamp`, in the same order.

    ``asked`` is an Arrow table of entity keys, moments (µs, UTC) and what on-demand views want; the answer is
    an Arrow table of ``features`` ("view:name") by their names, with nulls where nothing was known.

    Raises:
        IntegrityError: Feast gave back fewer or more rows than it was asked for.
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
        # without the filter a row known only later would be found by its earlier event_timestamp
        answer = store.get_historical_features(
            part.to_pandas(), features=list(features), filter_by_created_timestamp=True
        ).to_arrow()
        if sorted(answer[ROW_COLUMN].to_pylist()) != part[ROW_COLUMN].to_pylist():
            raise IntegrityError(
                "the feature store did not give back the rows it was asked for",
                expected=f"{len(part)} rows, each once",
                found=f"{len(answer)} rows, {len(set(answer[ROW_COLUMN].to_pylist()))} different",
                where=f"{store.repo_path}, {', '.join(sorted({f.split(':')[0] for f in features}))}",
                hint="use the duckdb offline store; the dask one drops rows outside the TTL",
            )
        parts.append(answer.sort_by(ROW_COLUMN).select(names))
        progress.update(start + len(part), len(entity_rows))
    return pa.concat_tables(parts)


@dataclass(frozen=True)
class View:
    """A feature view's definition: where its rows are, and what they hold for how long."""

    path: str
    keys: Mapping[str, str]  # column of the source -> column of what is asked
    timestamp_column: str
    known_at_column: str
    ttl: timedelta | None
    columns: Mapping[str, str]  # feature -> column of the source


def _view_definitions(store: Any, features: Sequence[str]) -> tuple[list[View], list[Any]]:
    """The views to join and the on-demand views to compute after it, as Feast's registry has them.

    Raises:
        UsageError: a view's rows do not lie in Parquet files.
    """
    on_demand = {view.name: view for view in store.list_on_demand_feature_views()}
    wanted: dict[str, list[str]] = {}
    for view, name in (feature.split(":") for feature in features):
        if view in on_demand:
            for source in on_demand[view].source_feature_view_projections.values():
                wanted.setdefault(source.name, []).extend(field.name for field in source.features)
        else:
            wanted.setdefault(view, []).append(name)
    views = [_view_definition(store, view, dict.fromkeys(names)) for view, names in wanted.items()]
    return views, [on_demand[name] for name in dict.fromkeys(f.split(":")[0] for f in features) if name in on_demand]


def _view_definition(store: Any, name: str, features: Mapping[str, Any]) -> View:
    from feast import FileSource

    view = store.get_feature_view(name)
    source = view.batch_source
    if not isinstance(source, FileSource) or not source.path.endswith(".parquet"):
        raise UsageError(
            f"the fast join reads Parquet files, and the feature view {name} has none",
            expected="a FileSource whose path ends with .parquet",
            found=type(source).__name__,
            where=str(store.repo_path),
            hint="set featurize.join=feast",
        )
    renamed = {new: old for old, new in source.field_mapping.items()}
    join_keys = view.projection.join_key_map or {column.name: column.name for column in view.entity_columns}
    return View(
        path=source.path,
        keys={renamed.get(key, key): column for key, column in join_keys.items()},
        timestamp_column=source.timestamp_field,
        known_at_column=source.created_timestamp_column or source.timestamp_field,
        ttl=view.ttl or None,
        columns={feature: renamed.get(feature, feature) for feature in features},
    )


def _input_columns(view: Any) -> list[str]:
    """The columns that an on-demand view's function reads."""
    sources = view.source_feature_view_projections.values()
    return list(
        dict.fromkeys(
            [*view.get_request_data_schema(), *(field.name for source in sources for field in source.features)]
        )
    )


def _join_views(db: Any, entity_rows: Any, views: Sequence[View], *, in_order: Set[str]) -> Any:
    """``asked`` with the views' features beside it; what a view knows nothing of is null."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    joined = entity_rows
    for view in views:
        keys = list(dict.fromkeys(view.keys.values()))
        keys_table = pa.table(
            {
                **{key: entity_rows[key] for key in keys},
                TIMESTAMP_COLUMN: pc.cast(entity_rows[TIMESTAMP_COLUMN], pa.timestamp("us", tz="UTC")),
                ROW_COLUMN: np.arange(len(entity_rows)),
            }
        )
        db.register("asked", keys_table)
        answer = db.sql(_query(view, keys_table, in_order=view.path in in_order)).to_arrow_table()
        db.unregister("asked")
        order_R = np.full(
            len(entity_rows), -1
        )  # DuckDB gives the rows back in any order, and sorting them there costs more
        order_R[answer[ROW_COLUMN].to_numpy()] = np.arange(len(answer))
        if len(answer) != len(entity_rows) or (order_R < 0).any():
            raise IntegrityError(
                "the join did not give back the rows it was asked for",
                expected=f"{len(entity_rows)} rows, each once",
                found=f"{len(answer)} rows",
                where=view.path,
                hint="set featurize.join=feast and report this",
            )
        for feature in view.columns:
            joined = joined.append_column(feature, answer[feature].take(order_R))
    return joined


def _is_ordered(db: Any, view: View) -> bool:
    """Whether no row of a source is ever superseded before it holds: found in one pass, in the order it lies in.

    It says yes only where (key, hold) grows from row to row, and the moment with it within a key; whatever the order
    in which the rows are seen, that cannot be so of a source that has rows to leave out.
    """
    keys = ", ".join(map(_identifier, view.keys))
    before = ", ".join(f"lag({_identifier(column)}) OVER ()" for column in view.keys)
    at, known = (f"{_identifier(column)}::TIMESTAMPTZ" for column in (view.timestamp_column, view.known_at_column))
    hold = f"greatest({at}, {known})"
    ((ordered,),) = db.sql(
        f"""SELECT coalesce(bool_and(coalesce(fine, false)), true) FROM (
            SELECT NOT lag(true, 1, false) OVER () AND {at} IS NOT NULL AND {known} IS NOT NULL
                OR ({keys}) > ({before})
                OR ({keys}) = ({before}) AND {hold} > lag({hold}) OVER () AND {at} >= lag({at}) OVER () AS fine
            FROM read_parquet({_literal(view.path)}))"""
    ).fetchall()
    return bool(ordered)


def _query(view: View, entity_rows: Any, *, in_order: bool = False) -> str:
    """The ASOF join of the table `asked` with a view's rows.

    What was known at a moment m is the row with the latest (at, known) among those with at <= m and known <= m.
    An ASOF join can only look back along one column, so it is given the row's *hold*: the moment max(at, known)
    from which it can be the answer. A row that at its hold is older than one already held never is the answer
    and is left out; with those gone, a later hold means a later (at, known), so the last hold at or before m is
    the answer, exactly. The latest row is also the one that outlives the others: TTL is a question about it alone.
    Where the rows are `_in_order`, there are none to leave out.
    """
    import pyarrow.compute as pc

    key = ", ".join(map(_identifier, view.keys))
    at, known = (f"{_identifier(column)}::TIMESTAMPTZ" for column in (view.timestamp_column, view.known_at_column))
    bounds = [f"{at} IS NOT NULL", f"{known} IS NOT NULL"]
    if len(entity_rows):
        earliest, latest = (
            f"make_timestamptz({bound.as_py()})"
            for bound in pc.min_max(entity_rows[TIMESTAMP_COLUMN].cast("int64")).values()
        )
        bounds += [f"{at} <= {latest}", f"{known} <= {latest}"]
        if view.ttl:
            bounds.append(f"{at} >= {earliest} - {_interval(view.ttl)}")
        # the part of the source in which these keys can be; cheap where it is sorted by them
        for column, entity_column in view.keys.items():
            span = pc.min_max(entity_rows[entity_column])
            if span["min"].is_valid and isinstance(span["min"].as_py(), str):
                low, high = _literal(span["min"].as_py()), _literal(span["max"].as_py())
                bounds.append(f"{_identifier(column)} BETWEEN {low} AND {high}")
    expired = f"{TIMESTAMP_COLUMN} > held_at + {_interval(view.ttl)}" if view.ttl else "false"
    features = ", ".join(
        f"CASE WHEN NOT coalesce({expired}, false) THEN f{n} END AS {_identifier(feature)}"
        for n, feature in enumerate(view.columns)
    )
    columns = ", ".join(f"{_identifier(column)} AS f{n}" for n, column in enumerate(view.columns.values()))
    keys = ", ".join(f"{_identifier(column)} AS k{n}" for n, column in enumerate(view.keys))
    superseded = f"""
            QUALIFY {at} >= max({at}) OVER (
                    PARTITION BY {key} ORDER BY greatest({at}, {known}), {at}, {known}
                    ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
                AND hold IS DISTINCT FROM lead(greatest({at}, {known})) OVER (
                    PARTITION BY {key} ORDER BY greatest({at}, {known}), {at}, {known})"""
    equal = " AND ".join(
        f"asked.{_identifier(entity_column)} = held.k{n}" for n, entity_column in enumerate(view.keys.values())
    )
    return f"""
        WITH held AS (
            SELECT {keys}, {at} AS held_at, greatest({at}, {known}) AS hold, {columns}
            FROM read_parquet({_literal(view.path)}) WHERE {" AND ".join(bounds)}{"" if in_order else superseded})
        SELECT asked.{ROW_COLUMN}, {features}
        FROM asked ASOF LEFT JOIN held ON {equal} AND asked.{TIMESTAMP_COLUMN} >= held.hold"""


def _interval(length: timedelta) -> str:
    """Microseconds of exactly that number: an interval of days would follow the calendar."""
    return f"to_microseconds({length // timedelta(microseconds=1)})"


def _equal(one: Any, other: Any) -> bool:
    """Whether two values are the same, or so near that only the order of a sum tells them apart."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12) or (math.isnan(one) and math.isnan(other))
    return bool(one == other)


def _describe_row(row: Any) -> str:
    """A row of what was asked, in words."""
    return ", ".join(f"{name} {value[0]}" for name, value in row.to_pydict().items())


def _identifier(column: str) -> str:
    """A column's name in SQL."""
    return '"' + column.replace('"', '""') + '"'


def _literal(value: str) -> str:
    """A text in SQL."""
    return "'" + value.replace("'", "''") + "'"
