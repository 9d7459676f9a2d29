"""Which rows are rejected, and why: the tables bad_<table>, the views good_<table>, and `rejected`."""

from typing import Any

from components.ingest.config import Columns, IngestConfig, stored_name
from components.ingest.staging import TABLES, column_names
from rankline.contracts import SUPERSEDED
from rankline.errors import SourceError
from rankline.io.sql import fetch_row, identifier, literal
from rankline.labels import IMPRESSION

KEYS = {"items": "item_id", "users": "user_id", "queries": "query_id", "events": "NULL::VARCHAR"}


def mark_rejected(db: Any, config: IngestConfig, columns: Columns) -> None:
    """Create bad_<table> (row, reason), the views good_<table>, and the view `rejected` of all bad rows."""
    for table in ("items", "users", "queries"):
        _reject_rows(db, table, config, columns)
    _reject_events(db, config, columns)
    # a user with events but no profile is a user with empty attributes
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


def _reject_rows(db: Any, table: str, config: IngestConfig, columns: Columns) -> None:
    """Reject rows that cannot be read, have no id, or repeat one.

    The first of them counts, of changes the last, of versions the newest.
    """
    key = KEYS[table]
    vector_checks = _vector_checks(db, columns) if table == "items" else ""
    order = "row DESC" if config.changes else "row"
    if has_versions := table == "items" and bool(columns.valid_from):
        last = "(SELECT epoch(max(event_timestamp)) FROM events WHERE reject_reason IS NULL)"
        is_later = f"coalesce(holds_from > {last}, false)"
        order = f"{is_later}, CASE WHEN {is_later} THEN holds_from ELSE -holds_from END, row DESC"
    duplicate_reason = SUPERSEDED if config.changes or has_versions else f"duplicate {_singular(table)}"
    db.execute(
        f"""
        CREATE TABLE bad_{table} AS SELECT * FROM (
            SELECT row, CASE
                WHEN reject_reason IS NOT NULL THEN reject_reason
                WHEN {key} IS NULL THEN 'missing key'
                {vector_checks}
                WHEN row_number() OVER (PARTITION BY reject_reason IS NULL, {key} ORDER BY {order}) > 1
                    THEN {literal(duplicate_reason)}
            END AS reason FROM {table}
        ) WHERE reason IS NOT NULL;
        CREATE VIEW good_{table} AS SELECT * FROM {table} WHERE row NOT IN (SELECT row FROM bad_{table})
        """
    )


def _reject_events(db: Any, config: IngestConfig, columns: Columns) -> None:
    """Reject events that cannot be read, name nothing or unknown items or queries, or repeat an event."""
    event_key = ["user_id", "query_id", "item_id", "event_timestamp"]
    # a click and a purchase at the same time are two events, and so is an item shown by two requests
    labels = {*columns.event_types.values(), *config.effective_labels()} - {"", IMPRESSION}
    labels |= {"request_id"} if columns.request_id else set()
    event_key += sorted(map(identifier, labels & column_names(db, "events")))
    db.execute(
        f"""
        CREATE TABLE bad_events AS
        WITH checked AS (
            SELECT row, {", ".join(event_key)}, CASE
                WHEN reject_reason IS NOT NULL THEN reject_reason
                WHEN user_id IS NULL AND query_id IS NULL OR item_id IS NULL THEN 'missing key'
                WHEN item_id NOT IN (SELECT item_id FROM good_items) THEN 'unknown item'
                WHEN query_id IS NOT NULL AND query_id NOT IN (SELECT query_id FROM good_queries) THEN 'unknown query'
            END AS fault FROM events
        )
        SELECT row, reason FROM (
            SELECT row, CASE
                WHEN fault IS NOT NULL THEN fault
                WHEN row_number() OVER (PARTITION BY fault IS NULL, {", ".join(event_key)} ORDER BY row) > 1
                    THEN 'duplicate event'
            END AS reason FROM checked
        ) WHERE reason IS NOT NULL;
        CREATE VIEW good_events AS SELECT * FROM events WHERE row NOT IN (SELECT row FROM bad_events)
        """
    )


def _vector_checks(db: Any, columns: Columns) -> str:
    """SQL cases that reject items whose vector is not as long as most."""
    checks = []
    for name in map(stored_name, columns.item_vectors):
        if name in column_names(db, "items"):
            longest = db.execute(
                f"SELECT len({identifier(name)}) AS size FROM items WHERE size IS NOT NULL AND reject_reason IS NULL "
                "GROUP BY size ORDER BY count(*) DESC, size DESC LIMIT 1"
            ).fetchall()
            if not longest and fetch_row(db, "SELECT bool_or(reject_reason IS NULL) FROM items")[0]:
                raise SourceError(
                    f"no vector of {name} has numbers",
                    expected="lists of numbers, all of one length",
                    found="only empty vectors",
                    where="ingest.columns.item_vectors",
                    hint="name another column, or none",
                )
            for (size,) in longest:
                reason = literal(f"{name} has not {size} numbers, as most have")
                checks.append(f"WHEN len({identifier(name)}) <> {size} THEN {reason}")
    return " ".join(checks)


def _singular(table: str) -> str:
    return "query" if table == "queries" else table[:-1]


def rejected_counts(db: Any) -> dict[str, dict[str, int]]:
    """Table -> reason -> rejected rows."""
    counts: dict[str, dict[str, int]] = {table: {} for table in TABLES}
    query = 'SELECT "table", reason, count(*) FROM rejected GROUP BY ALL ORDER BY ALL'
    for table, reason, count in db.execute(query).fetchall():
        counts[table][reason] = count
    return counts
