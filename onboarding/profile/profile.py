"""A profile: what the canonical tables of a source hold, as numbers; every one of them is made by DuckDB.

It reads the tables of a `raw` or `clean` folder. Memory is bounded: what exceeds it goes to disk.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from pydantic import Field

from onboarding.survey.language import detect_language
from rankline.contracts import LABELS, TABLES, FrozenModel
from rankline.errors import SourceError
from rankline.io.sql import identifier

MEMORY_MB = 1024
MAX_TOP_VALUES = 12
MAX_EXACT_ROWS = 1 << 22  # up to so many rows distinct values are counted, above they are estimated


class ColumnProfile(FrozenModel):
    """One column of a table."""

    name: str
    type: str
    missing: int
    distinct: int = Field(description="counted, or estimated where there are millions of rows")
    low: str | None = None
    high: str | None = None
    mean: float | None = None
    length: float | None = Field(None, description="mean characters of a text")
    top: dict[str, int] = Field(default={}, description="most frequent values of a text that has few, with their rows")


class TableProfile(FrozenModel):
    """One table."""

    rows: int
    columns: list[ColumnProfile]
    language: str = Field("", description="that its words seem to be in")
    text_lengths: dict[str, float] = Field(default={}, description="words of all texts together: quantiles")


class TailProfile(FrozenModel):
    """How events are spread over users, items or queries."""

    names: int
    events: dict[str, float] = Field(description="events of one: quantiles")
    head: dict[str, float] = Field(description="share of the events that the busiest 1%, 10% and 20% have")
    curve: list[tuple[float, float]] = Field(description="share of the busiest -> share of the events")
    once: int = Field(description="how many have one event only")


class Profile(FrozenModel):
    """A source."""

    where: str
    tables: dict[str, TableProfile]
    first: str | None = None
    last: str | None = None
    days: list[tuple[str, int]] = Field(default=[], description="day (UTC) -> events, empty days too")
    hours: list[int] = Field(default=[], description="events of each hour of the day (UTC)")
    tails: dict[str, TailProfile] = Field(default={}, description="of users, items and queries")
    labels: dict[str, dict[str, int]] = Field(default={}, description="label -> value -> events; none is its own")
    splits: dict[str, int] = Field(default={}, description="events of each, where the source is already split")
    rejected: dict[str, dict[str, int]] = Field(
        default={}, description="table -> reason -> rows set aside: duplicates, unknown references, what cannot be read"
    )
    examples: dict[str, str] = Field(default={}, description="table and reason -> the first such row")
    never_used: dict[str, int] = Field(default={}, description="items, users and queries that no event names")


def profile(folder: Path) -> Profile:
    """The profile of a folder with canonical tables.

    Raises:
        SourceError: it is not there, has no tables, or one cannot be read.
    """
    import duckdb

    if not (folder / "events.parquet").is_file():
        raise SourceError(
            "the folder holds no canonical tables" if folder.is_dir() else "the folder is not there",
            expected="events.parquet and items.parquet, as ingest (raw) and validate (clean) write them",
            found=", ".join(sorted(path.name for path in folder.iterdir())[:6]) or "an empty folder"
            if folder.is_dir()
            else "no such folder",
            where=str(folder),
            hint="rankline data profile --recipe NAME --source PATH looks at a source that was not ingested yet",
        )
    with tempfile.TemporaryDirectory() as work, duckdb.connect(f"{work}/profile.duckdb") as db:
        db.execute(f"SET memory_limit = '{MEMORY_MB}MB'")
        db.execute("SET TimeZone = 'UTC'")
        try:
            for table in TABLES:
                if (path := folder / f"{table}.parquet").is_file():
                    path_sql = str(path).replace("'", "''")
                    db.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet('{path_sql}')")
            return _build_profile(db, folder)
        except duckdb.Error as error:
            raise SourceError(
                "a table cannot be read",
                expected="whole Parquet files as ingest and validate write them",
                found=" ".join(str(error).split())[:300],
                where=str(folder),
                hint="run ingest again",
            ) from error


def _build_profile(db: Any, folder: Path) -> Profile:
    present = {name for (name,) in db.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()}
    tables = {table: _table_profile(db, table) for table in ("events", "items", "users", "queries") if table in present}
    names = {column.name for column in tables["events"].columns}
    fields: dict[str, Any] = {
        "where": str(folder),
        "tables": {name: each for name, each in tables.items() if each.rows},
    }
    if tables["events"].rows:
        first, last, distinct_times = _fetch_row(
            db, "SELECT min(event_timestamp), max(event_timestamp), count(DISTINCT event_timestamp) FROM events"
        )
        if distinct_times > 1:  # else the source has no times
            fields |= {
                "first": first.isoformat(),
                "last": last.isoformat(),
                "days": _events_per_day(db),
                "hours": _events_per_hour(db),
            }
        fields["tails"] = {
            table: _tail_profile(db, key)
            for table, key in (("users", "user_id"), ("items", "item_id"), ("queries", "query_id"))
            if _fetch_row(db, f"SELECT count({key}) FROM events")[0]
        }
        fields["labels"] = {label: _label_counts(db, label) for label in LABELS if label in names}
        if "split" in names:
            fields["splits"] = dict(db.execute("SELECT split, count(*) FROM events GROUP BY ALL ORDER BY 1").fetchall())
        fields["never_used"] = {
            table: _fetch_row(db, f"SELECT count(*) FROM {table} ANTI JOIN events USING ({key})")[0]
            for table, key in (("items", "item_id"), ("users", "user_id"), ("queries", "query_id"))
            if table in fields["tables"]
        }
    if (path := folder / "rejected.parquet").is_file():
        path_sql = str(path).replace("'", "''")
        columns = '"table", reason, count(*), arg_min(raw, row)'
        query = f"SELECT {columns} FROM read_parquet('{path_sql}') GROUP BY ALL ORDER BY ALL"
        rejected: dict[str, dict[str, int]] = {}
        examples = {}
        for table, reason, rows, raw in db.execute(query).fetchall():
            rejected.setdefault(table, {})[reason] = rows
            examples[f"{table}: {reason}"] = raw[:300]
        fields |= {"rejected": rejected, "examples": examples}
    return Profile(**fields)


def _fetch_row(db: Any, query: str) -> tuple[Any, ...]:
    (row,) = db.execute(query).fetchall()
    return tuple(row)


def _table_profile(db: Any, table: str) -> TableProfile:
    ((rows,),) = db.execute(f"SELECT count(*) FROM {table}").fetchall()
    described = db.execute(f"DESCRIBE {table}").fetchall()
    columns = [_column_profile(db, table, name, kind, rows) for name, kind, *_ in described]
    words = [name for name, kind, *_ in described if name in ("title", "text") and kind == "VARCHAR"]
    language, lengths = "", {}
    if words and rows:
        text_sql = f"concat_ws(' ', {', '.join(words)})"
        sample = f"SELECT string_agg(told, ' ') FROM (SELECT {text_sql} AS told FROM {table} USING SAMPLE 500 (reservoir, 7))"
        language = detect_language(_fetch_row(db, sample)[0] or "")
        count = f"len(string_split_regex(trim({text_sql}), '\\s+')) * CAST(trim({text_sql}) <> '' AS INTEGER)"
        lengths = _quantiles(db, f"SELECT {count} AS value FROM {table}")
    return TableProfile(rows=rows, columns=columns, language=language, text_lengths=lengths)


def _column_profile(db: Any, table: str, name: str, kind: str, rows: int) -> ColumnProfile:
    column = identifier(name)
    is_list = kind.endswith("]")
    number = kind in ("DOUBLE", "FLOAT", "BIGINT", "INTEGER")
    distinct_sql = "approx_count_distinct" if rows > MAX_EXACT_ROWS else "count(DISTINCT %s)"
    distinct = f"approx_count_distinct({column})" if rows > MAX_EXACT_ROWS else distinct_sql % column
    bounds_sql = (
        f"min({column})::VARCHAR, max({column})::VARCHAR" if not is_list and kind != "BOOLEAN" else "NULL, NULL"
    )
    mean = f"avg({column})" if number else f"avg(CAST({column} AS INTEGER))" if kind == "BOOLEAN" else "NULL"
    length = f"avg(length({column}))" if kind == "VARCHAR" else f"avg(len({column}))" if is_list else "NULL"
    missing, values, low, high, average, mean_length = _fetch_row(
        db, f"SELECT count(*) - count({column}), {distinct}, {bounds_sql}, {mean}, {length} FROM {table}"
    )
    top: dict[str, int] = {}
    if 1 <= values <= MAX_TOP_VALUES and kind in ("VARCHAR", "BOOLEAN"):
        query = f"SELECT {column}::VARCHAR AS value, count(*) AS rows FROM {table} WHERE value IS NOT NULL GROUP BY ALL"
        top = dict(db.execute(f"{query} ORDER BY rows DESC, value").fetchall())
    if is_list and kind == "VARCHAR[]":
        query = f"SELECT value, count(*) AS rows FROM (SELECT unnest({column}) AS value FROM {table}) GROUP BY ALL"
        top = dict(db.execute(f"{query} ORDER BY rows DESC, value LIMIT {MAX_TOP_VALUES}").fetchall())
    if kind.startswith("TIMESTAMP"):
        low, high = (each[:19] if each else each for each in (low, high))
    return ColumnProfile(
        name=name, type=_type_label(kind), missing=missing, distinct=values, low=_truncate(low), high=_truncate(high),
        mean=average, length=mean_length, top=top,
    )  # fmt: skip


def _truncate(text: str | None) -> str | None:
    return text if text is None or len(text) <= 40 else f"{text[:39]}…"


def _type_label(kind: str) -> str:
    """A type as people call it."""
    names = {"VARCHAR": "text", "DOUBLE": "number", "FLOAT": "number", "BOOLEAN": "yes/no", "VARCHAR[]": "texts",
             "FLOAT[]": "vector", "INTEGER": "whole number", "BIGINT": "whole number"}  # fmt: skip
    return "time" if kind.startswith("TIMESTAMP") else names.get(kind, kind.lower())


def _quantiles(db: Any, query: str) -> dict[str, float]:
    """The smallest, the largest, the mean and some quantiles of the one column of a query."""
    low, q25, median, q75, q95, high, mean = _fetch_row(
        db,
        "SELECT min(value), approx_quantile(value, 0.25), approx_quantile(value, 0.5), approx_quantile(value, 0.75), "
        f"approx_quantile(value, 0.95), max(value), avg(value) FROM ({query})",
    )
    quantiles = {"min": low, "25%": q25, "50%": median, "75%": q75, "95%": q95, "max": high, "mean": mean}
    return {name: round(float(value), 2) for name, value in quantiles.items() if value is not None}


def _events_per_day(db: Any) -> list[tuple[str, int]]:
    query = (
        "WITH counted AS (SELECT CAST(event_timestamp AS DATE) AS day, count(*) AS events FROM events GROUP BY ALL), "
        "days AS (SELECT unnest(generate_series(min(day), max(day), INTERVAL 1 DAY))::DATE AS day FROM counted) "
        "SELECT day::VARCHAR, coalesce(events, 0) FROM days LEFT JOIN counted USING (day) ORDER BY day"
    )
    return [(day, int(events)) for day, events in db.execute(query).fetchall()]


def _events_per_hour(db: Any) -> list[int]:
    query = "SELECT hour(event_timestamp) AS hour, count(*) FROM events GROUP BY ALL"
    counts = dict(db.execute(query).fetchall())
    return [int(counts.get(hour, 0)) for hour in range(24)]


def _tail_profile(db: Any, key: str) -> TailProfile:
    db.execute(
        "CREATE OR REPLACE TEMP TABLE tail AS "
        "SELECT count(*) AS events, row_number() OVER (ORDER BY count(*) DESC) AS place "
        f"FROM events WHERE {key} IS NOT NULL GROUP BY {key}"
    )
    names, total, once = _fetch_row(db, "SELECT count(*), sum(events), count(*) FILTER (events = 1) FROM tail")

    def share(part: float) -> float:
        return float(
            _fetch_row(db, f"SELECT sum(events) FROM tail WHERE place <= greatest(1, {part} * {names})")[0] / total
        )

    steps = (0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
    return TailProfile(
        names=names,
        events=_quantiles(db, "SELECT events AS value FROM tail"),
        head={f"{part:.0%}": share(part) for part in (0.01, 0.1, 0.2)},
        curve=[(part, share(part)) for part in steps],
        once=once,
    )


def _label_counts(db: Any, label: str) -> dict[str, int]:
    """Value -> events; where there are many values, those of ten equal ranges."""
    ((distinct,),) = db.execute(f"SELECT count(DISTINCT {label}) FROM events").fetchall()
    bucket_sql = f"coalesce({label}::VARCHAR, 'none')"
    if distinct > MAX_TOP_VALUES:
        low, high = _fetch_row(db, f"SELECT min({label}), max({label}) FROM events")
        width = (high - low) / 10
        bucket_sql = (
            f"CASE WHEN {label} IS NULL THEN 'none' ELSE "
            f"printf('from %g', {low} + {width} * least(9, floor(({label} - {low}) / {width}))) END"
        )
    query = f"SELECT {bucket_sql} AS value, count(*), min({label}) AS place FROM events GROUP BY value ORDER BY place"
    return {value: rows for value, rows, _ in db.execute(query).fetchall()}


def to_json(result: Profile) -> str:
    """The profile for programs."""
    return json.dumps(result.model_dump(), indent=2, ensure_ascii=False)
