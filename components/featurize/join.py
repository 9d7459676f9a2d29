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

ROW = "request_row"
MOMENT = "event_timestamp"


class AsOf:
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
        self._drawn = np.sort(drawn) if way == "fast" else drawn[:0]
        self._asked: list[Any] = []
        self._answered: list[Any] = []
        self._rows = 0
        if way == "fast":
            self._db = database(spill, memory_mb)
            self._views, self._on_demand = _definitions(store, features)
            self._in_order = {view.path for view in self._views if _in_order(self._db, view)}

    def of(self, asked: Any, *, progress: Progress = Progress()) -> Any:
        """What was known for each row of ``asked``, in its order: an Arrow table of the features.

        ``asked`` has the entity keys, `event_timestamp` (µs, UTC) and what on-demand views want.

        Raises:
            IntegrityError: the store gave back fewer or more rows than it was asked for.
        """
        import pyarrow as pa

        if self._way == "feast":
            return as_of(self._store, asked, self._features, chunk=self._chunk, progress=progress)
        answer = _joined(self._db, asked, self._views, in_order=self._in_order)
        for view in self._on_demand:
            computed = view.transform_arrow(answer.select(_read_by(view)))
            for name in (field.name for field in view.features):
                answer = answer.append_column(name, computed[name])
        answer = answer.select(self._names)
        mine = self._drawn[(self._drawn >= self._rows) & (self._drawn < self._rows + len(asked))] - self._rows
        self._asked.append(asked.take(pa.array(mine)))
        self._answered.append(answer.take(pa.array(mine)))
        self._rows += len(asked)
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
        if not sum(map(len, self._asked)):
            return 0
        asked, ours = pa.concat_tables(self._asked), pa.concat_tables(self._answered)
        theirs = as_of(self._store, asked, self._features, chunk=len(asked), progress=Progress())
        for name in self._names:
            for row, (mine, feasts) in enumerate(zip(ours[name].to_pylist(), theirs[name].to_pylist())):
                if not _same(mine, feasts):
                    raise IntegrityError(
                        f"the fast join and Feast's own do not agree about {name}",
                        expected=f"{feasts!r}, which Feast answers",
                        found=f"{mine!r} for {_told(asked.slice(row, 1))}",
                        where=str(self._store.repo_path),
                        hint="set featurize.join=feast and report this; two rows of one key, one moment and one "
                        "known time make an answer a matter of chance",
                    )
        return len(asked)


def database(spill: Path, memory_mb: int) -> Any:
    """A DuckDB of our own that keeps to its memory and spills into a folder."""
    import duckdb

    db = duckdb.connect(config={"memory_limit": f"{memory_mb}MB", "temp_directory": str(spill)})
    db.execute("SET TimeZone = 'UTC'")
    return db


def as_of(store: Any, asked: Any, features: Sequence[str], *, chunk: int, progress: Progress) -> Any:
    """The features of every row of ``asked`` as they were known at its `event_timestamp`, in the same order.

    ``asked`` is an Arrow table of entity keys, moments (µs, UTC) and what on-demand views want; the answer is
    an Arrow table of ``features`` ("view:name") by their names, with nulls where nothing was known.

    Raises:
        IntegrityError: Feast gave back fewer or more rows than it was asked for.
    """
    import numpy as np
    import pyarrow as pa

    names = [feature.split(":")[1] for feature in features]
    if not len(asked):
        return pa.table({name: pa.nulls(0) for name in names})
    parts = []
    for start in range(0, len(asked), chunk):
        part = asked.slice(start, chunk)
        part = part.append_column(ROW, pa.array(np.arange(start, start + len(part))))
        # without the filter a row known only later would be found by its earlier event_timestamp
        answer = store.get_historical_features(
            part.to_pandas(), features=list(features), filter_by_created_timestamp=True
        ).to_arrow()
        if sorted(answer[ROW].to_pylist()) != part[ROW].to_pylist():
            raise IntegrityError(
                "the feature store did not give back the rows it was asked for",
                expected=f"{len(part)} rows, each once",
                found=f"{len(answer)} rows, {len(set(answer[ROW].to_pylist()))} different",
                where=f"{store.repo_path}, {', '.join(sorted({f.split(':')[0] for f in features}))}",
                hint="use the duckdb offline store; the dask one drops rows outside the TTL",
            )
        parts.append(answer.sort_by(ROW).select(names))
        progress.update(start + len(part), len(asked))
    return pa.concat_tables(parts)


