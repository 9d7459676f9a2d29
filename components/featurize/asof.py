"""Point-in-time joins by DuckDB: what Feast's registry defines, as one ASOF join per feature view."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from rankline.errors import IntegrityError, UsageError
from rankline.io.sql import identifier, literal

ROW_COLUMN = "request_row"
TIMESTAMP_COLUMN = "event_timestamp"


@dataclass(frozen=True)
class View:
    """A feature view's definition: where its rows are, what they hold, and for how long."""

    path: str
    keys: Mapping[str, str]  # column of the source -> column of the entity rows
    timestamp_column: str
    known_at_column: str
    ttl: timedelta | None
    columns: Mapping[str, str]  # feature -> column of the source


def view_definitions(store: Any, features: Sequence[str]) -> tuple[list[View], list[Any]]:
    """The views to join and the on-demand views to compute from them, as Feast's registry defines them.

    Raises:
        UsageError: a view's rows are not in Parquet files.
    """
    on_demand = {view.name: view for view in store.list_on_demand_feature_views()}
    names_by_view: dict[str, list[str]] = {}
    for view, name in (feature.split(":") for feature in features):
        if view in on_demand:
            for source in on_demand[view].source_feature_view_projections.values():
                names_by_view.setdefault(source.name, []).extend(field.name for field in source.features)
        else:
            names_by_view.setdefault(view, []).append(name)
    views = [_view_definition(store, view, dict.fromkeys(names)) for view, names in names_by_view.items()]
    return views, [on_demand[name] for name in dict.fromkeys(f.split(":")[0] for f in features) if name in on_demand]


def _view_definition(store: Any, name: str, features: Iterable[str]) -> View:
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


def input_columns(view: Any) -> list[str]:
    """The columns that an on-demand view's function reads."""
    sources = view.source_feature_view_projections.values()
    return list(
        dict.fromkeys(
            [*view.get_request_data_schema(), *(field.name for source in sources for field in source.features)]
        )
    )


def join_views(db: Any, entity_rows: Any, views: Sequence[View], *, in_order: Set[str]) -> Any:
    """``entity_rows`` with the views' features as further columns; a feature nobody knew is null.

    ``in_order`` names the paths of views for which `is_ordered` holds.
    """
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
        answer = db.sql(asof_query(view, keys_table, in_order=view.path in in_order)).to_arrow_table()
        db.unregister("asked")
        # DuckDB returns the rows in any order; sorting them there costs more
        order_R = np.full(len(entity_rows), -1)
        order_R[answer[ROW_COLUMN].to_numpy()] = np.arange(len(answer))
        if len(answer) != len(entity_rows) or (order_R < 0).any():
            raise IntegrityError(
                "the join lost or duplicated rows",
                expected=f"{len(entity_rows)} rows, each once",
                found=f"{len(answer)} rows",
                where=view.path,
                hint="set featurize.join=feast and report this",
            )
        for feature in view.columns:
            joined = joined.append_column(feature, answer[feature].take(order_R))
    return joined


def is_ordered(db: Any, view: View) -> bool:
    """Whether no row of a source is superseded before it becomes valid, found in one pass over the file.

    True only where (key, valid_from) grows from row to row and the event timestamp does not fall within a key.
    A source with superseded rows cannot look like that, in whatever order its rows are read.
    """
    keys = ", ".join(map(identifier, view.keys))
    previous_keys = ", ".join(f"lag({identifier(column)}) OVER ()" for column in view.keys)
    row_time, known_at = _time_columns(view)
    valid_from = f"greatest({row_time}, {known_at})"
    ((ordered,),) = db.sql(
        f"""SELECT coalesce(bool_and(coalesce(fine, false)), true) FROM (
            SELECT NOT lag(true, 1, false) OVER () AND {row_time} IS NOT NULL AND {known_at} IS NOT NULL
                OR ({keys}) > ({previous_keys})
                OR ({keys}) = ({previous_keys}) AND {valid_from} > lag({valid_from}) OVER ()
                    AND {row_time} >= lag({row_time}) OVER () AS fine
            FROM read_parquet({literal(view.path)}))"""
    ).fetchall()
    return bool(ordered)


