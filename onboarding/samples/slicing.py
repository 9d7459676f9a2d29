"""A slice of a source: some of its users (or queries) with all that is theirs, for a first run that takes minutes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from components.ingest.config import IngestConfig
from components.ingest.step import ingest
from rankline.contracts import EVENTS, ITEMS, LABELS, QUERIES, SPLIT, USERS
from rankline.errors import TooSmall

MAP_FILE = "map.toml"


def write_slice(config: IngestConfig, folder: Path, *, users: int) -> dict[str, tuple[int, int]]:
    """Write a slice of a source as Parquet files, and the map that reads them; returns table -> (rows, of how many).

    Which users are taken is told by a hash of their names: the same source gives the same slice. Only items that
    they had to do with come along, so scores on a slice are higher than on the whole.

    Raises:
        SourceError: the source cannot be read.
        TooSmall: no event is left.
    """
    import duckdb

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        raw = Path(work) / "raw"
        ingest(raw, config=config)
        db = duckdb.connect(f"{work}/slice.duckdb")
        db.execute("SET memory_limit = '1GB'")
        db.execute("SET TimeZone = 'UTC'")
        for table in ("events", "items", "users", "queries"):
            db.execute(f"CREATE VIEW {table} AS SELECT * FROM '{raw / table}.parquet'")
        ((has_users,),) = db.execute("SELECT count(user_id) > 0 FROM events").fetchall()
        key = "user_id" if has_users else "query_id"
        db.execute(
            f"CREATE TABLE chosen AS SELECT {key} FROM (SELECT DISTINCT {key} FROM events WHERE {key} IS NOT NULL) "
            f"ORDER BY md5({key}) LIMIT {users}"
        )
        db.execute(f"CREATE VIEW kept_events AS SELECT * FROM events WHERE {key} IN (SELECT {key} FROM chosen)")
        for table, column in (("items", "item_id"), ("users", "user_id"), ("queries", "query_id")):
            ids_sql = f"SELECT {column} FROM kept_events"
            db.execute(f"CREATE VIEW kept_{table} AS SELECT * FROM {table} WHERE {column} IN ({ids_sql})")
        counts, columns = {}, {}
        for table in ("events", "items", "users", "queries"):
            ((rows,),) = db.execute(f"SELECT count(*) FROM kept_{table}").fetchall()
            ((total,),) = db.execute(f"SELECT count(*) FROM {table}").fetchall()
            if rows:
                counts[table] = (int(rows), int(total))
                columns[table] = {name: kind for name, kind, *_ in db.execute(f"DESCRIBE {table}").fetchall()}
                order = {"events": "event_timestamp, event_id"}.get(table, "1")
                path = f"{folder / table}.parquet"
                db.execute(f"COPY (SELECT * FROM kept_{table} ORDER BY {order}) TO '{path}' (COMPRESSION zstd)")
        db.close()
    if "events" not in counts:
        raise TooSmall("the slice holds no event", expected="at least one", found="none", where=str(folder),
                       hint="take more users")  # fmt: skip
    (folder / MAP_FILE).write_text(_map_toml(columns, users=key == "user_id"), encoding="utf-8")
    return counts


def _map_toml(columns: dict[str, dict[str, str]], *, users: bool) -> str:
    """The map of tables that have the canonical columns already."""
    import tomli_w

    settings: dict[str, Any] = {
        "user_id": "user_id" if users else "", "item_id": "item_id", "timestamp": "event_timestamp",
        "known_at": "known_at", "labels": {}, "query_id": "query_id" if "queries" in columns else "",
    }  # fmt: skip
    settings["labels"] = {label: label for label in LABELS if label in columns["events"]}
    if SPLIT in columns["events"]:
        settings["split"] = SPLIT
    if "queries" in columns:
        settings |= {"query_text": "text", "turns": "turns"}
    settings |= {"title": "title", "text": ["text"], "created_at": "created_at"}
    settings |= {name: name for name in ("category", "language", "price", "available")}
    canonical = {"events": EVENTS, "items": ITEMS, "users": USERS, "queries": QUERIES}
    for table, subject in (("items", "item"), ("users", "user"), ("events", "event")):
        for name, kind in columns.get(table, {}).items():
            if name in (*canonical[table].names, *LABELS, SPLIT, "release_year"):
                continue
            suffix = "numbers" if kind in ("DOUBLE", "FLOAT", "BIGINT") else "vectors" if "[]" in kind else "attributes"
            if f"{subject}_{suffix}" != "user_vectors":
                settings.setdefault(f"{subject}_{suffix}", []).append(name)
    return tomli_w.dumps(
        {"format": "tables", "tables": {table: f"{table}.parquet" for table in columns}, "columns": settings}
    )
