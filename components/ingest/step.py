"""Ingest: turn a source into the canonical tables, and reject rows that cannot be read with their reasons.

Reads what `config.source` names. Writes `items.parquet`, `users.parquet`, `queries.parquet`, `events.parquet`,
`rejected.parquet` and `summary.json` to `raw`. The same data gives the same bytes.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from components.ingest.config import INTERNAL_COLUMNS, Columns, IngestConfig, stored_name
from components.ingest.feedback import Labels, check_feedback, count_feedback, create_scored_events
from components.ingest.identity import Identity, hashing_summary
from components.ingest.limits import check_event_count, check_prices, check_rejected_share, count_unknown_zones
from components.ingest.readers import beir, recbole, sql, tables
from components.ingest.readers.parts import Part, first_rows
from components.ingest.rejection import mark_rejected, rejected_counts
from components.ingest.staging import (
    TABLES,
    Staged,
    column_names,
    create_empty_events,
    create_missing_tables,
    stage,
)
from rankline.contracts import EVENTS, ITEMS, LABELS, QUERIES, REJECTED, USERS
from rankline.io import digest, sources
from rankline.io.files import write_json
from rankline.io.sql import fetch_row, temporary_database
from rankline.runtime.progress import Progress
from rankline.users.erased import ErasedUsers

# One reader per format: it yields the parts of a source.
READERS: dict[str, Callable[[IngestConfig, sources.Files], Iterator[Part]]] = {
    "recbole": recbole.read_parts,
    "beir": beir.read_parts,
    "tables": tables.read_parts,
    "sql": sql.read_parts,
}
ROW_GROUP = 1 << 17
# what of the summary is the step's result
RESULT = (
    "rows", "feedback", "rejected", "outside_window", "event_time", "data_digest", "erased_rows", "time_zones_not_read",
)  # fmt: skip


def ingest(
    raw: Path,
    *,
    config: IngestConfig,
    erased: ErasedUsers | None = None,
    progress: Progress = Progress(),
    first_events: int | None = None,
) -> dict[str, Any]:
    """Read, check and write the tables; returns the rows that were kept, rejected, and outside the window.

    The rows of ``erased`` users are left out before anything is written. ``first_events`` is the most events to read,
    to try whether the settings fit the source.

    Raises:
        SourceError: the source is missing, empty or not what the settings say, or too many rows are rejected.
        TooSmall: the window holds fewer events than `config.min_events`.
        UsageError: the key that hashes users is missing.
    """
    if config.only_items:
        config = config.model_copy(update={"tables": sources.Tables(items=config.tables.items)})
    files = sources.find_files(config)
    columns = beir.columns(config.columns) if config.format == "beir" else config.columns
    raw.mkdir(parents=True, exist_ok=True)
    parts = READERS[config.format](config, files)
    if first_events is not None:
        parts = first_rows(parts, "events", first_events)
    with temporary_database(raw, memory_mb=config.memory_limit_mb) as db:
        progress.phase("reading")
        identity = Identity(db, config, erased)
        staged = stage(
            db,
            parts,
            config.model_copy(update={"columns": columns}),
            tables=[table for table in TABLES if table in files or getattr(config.tables, table)],
            identity=identity,
            total=sum(file.size() for each in files.values() for file in each),
            progress=progress.update,
        )
        if config.only_items:
            create_empty_events(db)
        create_missing_tables(db)

        progress.phase("checking rows")
        mark_rejected(db, config, columns)
        rejected = rejected_counts(db)
        _write_parquet(db, raw / "rejected.parquet", REJECTED, identity.rejected())
        check_rejected_share(db, config, columns, staged, raw)
        unreadable_prices, unknown_zones = check_prices(db, config, columns), count_unknown_zones(db, config)

        progress.phase("writing")
        _create_window_view(db, config)
        labels = create_scored_events(db, config)
        _write_tables(db, raw)
        summary = _summary(db, config, columns, files, staged)
        if feedback := count_feedback(db, labels):
            summary["feedback"] = feedback
        summary |= _labels(config, labels)
        summary |= {"prices_not_read": unreadable_prices, "rejected": rejected}
        summary |= {"time_zones_not_read": unknown_zones} if any(unknown_zones.values()) else {}
        summary |= {**identity.summary(), **hashing_summary(config), **_declared(columns)}

    outputs = ["events.parquet", "items.parquet", "users.parquet"]
    outputs += ["queries.parquet"] if summary["rows"]["queries"] else []
    summary["data_digest"] = digest.json_digest(digest.file_digests(raw, outputs))
    write_json(raw / "summary.json", summary)
    check_event_count(summary, config, raw)
    if first_events is None:
        check_feedback(feedback, labels, declared=bool(config.labels), where=str(raw / "summary.json"))
    return {key: summary[key] for key in RESULT if key in summary}


def _labels(config: IngestConfig, labels: Labels) -> dict[str, Any]:
    """The declared labels with the limits and scales that the data has, and which limits were quantiles."""
    if not config.labels:
        return {}
    limits = {name: label.at_quantile for name, label in config.labels.items()}
    quantiles = {name: limit for name, limit in limits.items() if limit is not None}
    summary: dict[str, Any] = {"quantiles": quantiles} if quantiles else {}
    return summary | {"labels": {name: label.model_dump(mode="json") for name, label in labels.items()}}


def _declared(columns: Columns) -> dict[str, Any]:
    """What types do not tell of declared columns: which are texts, and which tables know the users' time zones."""
    texts = [stored_name(name) for name in columns.user_texts]
    zones = [table for table in ("users", "events") if getattr(columns, f"{table[:-1]}_time_zone")]
    return {name: value for name, value in (("user_texts", texts), ("time_zones", zones)) if value}


