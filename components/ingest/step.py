"""Ingest: a source's files become the canonical tables, and what cannot be read is set aside with its reason.

Reads the files of `config.source`. Writes `items.parquet`, `users.parquet`, `events.parquet`,
`rejected.parquet` and `summary.json` into `raw`. The same data in gives the same bytes out.
"""

import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from components.ingest import recbole
from components.ingest.config import IngestConfig
from rankline import digest, ledger
from rankline import raw as raw_data
from rankline.contracts import EVENTS, ITEMS, LABELS, REJECTED, USERS
from rankline.errors import SourceError, TooSmall
from rankline.progress import Progress

# One adapter a format: it fills the tables `items`, `users` and `events` (see recbole.py).
ADAPTERS: dict[str, Callable[..., None]] = {"recbole": recbole.stage}
OWN = ("row", "raw", "wrong", "reason")  # columns that are ingest's alone
ROW_GROUP = 1 << 17


def ingest(raw: Path, *, config: IngestConfig, progress: Progress = Progress()) -> dict[str, Any]:
    """Read, judge, and write; returns the counts of rows kept, set aside and outside the window.

    Raises:
        SourceError: where the source is missing, empty or not what the settings say, or too much is bad.
        TooSmall: where the window holds fewer events than `config.min_events`.
    """
    files = raw_data.files(config.source, format=config.format, name=config.name)
    raw.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=raw) as work, _database(Path(work), config.memory_limit_mb) as db:
        progress.phase("reading")
        ADAPTERS[config.format](db, files, config.columns, progress.update)

        progress.phase("judging")
        _judge(db, has_users="users" in files)
        rejected = _rejected(db)
        _write(db, raw / "rejected.parquet", REJECTED, 'SELECT * FROM rejected ORDER BY "table", row')
        _refuse_bad(db, config, files, raw)

        progress.phase("writing")
        _write(db, raw / "items.parquet", ITEMS, "SELECT * FROM good_items ORDER BY row")
        _write(db, raw / "users.parquet", USERS, "SELECT * FROM good_users ORDER BY row, user_id")
        _window(db, config)
        _write(
            db,
            raw / "events.parquet",
            EVENTS,
            # a row's place in the file names its event and settles ties in time
            "SELECT lpad(row::VARCHAR, 12, '0') AS event_id, * FROM window_events ORDER BY event_timestamp, row",
        )
        summary = _summary(db, config, files) | {"rejected": rejected}

    tables = digest.of_files(raw, ["events.parquet", "items.parquet", "users.parquet"])
    summary["data_digest"] = digest.of_value(tables)
    ledger.write_json(raw / "summary.json", summary)
    _refuse_little(summary, config, raw)
    return {key: summary[key] for key in ("rows", "rejected", "outside_window", "event_time", "data_digest")}


def _database(folder: Path, memory_mb: int) -> Any:
    """A DuckDB of our own, on disk: what exceeds its memory spills beside it and goes with it."""
    import duckdb

    db = duckdb.connect(str(folder / "ingest.duckdb"))
    db.execute(f"SET memory_limit = '{memory_mb}MB'")
    db.execute("SET TimeZone = 'UTC'")
    return db


def _judge(db: Any, *, has_users: bool) -> None:
    """Give every row a reason to be set aside, or none."""
    if not has_users:
        db.execute("CREATE TABLE users (row BIGINT, raw VARCHAR, wrong VARCHAR, user_id VARCHAR)")
    for table, key in (("items", "item_id"), ("users", "user_id")):
        db.execute(
            f"""
            CREATE TABLE judged_{table} AS SELECT *, CASE
                WHEN wrong IS NOT NULL THEN wrong
                WHEN {key} IS NULL THEN 'missing key'
                WHEN row_number() OVER (PARTITION BY wrong IS NULL, {key} ORDER BY row) > 1
                    THEN 'duplicate {table[:-1]}'
            END AS reason FROM {table};
            CREATE VIEW good_{table} AS SELECT * FROM judged_{table} WHERE reason IS NULL
            """
        )
    db.execute(
        """
        CREATE TABLE judged_events AS
        WITH told AS (
            SELECT *, CASE
                WHEN wrong IS NOT NULL THEN wrong
                WHEN user_id IS NULL AND query_id IS NULL OR item_id IS NULL THEN 'missing key'
                WHEN item_id NOT IN (SELECT item_id FROM good_items) THEN 'unknown item'
            END AS told FROM events
        )
        SELECT * EXCLUDE (told), CASE
            WHEN told IS NOT NULL THEN told
            WHEN row_number() OVER (
                PARTITION BY told IS NULL, user_id, query_id, item_id, event_timestamp ORDER BY row
            ) > 1 THEN 'duplicate event'
        END AS reason FROM told;
        CREATE VIEW good_events AS SELECT * FROM judged_events WHERE reason IS NULL
        """
    )
    # a user who acted without a profile is a user all the same, with nothing known of them
    db.execute(
        """
        CREATE OR REPLACE VIEW good_users AS
        SELECT * FROM judged_users WHERE reason IS NULL
        UNION ALL BY NAME
        SELECT DISTINCT 9223372036854775807 AS row, user_id FROM good_events
        WHERE user_id IS NOT NULL AND user_id NOT IN (SELECT user_id FROM judged_users WHERE reason IS NULL)
        """
    )
    db.execute(
        " CREATE VIEW rejected AS "
        + " UNION ALL ".join(
            f"SELECT '{table}' AS \"table\", row, reason, raw FROM judged_{table} WHERE reason IS NOT NULL"
            for table in ("events", "items", "users")
        )
    )


