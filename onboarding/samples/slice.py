"""A slice of a source: some of its users (or queries) with all their events, for a first run that takes minutes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from components.ingest.config import EVENT_TYPE, IngestConfig
from components.ingest.step import ingest
from onboarding.tables import canonical_tables
from rankline.contracts import EVENTS, ITEMS, LABELS, QUERIES, SPLIT, USERS
from rankline.errors import TooSmall
from rankline.io.sql import fetch_row, literal
from rankline.labels import FEEDBACK

MAP_FILE = "map.toml"
TABLES = ("events", "items", "users", "queries")
ADDED_COLUMNS = (SPLIT, "release_year", EVENT_TYPE, FEEDBACK, "request_id", "position")  # that ingest writes


def write_slice(config: IngestConfig, folder: Path, *, users: int) -> dict[str, tuple[int, int]]:
    """Write a slice of a source as Parquet files with the map that reads them; returns table -> (rows, of how many).

    A hash of the user ids chooses the users, so the same source gives the same slice. Only items they interacted with
    are included, so scores on a slice are higher than on the whole source.

    Raises:
        SourceError: the source cannot be read.
        TooSmall: no event is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counts, columns = {}, {}
    with tempfile.TemporaryDirectory(dir=folder) as work:
        ingest(Path(work), config=config)
        with canonical_tables(Path(work)) as db:
            key = _create_slice_views(db, users)
            for table in TABLES:
                rows, total = fetch_row(
                    db, f"SELECT (SELECT count(*) FROM slice_{table}), (SELECT count(*) FROM {table})"
                )
                if not rows:
                    continue
                counts[table] = (int(rows), int(total))
                columns[table] = {name: kind for name, kind, *_ in db.execute(f"DESCRIBE {table}").fetchall()}
                order = "event_timestamp, event_id" if table == "events" else "1"
                path = literal(f"{folder / table}.parquet")
                db.execute(f"COPY (SELECT * FROM slice_{table} ORDER BY {order}) TO {path} (COMPRESSION zstd)")
    if "events" not in counts:
        raise TooSmall(
            "the slice holds no event", expected="at least one", found="none", where=str(folder), hint="take more users"
        )
    (folder / MAP_FILE).write_text(_map_toml(columns, config, users=key == "user_id"), encoding="utf-8")
    return counts


def _create_slice_views(db: Any, users: int) -> str:
    """Create a view slice_TABLE per canonical table; returns the column whose values are sliced by."""
    (has_users,) = fetch_row(db, "SELECT count(user_id) > 0 FROM events")
    key = "user_id" if has_users else "query_id"
    db.execute(
        f"CREATE TABLE chosen AS SELECT {key} FROM (SELECT DISTINCT {key} FROM events WHERE {key} IS NOT NULL) "
        f"ORDER BY md5({key}) LIMIT {users}"
    )
    db.execute(f"CREATE VIEW slice_events AS SELECT * FROM events WHERE {key} IN (SELECT {key} FROM chosen)")
    for table, column in (("items", "item_id"), ("users", "user_id"), ("queries", "query_id")):
        db.execute(
            f"CREATE VIEW slice_{table} AS SELECT * FROM {table} WHERE {column} IN (SELECT {column} FROM slice_events)"
        )
    return key


def _map_toml(columns: dict[str, dict[str, str]], config: IngestConfig, *, users: bool) -> str:
    """The map of tables that have the canonical columns already."""
    import tomli_w

    settings: dict[str, Any] = {
        "user_id": "user_id" if users else "", "item_id": "item_id", "timestamp": "event_timestamp",
        "known_at": "known_at", "labels": {}, "query_id": "query_id" if "queries" in columns else "",
    }  # fmt: skip
    labels = list(config.labels) or LABELS
    settings["labels"] = {label: label for label in labels if label in columns["events"]}
    settings |= {name: name for name in ("request_id", "position") if name in columns["events"]}
    if SPLIT in columns["events"]:
        settings["split"] = SPLIT
    if "queries" in columns:
        settings |= {"query_text": "text", "turns": "turns"}
    settings |= {"title": "title", "text": ["text"], "created_at": "created_at"}
    settings |= {name: name for name in ("category", "language", "price", "available")}
    canonical = {"events": EVENTS, "items": ITEMS, "users": USERS, "queries": QUERIES}
    for table, subject in (("items", "item"), ("users", "user"), ("events", "event")):
        for name, kind in columns.get(table, {}).items():
            if name in (*canonical[table].names, *labels, *ADDED_COLUMNS):
                continue
            suffix = "numbers" if kind in ("DOUBLE", "FLOAT", "BIGINT") else "vectors" if "[]" in kind else "attributes"
            if f"{subject}_{suffix}" != "user_vectors":
                settings.setdefault(f"{subject}_{suffix}", []).append(name)
    sections = {"tables": {table: f"{table}.parquet" for table in columns}, "columns": settings}
    declared = {name: label.model_dump(mode="json", exclude_none=True) for name, label in config.labels.items()}
    return tomli_w.dumps({"format": "tables", **sections, **({"labels": declared} if declared else {})})
