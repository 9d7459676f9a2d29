"""The profile of canonical tables, computed by DuckDB in bounded memory."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from pydantic import Field

from components.ingest.config import IngestConfig
from components.ingest.step import ingest
from onboarding.survey.language import detect_language
from onboarding.tables import ColumnSummary, canonical_tables, is_number, summarize
from rankline import label_sql
from rankline.contracts import LABELS, FrozenModel
from rankline.errors import SourceError
from rankline.io.sql import fetch_row, identifier, literal
from rankline.labels import FEEDBACK, Label
from rankline.runtime.progress import Progress

MAX_TOP_VALUES = 12
MAX_EXACT_ROWS = 1 << 22  # tables with more rows have their distinct values estimated
TABLES = ("events", "items", "users", "queries")
KEYS = {"users": "user_id", "items": "item_id", "queries": "query_id"}
# shares of the busiest users, items or queries, for which the share of events is computed
CURVE_POINTS = (0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
HEAD_POINTS = (0.01, 0.1, 0.2)
TYPE_LABELS = {
    "VARCHAR": "text", "DOUBLE": "number", "FLOAT": "number", "BOOLEAN": "yes/no", "VARCHAR[]": "texts",
    "FLOAT[]": "vector", "INTEGER": "whole number", "BIGINT": "whole number",
}  # fmt: skip


class ColumnProfile(FrozenModel):
    name: str
    type: str
    missing: int
    distinct: int = Field(description="number of distinct values; an estimate in tables of millions of rows")
    low: str | None = None
    high: str | None = None
    mean: float | None = None
    length: float | None = Field(None, description="mean length of a text in characters, or of a list")
    top: dict[str, int] = Field(default={}, description="most frequent values and their rows, for columns with few")


class TableProfile(FrozenModel):
    rows: int
    columns: list[ColumnProfile]
    language: str = Field("", description="language its texts appear to be in")
    text_lengths: dict[str, float] = Field(default={}, description="words per row over all text columns: quantiles")


class TailProfile(FrozenModel):
    """How events are distributed over users, items or queries."""

    names: int
    events: dict[str, float] = Field(description="events per user, item or query: quantiles")
    head: dict[str, float] = Field(description="share of the events that belong to the busiest 1%, 10% and 20%")
    curve: list[tuple[float, float]] = Field(description="share of the busiest -> share of the events")
    once: int = Field(description="how many have a single event")


class Profile(FrozenModel):
    """A source in numbers."""

    where: str
    tables: dict[str, TableProfile]
    first: str | None = None
    last: str | None = None
    days: list[tuple[str, int]] = Field(default=[], description="day (UTC) -> events, including empty days")
    hours: list[int] = Field(default=[], description="events in each hour of the day (UTC)")
    tails: dict[str, TailProfile] = Field(default={}, description="per users, items and queries")
    labels: dict[str, dict[str, int]] = Field(default={}, description="label -> value -> events; none is a value too")
    label_shares: dict[str, float] = Field(
        default={}, description="label -> share of the events with a value of it in which it counts"
    )
    feedback: dict[str, int] = Field(
        default={}, description="events that are positives, negatives and neither, if a label decides"
    )
    splits: dict[str, int] = Field(default={}, description="split -> events, if the source is already split")
    rejected: dict[str, dict[str, int]] = Field(
        default={}, description="table -> reason -> rejected rows: duplicates, unknown references, unreadable values"
    )
    examples: dict[str, str] = Field(default={}, description="table and reason -> the first such row")
    never_used: dict[str, int] = Field(default={}, description="items, users and queries without events")


def profile_source(config: IngestConfig, progress: Progress = Progress()) -> Profile:
    """The profile of a source, ingested into a temporary folder; rejected rows are counted, however many there are."""
    with tempfile.TemporaryDirectory() as work:
        ingest(Path(work) / "raw", config=config.model_copy(update={"max_rejected_share": 1.0}), progress=progress)
        return profile(Path(work) / "raw")


def profile(folder: Path) -> Profile:
    """The profile of the canonical tables in a `raw` or `clean` folder.

    Raises:
        SourceError: the folder is missing, holds no tables, or a table cannot be read.
    """
    import duckdb

    if not (folder / "events.parquet").is_file():
        raise _missing_tables_error(folder)
    try:
        with canonical_tables(folder) as db:
            return _build_profile(db, folder)
    except duckdb.Error as error:
        raise SourceError(
            "a table cannot be read",
            expected="complete Parquet files as ingest and validate write them",
            found=" ".join(str(error).split())[:300],
            where=str(folder),
            hint="run ingest again",
        ) from error


def _missing_tables_error(folder: Path) -> SourceError:
    is_folder = folder.is_dir()
    names = ", ".join(sorted(path.name for path in folder.iterdir())[:6]) if is_folder else ""
    return SourceError(
        "the folder holds no canonical tables" if is_folder else "the folder does not exist",
        expected="events.parquet and items.parquet, as ingest (raw) and validate (clean) write them",
        found=names or ("an empty folder" if is_folder else "no such folder"),
        where=str(folder),
        hint="rankline data profile --recipe NAME --source PATH profiles a source that has not been ingested yet",
    )


def _build_profile(db: Any, folder: Path) -> Profile:
    present = {name for (name,) in db.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()}
    tables = {table: _table_profile(db, table) for table in TABLES if table in present}
    fields: dict[str, Any] = {
        "where": str(folder),
        "tables": {name: each for name, each in tables.items() if each.rows},
    }
    if tables["events"].rows:
        fields |= _event_fields(db, {column.name for column in tables["events"].columns})
        fields |= _label_fields(db, {column.name for column in tables["events"].columns}, _declared_labels(folder))
        fields["never_used"] = {
            table: fetch_row(db, f"SELECT count(*) FROM {table} ANTI JOIN events USING ({KEYS[table]})")[0]
            for table in ("items", "users", "queries")
            if table in fields["tables"]
        }
    if (path := folder / "rejected.parquet").is_file():
        fields |= _rejected_rows(db, path)
    return Profile(**fields)


def _event_fields(db: Any, columns: set[str]) -> dict[str, Any]:
    """What a profile says of the events: times, distributions, splits."""
    fields: dict[str, Any] = {}
    first, last, distinct_times = fetch_row(
        db, "SELECT min(event_timestamp), max(event_timestamp), count(DISTINCT event_timestamp) FROM events"
    )
    if distinct_times > 1:  # a source without times has the same one everywhere
        fields |= {"first": first.isoformat(), "last": last.isoformat()}
        fields |= {"days": _events_per_day(db), "hours": _events_per_hour(db)}
    fields["tails"] = {
        table: _tail_profile(db, key)
        for table, key in KEYS.items()
        if fetch_row(db, f"SELECT count({key}) FROM events")[0]
    }
    if "split" in columns:
        fields["splits"] = dict(db.execute("SELECT split, count(*) FROM events GROUP BY ALL ORDER BY 1").fetchall())
    return fields


def _declared_labels(folder: Path) -> dict[str, Label]:
    """The labels that the recipe declared, as ingest and validate report them."""
    path = folder / "summary.json"
    settings = json.loads(path.read_text(encoding="utf-8")).get("labels") if path.is_file() else None
    return {name: Label(**each) for name, each in settings.items()} if isinstance(settings, dict) else {}


def _label_fields(db: Any, columns: set[str], declared: dict[str, Label]) -> dict[str, Any]:
    """What a profile says of the labels: their values, in how many events they count, and what that makes of these."""
    labels = declared or {name: Label() for name in LABELS}
    present = {name: label for name, label in labels.items() if name in columns}
    fields: dict[str, Any] = {"labels": {name: _label_counts(db, name) for name in present}}
    if FEEDBACK not in columns:
        return fields
    shares = {}
    for name, label in present.items():
        does_count = label_sql.counts(identifier(name), label)
        (share,) = fetch_row(db, f"SELECT avg(CAST({does_count} AS INTEGER)) FROM events")
        shares[name] = round(float(share or 0), 6)
    groups = ("positive", f"{FEEDBACK} > 0"), ("negative", f"{FEEDBACK} = 0"), ("neither", f"{FEEDBACK} IS NULL")
    filters = ", ".join(f"count(*) FILTER ({condition})" for _, condition in groups)
    numbers = fetch_row(db, f"SELECT {filters} FROM events")
    feedback = {group: int(events) for (group, _), events in zip(groups, numbers, strict=True)}
    return fields | {"label_shares": shares, "feedback": feedback}


def _rejected_rows(db: Any, path: Path) -> dict[str, Any]:
    query = (
        'SELECT "table", reason, count(*), arg_min(raw, row) '
        f"FROM read_parquet({literal(str(path))}) GROUP BY ALL ORDER BY ALL"
    )
    rejected: dict[str, dict[str, int]] = {}
    examples = {}
    for table, reason, rows, raw in db.execute(query).fetchall():
        rejected.setdefault(table, {})[reason] = rows
        examples[f"{table}: {reason}"] = raw[:300]
    return {"rejected": rejected, "examples": examples}


def _table_profile(db: Any, table: str) -> TableProfile:
    (rows,) = fetch_row(db, f"SELECT count(*) FROM {table}")
    summaries = summarize(db, table)
    columns = _column_profiles(db, table, summaries, rows)
    words = [name for name, each in summaries.items() if name in ("title", "text") and each.type == "VARCHAR"]
    language, lengths = "", {}
    if words and rows:
        text_sql = f"concat_ws(' ', {', '.join(words)})"
        sample = f"SELECT {text_sql} AS text FROM {table} USING SAMPLE 500 (reservoir, 7)"
        language = detect_language(fetch_row(db, f"SELECT string_agg(text, ' ') FROM ({sample})")[0] or "")
        count = f"len(string_split_regex(trim({text_sql}), '\\s+')) * CAST(trim({text_sql}) <> '' AS INTEGER)"
        lengths = _quantiles(db, f"SELECT {count} AS value FROM {table}")
    return TableProfile(rows=rows, columns=columns, language=language, text_lengths=lengths)


def _column_profiles(db: Any, table: str, summaries: dict[str, ColumnSummary], rows: int) -> list[ColumnProfile]:
    """The profile of each column: bounds and means from SUMMARIZE, what has to be exact from one more query."""
    count_distinct = rows <= MAX_EXACT_ROWS
    exact = [
        sql
        for name, each in summaries.items()
        for sql in _exact_statistics(identifier(name), each.type, count_distinct=count_distinct)
    ]
    values = iter(fetch_row(db, f"SELECT {', '.join(exact)} FROM {table}"))
    profiles = []
    for name, summary in summaries.items():
        missing, distinct, boolean_mean, length = (next(values) for _ in range(4))
        distinct = distinct if count_distinct else summary.approximate_distinct
        has_bounds = not summary.type.endswith("]") and summary.type != "BOOLEAN"
        low, high = (summary.low, summary.high) if has_bounds else (None, None)
        if summary.type.startswith("TIMESTAMP"):
            low, high = (each and each[:19] for each in (low, high))
        profiles.append(
            ColumnProfile(
                name=name, type=_type_label(summary.type), missing=missing, distinct=distinct, low=_truncate(low),
                high=_truncate(high), mean=summary.mean if is_number(summary.type) else boolean_mean, length=length,
                top=_top_values(db, table, identifier(name), summary.type, distinct),
            )
        )  # fmt: skip
    return profiles


def _exact_statistics(column: str, kind: str, *, count_distinct: bool) -> tuple[str, str, str, str]:
    """SQL of what SUMMARIZE estimates or leaves out: missing, distinct, mean of a boolean, mean length."""
    length = {"VARCHAR": f"avg(length({column}))"}.get(kind, f"avg(len({column}))" if kind.endswith("]") else "NULL")
    return (
        f"count(*) - count({column})",
        f"count(DISTINCT {column})" if count_distinct else "NULL",
        f"avg(CAST({column} AS INTEGER))" if kind == "BOOLEAN" else "NULL",
        length,
    )


def _top_values(db: Any, table: str, column: str, kind: str, distinct: int) -> dict[str, int]:
    """The most frequent values of a column that has few, or of the elements of a list column, with their rows."""
    if kind == "VARCHAR[]":
        rows_sql, limit = f"SELECT unnest({column}) AS value FROM {table}", f"LIMIT {MAX_TOP_VALUES}"
    elif kind in ("VARCHAR", "BOOLEAN") and 1 <= distinct <= MAX_TOP_VALUES:
        rows_sql, limit = f"SELECT {column}::VARCHAR AS value FROM {table} WHERE {column} IS NOT NULL", ""
    else:
        return {}
    query = f"SELECT value, count(*) AS rows FROM ({rows_sql}) GROUP BY ALL ORDER BY rows DESC, value {limit}"
    return dict(db.execute(query).fetchall())


def _truncate(text: str | None) -> str | None:
    return text if text is None or len(text) <= 40 else f"{text[:39]}…"


def _type_label(kind: str) -> str:
    return "time" if kind.startswith("TIMESTAMP") else TYPE_LABELS.get(kind, kind.lower())


def _quantiles(db: Any, query: str) -> dict[str, float]:
    """The minimum, maximum, mean and some quantiles of the column `value` of a query."""
    low, q25, median, q75, q95, high, mean = fetch_row(
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
        "SELECT count(*) AS events, row_number() OVER (ORDER BY count(*) DESC) AS rank "
        f"FROM events WHERE {key} IS NOT NULL GROUP BY {key}"
    )
    names, total, once = fetch_row(db, "SELECT count(*), sum(events), count(*) FILTER (events = 1) FROM tail")
    sums = [f"sum(events) FILTER (rank <= greatest(1, {point} * {names}))" for point in CURVE_POINTS]
    events = fetch_row(db, f"SELECT {', '.join(sums)} FROM tail")
    shares = {point: float(count / total) for point, count in zip(CURVE_POINTS, events, strict=True)}
    return TailProfile(
        names=names,
        events=_quantiles(db, "SELECT events AS value FROM tail"),
        head={f"{point:.0%}": shares[point] for point in HEAD_POINTS},
        curve=list(shares.items()),
        once=once,
    )


def _label_counts(db: Any, label: str) -> dict[str, int]:
    """Value -> events; a label with many values is counted in ten equal ranges."""
    label = identifier(label)  # some are words of SQL, such as return
    distinct, low, high = fetch_row(db, f"SELECT count(DISTINCT {label}), min({label}), max({label}) FROM events")
    bucket_sql = f"coalesce({label}::VARCHAR, 'none')"
    if distinct > MAX_TOP_VALUES:
        width = (high - low) / 10
        bucket_sql = (
            f"CASE WHEN {label} IS NULL THEN 'none' ELSE "
            f"printf('from %g', {low} + {width} * least(9, floor(({label} - {low}) / {width}))) END"
        )
    query = f"SELECT {bucket_sql} AS value, count(*), min({label}) AS low FROM events GROUP BY value ORDER BY low"
    return {value: rows for value, rows, _ in db.execute(query).fetchall()}
