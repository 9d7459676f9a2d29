"""Ingest: a source becomes the canonical tables, and what cannot be read is set aside with its reason.

Reads what `config.source` names. Writes `items.parquet`, `users.parquet`, `queries.parquet`, `events.parquet`,
`rejected.parquet` and `summary.json` into `raw`. The same data in gives the same bytes out.
"""

import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from components.ingest import beir, recbole, sql, tables
from components.ingest.config import INTERNAL_COLUMNS, Columns, IngestConfig, stored_name
from components.ingest.encoding import EncodingGuess, guess_encoding
from components.ingest.fields import CURRENCY, identifier, literal
from components.ingest.parts import SAMPLE_BYTES, Part, decompressed, first_rows
from components.ingest.staging import stage
from rankline.contracts import EVENTS, ITEMS, LABELS, QUERIES, REJECTED, SUPERSEDED, USERS
from rankline.errors import SourceError, TooSmall
from rankline.io import digest
from rankline.io import sources as raw_data
from rankline.runtime import ledger
from rankline.runtime.progress import Progress

# One adapter a format: it says which parts a source has and what arrives from them (see parts.py).
ADAPTERS: dict[str, Callable[[IngestConfig, raw_data.Files], Iterator[Part]]] = {
    "recbole": recbole.read_parts,
    "beir": beir.read_parts,
    "tables": tables.read_parts,
    "sql": sql.read_parts,
}
KEYS = {"items": "item_id", "users": "user_id", "queries": "query_id", "events": "NULL::VARCHAR"}
TABLES = tuple(KEYS)
ROW_GROUP = 1 << 17


def ingest(
    raw: Path, *, config: IngestConfig, progress: Progress = Progress(), first_events: int | None = None
) -> dict[str, Any]:
    """Read, judge, and write; returns the counts of rows kept, set aside and outside the window.

    ``first_events`` reads no more events than that: a proof that the settings fit the source.

    Raises:
        SourceError: where the source is missing, empty or not what the settings say, or too much is bad.
        TooSmall: where the window holds fewer events than `config.min_events`.
    """
    if config.only_items:
        config = config.model_copy(update={"tables": raw_data.Tables(items=config.tables.items)})
    files = raw_data.find_files(config)
    columns = beir.columns(config.columns) if config.format == "beir" else config.columns
    raw.mkdir(parents=True, exist_ok=True)
    parts = ADAPTERS[config.format](config, files)
    if first_events is not None:
        parts = first_rows(parts, "events", first_events)
    with tempfile.TemporaryDirectory(dir=raw) as scratch, _database(Path(scratch), config.memory_limit_mb) as db:
        progress.phase("reading")
        staged = stage(
            db,
            parts,
            config,
            columns,
            tables=[table for table in TABLES if table in files or getattr(config.tables, table)],
            total=sum(file.size() for each in files.values() for file in each),
            progress=progress.update,
        )
        if config.only_items:
            _create_empty_events(db, columns)
        _create_missing_tables(db)

        progress.phase("judging")
        _mark_rejected(db, config, columns)
        rejected = _rejected_counts(db)
        _write_parquet(db, raw / "rejected.parquet", REJECTED, 'SELECT * FROM rejected ORDER BY "table", row')
        _check_rejected_share(db, config, columns, staged, raw)
        unreadable_prices = _check_prices(db, config, columns)

        progress.phase("writing")
        _write_parquet(db, raw / "items.parquet", ITEMS, "SELECT * EXCLUDE (raw, wrong) FROM good_items ORDER BY row")
        _write_parquet(
            db, raw / "users.parquet", USERS, "SELECT * EXCLUDE (raw, wrong) FROM good_users ORDER BY row, user_id"
        )
        _write_parquet(
            db, raw / "queries.parquet", QUERIES, "SELECT * EXCLUDE (raw, wrong) FROM good_queries ORDER BY row"
        )
        _create_window_view(db, config)
        _write_parquet(
            db,
            raw / "events.parquet",
            EVENTS,
            # a row's place in the source names its event and settles ties in time
            "SELECT lpad(row::VARCHAR, 12, '0') AS event_id, * EXCLUDE (raw, wrong) FROM window_events "
            "ORDER BY event_timestamp, row",
        )
        summary = _summary(db, config, columns, files, staged)
        summary |= {"prices_not_read": unreadable_prices, "rejected": rejected}

    outputs = ["events.parquet", "items.parquet", "users.parquet"]
    outputs += ["queries.parquet"] if summary["rows"]["queries"] else []
    summary["data_digest"] = digest.json_digest(digest.file_digests(raw, outputs))
    ledger.write_json(raw / "summary.json", summary)
    _check_event_count(summary, config, raw)
    return {key: summary[key] for key in ("rows", "rejected", "outside_window", "event_time", "data_digest")}