def asof_query(view: View, entity_rows: Any, *, in_order: bool = False) -> str:
    """The ASOF join of the table `asked` with a view's rows.

    The value known at time t is the row with the latest (row_time, known_at) among those with row_time <= t and
    known_at <= t. An ASOF join looks back along one column only, so each row gets `valid_from`, which is
    max(row_time, known_at): from then on it can be the answer. A row that is older than one already valid at that
    time is superseded: it is never the answer and is left out. With those gone a later `valid_from` means a later
    (row_time, known_at), so the last row with valid_from <= t is the answer, exactly. That row also has the longest
    remaining TTL, so the TTL is checked on it alone. Rows that `is_ordered` have nothing to leave out.
    """
    row_time, known_at = _time_columns(view)
    valid_from = f"greatest({row_time}, {known_at})"
    partition = ", ".join(map(identifier, view.keys))
    expired = f"{TIMESTAMP_COLUMN} > row_time + {_interval(view.ttl)}" if view.ttl else "false"
    features = ", ".join(
        f"CASE WHEN NOT coalesce({expired}, false) THEN f{n} END AS {identifier(feature)}"
        for n, feature in enumerate(view.columns)
    )
    columns = ", ".join(f"{identifier(column)} AS f{n}" for n, column in enumerate(view.columns.values()))
    keys = ", ".join(f"{identifier(column)} AS k{n}" for n, column in enumerate(view.keys))
    without_superseded = f"""
            QUALIFY {row_time} >= max({row_time}) OVER (
                    PARTITION BY {partition} ORDER BY {valid_from}, {row_time}, {known_at}
                    ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
                AND valid_from IS DISTINCT FROM lead({valid_from}) OVER (
                    PARTITION BY {partition} ORDER BY {valid_from}, {row_time}, {known_at})"""
    same_key = " AND ".join(
        f"asked.{identifier(entity_column)} = source.k{n}" for n, entity_column in enumerate(view.keys.values())
    )
    return f"""
        WITH source AS (
            SELECT {keys}, {row_time} AS row_time, {valid_from} AS valid_from, {columns}
            FROM read_parquet({literal(view.path)})
            WHERE {" AND ".join(_source_bounds(view, entity_rows))}{"" if in_order else without_superseded})
        SELECT asked.{ROW_COLUMN}, {features}
        FROM asked ASOF LEFT JOIN source ON {same_key} AND asked.{TIMESTAMP_COLUMN} >= source.valid_from"""


def _source_bounds(view: View, entity_rows: Any) -> list[str]:
    """Conditions that every row of the answer meets: DuckDB skips the rest of the file where it is sorted."""
    import pyarrow.compute as pc

    row_time, known_at = _time_columns(view)
    bounds = [f"{row_time} IS NOT NULL", f"{known_at} IS NOT NULL"]
    if not len(entity_rows):
        return bounds
    earliest, latest = (
        f"make_timestamptz({bound.as_py()})"
        for bound in pc.min_max(entity_rows[TIMESTAMP_COLUMN].cast("int64")).values()
    )
    bounds += [f"{row_time} <= {latest}", f"{known_at} <= {latest}"]
    if view.ttl:
        bounds.append(f"{row_time} >= {earliest} - {_interval(view.ttl)}")
    for column, entity_column in view.keys.items():
        span = pc.min_max(entity_rows[entity_column])
        if span["min"].is_valid and isinstance(span["min"].as_py(), str):
            low, high = literal(span["min"].as_py()), literal(span["max"].as_py())
            bounds.append(f"{identifier(column)} BETWEEN {low} AND {high}")
    return bounds


def _time_columns(view: View) -> tuple[str, str]:
    return (
        f"{identifier(view.timestamp_column)}::TIMESTAMPTZ",
        f"{identifier(view.known_at_column)}::TIMESTAMPTZ",
    )


def _interval(length: timedelta) -> str:
    """A length of exactly that many microseconds: an interval of days would follow the calendar."""
    return f"to_microseconds({length // timedelta(microseconds=1)})"