def _create_window_view(db: Any, config: IngestConfig) -> None:
    """Create `window_events`: the good events in [window_start, window_end)."""
    bounds = []
    if config.window_start:
        bounds.append(f"event_timestamp >= TIMESTAMPTZ '{config.window_start}'")
    if config.window_end:
        bounds.append(f"event_timestamp < TIMESTAMPTZ '{config.window_end}'")
    db.execute(f"CREATE VIEW window_events AS SELECT * FROM good_events WHERE {' AND '.join(bounds) or 'true'}")


def _write_tables(db: Any, raw: Path) -> None:
    for table, canonical, order in (
        ("items", ITEMS, "row"),
        ("users", USERS, "row, user_id"),
        ("queries", QUERIES, "row"),
    ):
        query = f"SELECT * EXCLUDE (raw, reject_reason) FROM good_{table} ORDER BY {order}"
        _write_parquet(db, raw / f"{table}.parquet", canonical, query)
    # a row's place in the source identifies its event and breaks ties in time
    query = (
        "SELECT lpad(row::VARCHAR, 12, '0') AS event_id, * EXCLUDE (raw, reject_reason) FROM scored_events "
        "ORDER BY event_timestamp, row"
    )
    _write_parquet(db, raw / "events.parquet", EVENTS, query)


def _write_parquet(db: Any, path: Path, canonical: Any, query: str) -> None:
    """Stream a query to Parquet: the contract's columns, then the declared ones; the same rows give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    reader = db.sql(query).to_arrow_reader(ROW_GROUP)
    internal = INTERNAL_COLUMNS if path.stem != "rejected" else ()
    extra = [field for field in reader.schema if field.name not in (*canonical.names, *internal)]
    schema = pa.schema([*canonical, *extra])
    buffered = schema.empty_table()
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        # the size of batches depends on timing; that of row groups must not
        for batch in reader:
            batch = pa.Table.from_batches([batch]).select(schema.names).cast(schema)
            buffered = pa.concat_tables([buffered, batch])
            while len(buffered) >= ROW_GROUP:
                writer.write_table(buffered.slice(0, ROW_GROUP).combine_chunks(), row_group_size=ROW_GROUP)
                buffered = buffered.slice(ROW_GROUP)
        writer.write_table(buffered.combine_chunks(), row_group_size=ROW_GROUP)


def _summary(db: Any, config: IngestConfig, columns: Columns, files: sources.Files, staged: Staged) -> dict[str, Any]:
    """What was read and kept, for readers and for the next steps."""

    def count(relation: str) -> int:
        return int(fetch_row(db, f"SELECT count(*) FROM {relation}")[0])

    first, last = fetch_row(db, "SELECT min(event_timestamp), max(event_timestamp) FROM window_events")
    names = column_names(db, "events")
    provided = columns.provided_columns(staged.absent_columns)
    empty_files = [file.path for each in files.values() for file in each if file.is_empty()]
    return {
        "rows": {table: count(f"good_{table}") for table in ("items", "users", "queries")}
        | {"events": count("window_events")},
        "read": {table: count(table) for table in TABLES},
        "outside_window": count("good_events") - count("window_events") + staged.outside_window,
        "users_without_profile": count("good_users") - count("users") + count("bad_users"),
        "users_without_history": count(
            "good_users WHERE user_id NOT IN (SELECT user_id FROM window_events WHERE user_id IS NOT NULL)"
        ),
        "items_without_date": count("good_items WHERE created_at IS NULL"),
        "items_without_words": count("good_items WHERE title IS NULL AND text IS NULL"),
        "window": {"start": config.window_start, "end": config.window_end},
        "event_time": {"first": first and first.isoformat(), "last": last and last.isoformat()},
        "labels": [label for label in LABELS if label in names],
        "absent_columns": staged.absent_columns,
        "items_tell": [name for name in provided if not config.only or name in config.only],
        "items_only": bool(config.only),
        "source_digest": sources.files_digest(files) if files else None,
        **({"rows_without_column": dict(sorted(staged.rows_without.items()))} if staged.rows_without else {}),
        **({"empty_files": empty_files} if empty_files else {}),
    }