def _database(folder: Path, memory_mb: int) -> Any:
    """A DuckDB of our own, on disk: what exceeds its memory spills beside it and goes with it."""
    import duckdb

    db = duckdb.connect(str(folder / "ingest.duckdb"))
    db.execute(f"SET memory_limit = '{memory_mb}MB'")
    db.execute("SET TimeZone = 'UTC'")
    return db


def _create_empty_events(db: Any, columns: Columns) -> None:
    """A table of events without any, where the items alone are read."""
    labels = "".join(f", NULL::DOUBLE AS {identifier(label)}" for label in {*columns.event_types.values()} if label)
    db.execute(
        "CREATE TABLE events AS SELECT 0::BIGINT AS row, NULL::VARCHAR AS raw, NULL::VARCHAR AS wrong, "
        "NULL::VARCHAR AS user_id, NULL::VARCHAR AS query_id, NULL::VARCHAR AS item_id, "
        f"NULL::TIMESTAMPTZ AS event_timestamp, NULL::TIMESTAMPTZ AS known_at{labels} LIMIT 0"
    )


def _create_missing_tables(db: Any) -> None:
    """Tables that the source does not have: made of its events, or empty."""
    existing = {name for (name,) in db.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    query_columns = "arg_min(asked_text, row) AS text, arg_min(asked_turns, row) AS turns"
    if "asked_text" not in _column_names(db, "events"):
        query_columns = "NULL::VARCHAR AS text, NULL::VARCHAR[] AS turns"
    item_columns = (
        "NULL::VARCHAR AS title, NULL::VARCHAR AS text, NULL::VARCHAR AS language, []::VARCHAR[] AS category, "
        "NULL::DOUBLE AS price, true AS available, NULL::TIMESTAMPTZ AS created_at"
    )
    for table, key, columns in (
        ("items", "item_id", item_columns),
        ("users", "user_id", ""),
        ("queries", "query_id", query_columns),
    ):
        if table not in existing:
            db.execute(
                f"CREATE TABLE {table} AS SELECT min(row) AS row, NULL::VARCHAR AS raw, NULL::VARCHAR AS wrong, "
                f"{key}, {columns} FROM events WHERE wrong IS NULL AND {key} IS NOT NULL GROUP BY {key} "
                f"{'LIMIT 0' if table == 'users' else ''}"
            )


def _mark_rejected(db: Any, config: IngestConfig, columns: Columns) -> None:
    """Name every row that is to be set aside, with its reason."""
    for table, key in (("items", "item_id"), ("users", "user_id"), ("queries", "query_id")):
        vector_checks = _vector_checks(db, columns) if table == "items" else ""
        # of a table the first row of an id counts, of changes the last
        order, duplicate_reason = ("DESC", SUPERSEDED) if config.changes else ("", f"duplicate {_singular(table)}")
        db.execute(
            f"""
            CREATE TABLE bad_{table} AS SELECT * FROM (
                SELECT row, CASE
                    WHEN wrong IS NOT NULL THEN wrong
                    WHEN {key} IS NULL THEN 'missing key'
                    {vector_checks}
                    WHEN row_number() OVER (PARTITION BY wrong IS NULL, {key} ORDER BY row {order}) > 1
                        THEN {literal(duplicate_reason)}
                END AS reason FROM {table}
            ) WHERE reason IS NOT NULL;
            CREATE VIEW good_{table} AS SELECT * FROM {table} WHERE row NOT IN (SELECT row FROM bad_{table})
            """
        )
    # one moment may see a click and a purchase where rows have types of their own
    event_key = ["user_id", "query_id", "item_id", "event_timestamp"]
    event_key += sorted({label for label in columns.event_types.values() if label})
    db.execute(
        f"""
        CREATE TABLE bad_events AS
        WITH told AS (
            SELECT row, {", ".join(event_key)}, CASE
                WHEN wrong IS NOT NULL THEN wrong
                WHEN user_id IS NULL AND query_id IS NULL OR item_id IS NULL THEN 'missing key'
                WHEN item_id NOT IN (SELECT item_id FROM good_items) THEN 'unknown item'
                WHEN query_id IS NOT NULL AND query_id NOT IN (SELECT query_id FROM good_queries) THEN 'unknown query'
            END AS told FROM events
        )
        SELECT row, reason FROM (
            SELECT row, CASE
                WHEN told IS NOT NULL THEN told
                WHEN row_number() OVER (PARTITION BY told IS NULL, {", ".join(event_key)} ORDER BY row) > 1
                    THEN 'duplicate event'
            END AS reason FROM told
        ) WHERE reason IS NOT NULL;
        CREATE VIEW good_events AS SELECT * FROM events WHERE row NOT IN (SELECT row FROM bad_events)
        """
    )
    # a user who acted without a profile is a user all the same, with nothing known of them
    db.execute(
        """
        CREATE OR REPLACE VIEW good_users AS
        WITH known AS (SELECT * FROM users WHERE row NOT IN (SELECT row FROM bad_users))
        SELECT * FROM known
        UNION ALL BY NAME
        SELECT DISTINCT 9223372036854775807 AS row, user_id FROM good_events
        WHERE user_id IS NOT NULL AND user_id NOT IN (SELECT user_id FROM known)
        """
    )
    db.execute(
        "CREATE VIEW rejected AS "
        + " UNION ALL ".join(
            f"SELECT '{table}' AS \"table\", row, reason, coalesce(raw, '') AS raw, {key} AS key "
            f"FROM bad_{table} JOIN {table} USING (row)"
            for table, key in KEYS.items()
        )
    )


def _vector_checks(db: Any, columns: Columns) -> str:
    """A vector that is not as long as most are makes its item wrong."""
    checks = []
    for name in map(stored_name, columns.item_vectors):
        if name in _column_names(db, "items"):
            longest = db.execute(
                f"SELECT len({identifier(name)}) AS size FROM items WHERE size IS NOT NULL AND wrong IS NULL "
                "GROUP BY size ORDER BY count(*) DESC, size DESC LIMIT 1"
            ).fetchall()
            if not longest and _fetch_row(db, "SELECT bool_or(wrong IS NULL) FROM items")[0]:
                raise SourceError(
                    f"no vector of {name} has numbers",
                    expected="vectors of items: lists of numbers, each of one length",
                    found="empty ones alone",
                    where="ingest.columns.item_vectors",
                    hint="name another column, or none",
                )
            for (size,) in longest:
                reason = literal(f"{name} has not {size} numbers, as most have")
                checks.append(f"WHEN len({identifier(name)}) <> {size} THEN {reason}")
    return " ".join(checks)


def _singular(table: str) -> str:
    return "query" if table == "queries" else table[:-1]


def _column_names(db: Any, table: str) -> set[str]:
    return {name for name, *_ in db.execute(f"DESCRIBE {table}").fetchall()}


def _rejected_counts(db: Any) -> dict[str, dict[str, int]]:
    """Table -> reason -> rows set aside."""
    counts: dict[str, dict[str, int]] = {table: {} for table in TABLES}
    query = 'SELECT "table", reason, count(*) FROM rejected GROUP BY ALL ORDER BY ALL'
    for table, reason, count in db.execute(query).fetchall():
        counts[table][reason] = count
    return counts


def _check_rejected_share(db: Any, config: IngestConfig, columns: Columns, staged: dict[str, Any], raw: Path) -> None:
    """Refuse a source of which too much had to be set aside, or which holds nothing."""
    # without times, who says the same again is no fault of the source
    harmless = SUPERSEDED if config.changes else "" if columns.timestamp else "duplicate event"
    for table in TABLES:  # events come last: an item that cannot be read takes its events along
        if not (sources := staged["files"].get(table)):
            continue
        (rows,) = _fetch_row(db, f"SELECT count(*) FROM {table}")
        (bad,) = _fetch_row(db, f"SELECT count(*) FROM bad_{table} WHERE reason <> '{harmless}'")
        if rows == 0 and table != "users" and not config.changes:
            raise SourceError(
                f"the source holds no {table}",
                expected="rows below the header",
                found="a header alone",
                where=sources[0]["where"],
                hint="fetch the data again, or point ingest.source at another copy",
            )
        rows -= _fetch_row(db, f"SELECT count(*) FROM bad_{table} WHERE reason = '{SUPERSEDED}'")[0]
        if bad == rows > 0 or bad > config.max_rejected_share * rows:
            reasons = sorted(
                _rejected_counts(db)[table].items(), key=lambda each: (each[0] == harmless, -each[1], each[0])
            )
            row, example = _fetch_row(
                db,
                f"SELECT row, coalesce(raw, '') FROM bad_{table} JOIN {table} USING (row) "
                f"WHERE reason <> '{harmless}' ORDER BY row LIMIT 1",
            )
            source = next(source for source in reversed(sources) if source["first_row"] <= row)
            raise SourceError(
                f"{bad} of {rows} rows of {table} cannot be used "
                f"({', '.join(f'{reason} {count}' for reason, count in reasons)})",
                expected=f"at most {config.max_rejected_share:.1%} set aside (ingest.max_rejected_share)",
                found=f"{bad / rows:.1%}; the first is line {row - source['first_row'] + 1}: {example[:120]!r}",
                where=f"{source['where']}; all of them are in {raw / 'rejected.parquet'}",
                hint=_hint(reasons[0][0], config, source["where"])
                + "mend the rows, or ingest.columns if they are read as what they are not; "
                "raise ingest.max_rejected_share to go on without them",
            )


def _check_prices(db: Any, config: IngestConfig, columns: Columns) -> int:
    """How many good items have a price that cannot be read, and so none.

    Raises:
        SourceError: where too many cannot be read, or they are in several currencies.
    """
    if "price_told" not in _column_names(db, "items"):
        return 0
    priced, unreadable, example, *currencies = _fetch_row(
        db,
        f"""SELECT count(price_told), count(price_told) FILTER (price IS NULL),
            arg_min(price_told, row) FILTER (price IS NULL), min(currency), max(currency)
        FROM (SELECT *, trim(regexp_extract(price_told, {literal(CURRENCY)})) AS mark,
            CASE WHEN price IS NOT NULL AND mark <> '' THEN mark END AS currency FROM good_items)""",
    )
    where = f"column {columns.price} of items"
    if unreadable > config.max_rejected_share * priced:
        raise SourceError(
            f"{unreadable} of {priced} prices cannot be read",
            expected=f"numbers, at most {config.max_rejected_share:.1%} of them none (ingest.max_rejected_share)",
            found=repr(example[:80]),
            where=where,
            hint="set ingest.files.decimal to ',' where prices look like 1.234,50, to '.' where they look like "
            "1,234.50; a currency may stand before or behind, nothing else",
        )
    if len({*currencies}) > 1:
        raise SourceError(
            "prices are in several currencies",
            expected="one, so that they can be compared",
            found=" and ".join(map(str, currencies)),
            where=where,
            hint="convert them into one currency, or name no ingest.columns.price",
        )
    return int(unreadable)


def _hint(reason: str, config: IngestConfig, where: str) -> str:
    """What helps against the most frequent reason."""
    if reason == "time without a zone":
        return "set ingest.columns.time_zone to the zone those clocks were in, such as UTC or Europe/Berlin; "
    if reason.startswith("unparsable timestamp"):
        return (
            "set ingest.columns.timestamp_unit to what they are written as (s, ms, us, ns, iso, or a pattern such as "
            "'%Y-%m-%d %I:%M:%S %p'; iso tells its zone as Z or +02:00, not by a name); "
        )
    if reason == "unparsable available":
        return "name a column of yes and no (true, false, 1, 0); a stock count belongs into item_numbers; "
    if reason == "duplicate event":
        return "where one may do the same twice, ingest.columns.timestamp has to tell the two apart; "
    if reason.endswith("is not a plain value"):
        return "name the value inside of it (outer.inner), or write one row for each value of a list; "
    if reason.endswith("than its type can hold"):
        return "export identifiers as text or as whole numbers: as fractions they have lost their last digits; "
    if reason == "missing key":
        return "words such as NULL and nan name nobody; "
    if reason == "unknown event type":
        return "name them in ingest.columns.event_types (an empty label for one that means none); "
    if reason.startswith("not ") and (encoding := _fitting_encoding(config, where)).name:
        other = f" (or {encoding.runner_up})" * bool(encoding.runner_up)
        return f"set ingest.files.encoding={encoding.name}, which would fit{other}; "
    return ""


def _fitting_encoding(config: IngestConfig, where: str) -> EncodingGuess:
    """The encoding that would fit a text file; none where it cannot be told."""
    file = raw_data.File(where)
    if config.format == "sql" or file.kind in ("parquet", "pq"):
        return EncodingGuess((), ())
    with file.open_stored() as stored:
        return guess_encoding(decompressed(file, stored).read(SAMPLE_BYTES))


def _create_window_view(db: Any, config: IngestConfig) -> None:
    """Keep the good events of [window_start, window_end)."""
    bounds = []
    if config.window_start:
        bounds.append(f"event_timestamp >= TIMESTAMPTZ '{config.window_start}'")
    if config.window_end:
        bounds.append(f"event_timestamp < TIMESTAMPTZ '{config.window_end}'")
    db.execute(f"CREATE VIEW window_events AS SELECT * FROM good_events WHERE {' AND '.join(bounds) or 'true'}")


def _summary(
    db: Any, config: IngestConfig, columns: Columns, files: raw_data.Files, staged: dict[str, Any]
) -> dict[str, Any]:
    """What was read and kept, for people and for the next step."""

    def count(relation: str) -> int:
        return int(_fetch_row(db, f"SELECT count(*) FROM {relation}")[0])

    first, last = _fetch_row(db, "SELECT min(event_timestamp), max(event_timestamp) FROM window_events")
    names = _column_names(db, "events")
    return {
        "rows": {table: count(f"good_{table}") for table in ("items", "users", "queries")}
        | {"events": count("window_events")},
        "read": {table: count(table) for table in TABLES},
        "outside_window": count("good_events") - count("window_events") + staged["outside_window"],
        "users_without_profile": count("good_users") - count("users") + count("bad_users"),
        "users_without_history": count(
            "good_users WHERE user_id NOT IN (SELECT user_id FROM window_events WHERE user_id IS NOT NULL)"
        ),
        "items_without_date": count("good_items WHERE created_at IS NULL"),
        "items_without_words": count("good_items WHERE title IS NULL AND text IS NULL"),
        "window": {"start": config.window_start, "end": config.window_end},
        "event_time": {"first": _iso(first), "last": _iso(last)},
        "labels": [label for label in LABELS if label in names],
        "absent_columns": staged["absent_columns"],
        "items_tell": [
            name
            for name in columns.provided_columns(staged["absent_columns"])
            if not config.only or name in config.only
        ],
        "items_only": bool(config.only),
        "source_digest": raw_data.files_digest(files) if files else None,
    }


def _check_event_count(summary: dict[str, Any], config: IngestConfig, raw: Path) -> None:
    """Refuse a window that holds too few events."""
    events, outside = summary["rows"]["events"], summary["outside_window"]
    if events < config.min_events and not config.only_items:
        raise TooSmall(
            f"the data window holds {events} events",
            expected=f"at least {config.min_events} (ingest.min_events)",
            found=f"{events} events in [{config.window_start or 'ever'}, {config.window_end or 'now'}), "
            f"{outside} outside it",
            where=str(raw / "summary.json"),
            hint="widen ingest.window_start and ingest.window_end, or bring more data",
        )


def _fetch_row(db: Any, query: str) -> tuple[Any, ...]:
    """The one row of a query, read to its end: DuckDB allows no other work beside an unfinished result."""
    (row,) = db.execute(query).fetchall()
    return tuple(row)


def _iso(time: datetime | None) -> str | None:
    return time.isoformat() if time else None


def _write_parquet(db: Any, path: Path, canonical: Any, query: str) -> None:
    """Stream a query into Parquet: the contract's columns, then the declared ones; always the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    reader = db.sql(query).to_arrow_reader(ROW_GROUP)
    internal = INTERNAL_COLUMNS if path.stem != "rejected" else ()
    extra = [field for field in reader.schema if field.name not in (*canonical.names, *internal)]
    schema = pa.schema([*canonical, *extra])
    buffered = schema.empty_table()
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        # batches come in sizes that depend on timing; row groups must not
        for batch in reader:
            batch = pa.Table.from_batches([batch]).select(schema.names).cast(schema)
            buffered = pa.concat_tables([buffered, batch])
            while len(buffered) >= ROW_GROUP:
                writer.write_table(buffered.slice(0, ROW_GROUP).combine_chunks(), row_group_size=ROW_GROUP)
                buffered = buffered.slice(ROW_GROUP)
        writer.write_table(buffered.combine_chunks(), row_group_size=ROW_GROUP)