@dataclass(frozen=True)
class View:
    """A feature view's definition: where its rows are, and what they hold for how long."""

    path: str
    keys: Mapping[str, str]  # column of the source -> column of what is asked
    at: str
    known: str
    ttl: timedelta | None
    columns: Mapping[str, str]  # feature -> column of the source


def _definitions(store: Any, features: Sequence[str]) -> tuple[list[View], list[Any]]:
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
    views = [_definition(store, view, dict.fromkeys(names)) for view, names in wanted.items()]
    return views, [on_demand[name] for name in dict.fromkeys(f.split(":")[0] for f in features) if name in on_demand]


def _definition(store: Any, name: str, features: Mapping[str, Any]) -> View:
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
    asked = view.projection.join_key_map or {column.name: column.name for column in view.entity_columns}
    return View(
        path=source.path,
        keys={renamed.get(key, key): column for key, column in asked.items()},
        at=source.timestamp_field,
        known=source.created_timestamp_column or source.timestamp_field,
        ttl=view.ttl or None,
        columns={feature: renamed.get(feature, feature) for feature in features},
    )


def _read_by(view: Any) -> list[str]:
    """The columns that an on-demand view's function reads."""
    sources = view.source_feature_view_projections.values()
    return list(
        dict.fromkeys(
            [*view.get_request_data_schema(), *(field.name for source in sources for field in source.features)]
        )
    )