def _rejected(db: Any) -> dict[str, dict[str, int]]:
    """Table -> reason -> rows set aside."""
    counts: dict[str, dict[str, int]] = {"items": {}, "users": {}, "events": {}}
    query = 'SELECT "table", reason, count(*) FROM rejected GROUP BY ALL ORDER BY ALL'
    for table, reason, count in db.execute(query).fetchall():
        counts[table][reason] = count
    return counts


def _refuse_bad(db: Any, config: IngestConfig, files: dict[str, Path], raw: Path) -> None:
    """Refuse a source of which too much had to be set aside, or which holds nothing."""
    for table, path in files.items():
        rows, bad = _row(db, f"SELECT count(*), count(reason) FROM judged_{table}")
        if rows == 0 and table != "users":
            raise SourceError(
                f"the source holds no {table}",
                expected="rows below the header",
                found="a header alone",
                where=str(path),
                hint="fetch the data again, or point ingest.source at another copy",
            )
        if bad == rows > 0 or bad > config.max_rejected_share * rows:
            reasons = ", ".join(f"{reason} {count}" for reason, count in _rejected(db)[table].items())
            row, example = _row(
                db, f"SELECT row, raw FROM judged_{table} WHERE reason IS NOT NULL ORDER BY row LIMIT 1"
            )
            raise SourceError(
                f"{bad} of {rows} rows of {table} cannot be used ({reasons})",
                expected=f"at most {config.max_rejected_share:.1%} set aside (ingest.max_rejected_share)",
                found=f"{bad / rows:.1%}; the first is line {row}: {example[:120]!r}",
                where=f"{path}; all of them are in {raw / 'rejected.parquet'}",
                hint="mend the rows, or ingest.columns if they are read as what they are not; "
                "raise ingest.max_rejected_share to go on without them",
            )


def _window(db: Any, config: IngestConfig) -> None:
    """Keep the good events of [window_start, window_end)."""
    bounds = []
    if config.window_start:
        bounds.append(f"event_timestamp >= TIMESTAMPTZ '{config.window_start}'")
    if config.window_end:
        bounds.append(f"event_timestamp < TIMESTAMPTZ '{config.window_end}'")
    db.execute(f"CREATE VIEW window_events AS SELECT * FROM good_events WHERE {' AND '.join(bounds) or 'true'}")


def _summary(db: Any, config: IngestConfig, files: dict[str, Path]) -> dict[str, Any]:
    """What was read and kept, for people and for the next step."""

    def count(relation: str) -> int:
        return int(_row(db, f"SELECT count(*) FROM {relation}")[0])

    first, last = _row(db, "SELECT min(event_timestamp), max(event_timestamp) FROM window_events")
    names = {name for name, *_ in db.execute("DESCRIBE events").fetchall()}
    return {
        "rows": {table: count(f"good_{table}") for table in ("items", "users")} | {"events": count("window_events")},
        "read": {table: count(table) for table in ("items", "users", "events")},
        "outside_window": count("good_events") - count("window_events"),
        "users_without_profile": count("good_users") - count("judged_users WHERE reason IS NULL"),
        "items_without_date": count("good_items WHERE created_at IS NULL"),
        "window": {"start": config.window_start, "end": config.window_end},
        "event_time": {"first": _iso(first), "last": _iso(last)},
        "labels": [label for label in LABELS if label in names],
        "source_digest": digest.of_value({table: digest.of_file(path) for table, path in files.items()}),
    }


def _refuse_little(summary: dict[str, Any], config: IngestConfig, raw: Path) -> None:
    """Refuse a window that holds too few events."""
    events, outside = summary["rows"]["events"], summary["outside_window"]
    if events < config.min_events:
        raise TooSmall(
            f"the data window holds {events} events",
            expected=f"at least {config.min_events} (ingest.min_events)",
            found=f"{events} events in [{config.window_start or 'ever'}, {config.window_end or 'now'}), "
            f"{outside} outside it",
            where=str(raw / "summary.json"),
            hint="widen ingest.window_start and ingest.window_end, or bring more data",
        )


def _row(db: Any, query: str) -> tuple[Any, ...]:
    """The one row of a query, read to its end: DuckDB allows no other work beside an unfinished result."""
    (row,) = db.execute(query).fetchall()
    return tuple(row)


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _write(db: Any, path: Path, canonical: Any, query: str) -> None:
    """Stream a query into Parquet: the contract's columns, then the declared ones; always the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    reader = db.sql(query).to_arrow_reader(ROW_GROUP)
    own = OWN if path.stem != "rejected" else ()
    extra = [field for field in reader.schema if field.name not in (*canonical.names, *own)]
    schema = pa.schema([*canonical, *extra])
    waiting = schema.empty_table()
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        # batches come in sizes that depend on timing; row groups must not
        for batch in reader:
            batch = pa.Table.from_batches([batch]).select(schema.names).cast(schema)
            waiting = pa.concat_tables([waiting, batch])
            while len(waiting) >= ROW_GROUP:
                writer.write_table(waiting.slice(0, ROW_GROUP).combine_chunks(), row_group_size=ROW_GROUP)
                waiting = waiting.slice(ROW_GROUP)
        writer.write_table(waiting.combine_chunks(), row_group_size=ROW_GROUP)