def _joined(db: Any, asked: Any, views: Sequence[View], *, in_order: Set[str]) -> Any:
    """``asked`` with the views' features beside it; what a view knows nothing of is null."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    out = asked
    for view in views:
        keys = list(dict.fromkeys(view.keys.values()))
        there = pa.table(
            {
                **{key: asked[key] for key in keys},
                MOMENT: pc.cast(asked[MOMENT], pa.timestamp("us", tz="UTC")),
                ROW: np.arange(len(asked)),
            }
        )
        db.register("asked", there)
        answer = db.sql(_query(view, there, in_order=view.path in in_order)).to_arrow_table()
        db.unregister("asked")
        order_R = np.full(len(asked), -1)  # DuckDB gives the rows back in any order, and sorting them there costs more
        order_R[answer[ROW].to_numpy()] = np.arange(len(answer))
        if len(answer) != len(asked) or (order_R < 0).any():
            raise IntegrityError(
                "the join did not give back the rows it was asked for",
                expected=f"{len(asked)} rows, each once",
                found=f"{len(answer)} rows",
                where=view.path,
                hint="set featurize.join=feast and report this",
            )
        for feature in view.columns:
            out = out.append_column(feature, answer[feature].take(order_R))
    return out


def _in_order(db: Any, view: View) -> bool:
    """Whether no row of a source is ever superseded before it holds: found in one pass, in the order it lies in.

    It says yes only where (key, hold) grows from row to row, and the moment with it within a key; whatever the order
    in which the rows are seen, that cannot be so of a source that has rows to leave out.
    """
    keys = ", ".join(map(_name, view.keys))
    before = ", ".join(f"lag({_name(column)}) OVER ()" for column in view.keys)
    at, known = (f"{_name(column)}::TIMESTAMPTZ" for column in (view.at, view.known))
    hold = f"greatest({at}, {known})"
    ((told,),) = db.sql(
        f"""SELECT coalesce(bool_and(coalesce(fine, false)), true) FROM (
            SELECT NOT lag(true, 1, false) OVER () AND {at} IS NOT NULL AND {known} IS NOT NULL
                OR ({keys}) > ({before})
                OR ({keys}) = ({before}) AND {hold} > lag({hold}) OVER () AND {at} >= lag({at}) OVER () AS fine
            FROM read_parquet({_text(view.path)}))"""
    ).fetchall()
    return bool(told)


def _query(view: View, asked: Any, *, in_order: bool = False) -> str:
    """The ASOF join of the table `asked` with a view's rows.

    What was known at a moment m is the row with the latest (at, known) among those with at <= m and known <= m.
    An ASOF join can only look back along one column, so it is given the row's *hold*: the moment max(at, known)
    from which it can be the answer. A row that at its hold is older than one already held never is the answer
    and is left out; with those gone, a later hold means a later (at, known), so the last hold at or before m is
    the answer, exactly. The latest row is also the one that outlives the others: TTL is a question about it alone.
    Where the rows are `_in_order`, there are none to leave out.
    """
    import pyarrow.compute as pc

    key = ", ".join(map(_name, view.keys))
    at, known = (f"{_name(column)}::TIMESTAMPTZ" for column in (view.at, view.known))
    bounds = [f"{at} IS NOT NULL", f"{known} IS NOT NULL"]
    if len(asked):
        earliest, latest = (
            f"make_timestamptz({moment.as_py()})" for moment in pc.min_max(asked[MOMENT].cast("int64")).values()
        )
        bounds += [f"{at} <= {latest}", f"{known} <= {latest}"]
        if view.ttl:
            bounds.append(f"{at} >= {earliest} - {_interval(view.ttl)}")
        # the part of the source in which these keys can be; cheap where it is sorted by them
        for column, named in view.keys.items():
            span = pc.min_max(asked[named])
            if span["min"].is_valid and isinstance(span["min"].as_py(), str):
                low, high = _text(span["min"].as_py()), _text(span["max"].as_py())
                bounds.append(f"{_name(column)} BETWEEN {low} AND {high}")
    outlived = f"{MOMENT} > held_at + {_interval(view.ttl)}" if view.ttl else "false"
    features = ", ".join(
        f"CASE WHEN NOT coalesce({outlived}, false) THEN f{n} END AS {_name(feature)}"
        for n, feature in enumerate(view.columns)
    )
    columns = ", ".join(f"{_name(column)} AS f{n}" for n, column in enumerate(view.columns.values()))
    keys = ", ".join(f"{_name(column)} AS k{n}" for n, column in enumerate(view.keys))
    superseded = f"""
            QUALIFY {at} >= max({at}) OVER (
                    PARTITION BY {key} ORDER BY greatest({at}, {known}), {at}, {known}
                    ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
                AND hold IS DISTINCT FROM lead(greatest({at}, {known})) OVER (
                    PARTITION BY {key} ORDER BY greatest({at}, {known}), {at}, {known})"""
    equal = " AND ".join(f"asked.{_name(named)} = held.k{n}" for n, named in enumerate(view.keys.values()))
    return f"""
        WITH held AS (
            SELECT {keys}, {at} AS held_at, greatest({at}, {known}) AS hold, {columns}
            FROM read_parquet({_text(view.path)}) WHERE {" AND ".join(bounds)}{"" if in_order else superseded})
        SELECT asked.{ROW}, {features}
        FROM asked ASOF LEFT JOIN held ON {equal} AND asked.{MOMENT} >= held.hold"""


def _interval(length: timedelta) -> str:
    """Microseconds of exactly that number: an interval of days would follow the calendar."""
    return f"to_microseconds({length // timedelta(microseconds=1)})"


def _same(one: Any, other: Any) -> bool:
    """Whether two values are the same, or so near that only the order of a sum tells them apart."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12) or (math.isnan(one) and math.isnan(other))
    return bool(one == other)


def _told(row: Any) -> str:
    """A row of what was asked, in words."""
    return ", ".join(f"{name} {value[0]}" for name, value in row.to_pydict().items())


def _name(column: str) -> str:
    """A column's name in SQL."""
    return '"' + column.replace('"', '""') + '"'


def _text(value: str) -> str:
    """A text in SQL."""
    return "'" + value.replace("'", "''") + "'"
