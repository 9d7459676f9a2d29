"""Materialization: bringing the online store up to a point in time."""

from __future__ import annotations

import contextlib
import io
import sqlite3
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from feature_repo import removal
from feature_repo.definitions import VIEWS, view_names
from feature_repo.profile import read_declared
from feature_repo.store import SETTINGS, SOURCES, open_store, store_settings, working_directory, write_store
from rankline.features import watermark
from rankline.io.files import read_json_object, replacing, write_json
from rankline.io.sql import literal

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def materialize(
    folder: Path,
    *,
    until: datetime,
    owner: Mapping[str, Any] | None = None,
    hash_users: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Bring the online store to what was known by ``until``; write and return the watermark.

    Feast's own materialization also writes rows that became known only later. It is therefore given copies of the
    sources with each entity's last row known by then and not older than the view's TTL. Those rows replace what is
    online, pushed rows included. Entities that the sources do not hold, or whose rows are older, leave the store; rows
    that were pushed for a later time stay. The watermark records ``owner`` (on whose behalf, by which run) and
    ``hash_users``, the variable and the fingerprint of the key that hashed the ids of users.

    A SQLite online store is written as a copy that replaces it at the end: readers do not wait and see the old rows
    until then.
    """
    if until.tzinfo is None:
        raise ValueError("`until` needs a time zone")
    started_at = time.monotonic()
    store = open_store(folder)
    stale_until = max(until, _previous_until(store, folder))
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="materialize-"))
        fields = read_declared((folder / store.get_feature_view(VIEWS[0]).batch_source.path).parent)
        views = view_names(fields)
        rows = _copy_sources(store, folder, Path(scratch) / SOURCES, views, until=until)
        online = yaml.safe_load((folder / SETTINGS).read_text())["online_store"]
        if online["type"] == "sqlite":
            sqlite_file = (folder / online["path"]).resolve()
            partial = stack.enter_context(replacing(sqlite_file))
            _copy_sqlite(sqlite_file, partial)
            removal.clear_sqlite(partial, store, until=stale_until)
            online["path"] = str(partial)
        write_store(Path(scratch), store_settings(store.project, online=online), Path(SOURCES), fields)
        scratch_store = open_store(Path(scratch))
        with working_directory(Path(scratch)), contextlib.redirect_stdout(io.StringIO()):
            if nonempty_views := [name for name in views if rows[name]]:
                scratch_store.materialize(EPOCH, until, feature_views=nonempty_views)
        if online["type"] == "redis":
            removal.remove_stale_from_redis(store, Path(scratch) / SOURCES, until=stale_until)
    new_watermark = {
        "until": until.astimezone(UTC).isoformat(),
        "project": store.project,
        "entities": rows,
        "owner": dict(owner or {}),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "took_s": round(time.monotonic() - started_at, 2),
    }
    new_watermark |= {"hash_users": dict(hash_users)} if hash_users else {}
    watermark.write_shared(store, new_watermark)
    write_json(folder / watermark.FILE, new_watermark)
    return new_watermark


def _previous_until(store: Any, folder: Path) -> datetime:
    """How far the store has been complete; rows up to then came from sources."""
    previous = watermark.read_shared(store) or read_json_object(folder / watermark.FILE)
    try:
        return datetime.fromisoformat(previous["until"]).astimezone(UTC)
    except (KeyError, TypeError, ValueError):
        return EPOCH


def _copy_sources(store: Any, folder: Path, sources: Path, views: list[str], *, until: datetime) -> dict[str, int]:
    """Copy what was known by ``until`` of the sources of these views; view -> number of rows."""
    sources.mkdir()
    rows = {}
    for view in (store.get_feature_view(name) for name in views):
        rows[view.name] = _copy_known(
            folder / view.batch_source.path,
            sources / f"{view.name}.parquet",
            key=view.join_keys[0],
            since=until - view.ttl if view.ttl else EPOCH,
            until=until,
        )
    return rows


def _copy_known(source: Path, target: Path, *, key: str, since: datetime, until: datetime) -> int:
    """Copy each entity's last row in [since, until] that was known by ``until``; return the number of rows."""
    import duckdb

    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        row = db.execute(
            f"""
            COPY (
                SELECT * FROM read_parquet($source)
                WHERE known_at <= $until AND event_timestamp BETWEEN $since AND $until
                QUALIFY row_number() OVER (
                    PARTITION BY {key} ORDER BY event_timestamp DESC, known_at DESC) = 1
                ORDER BY {key}
            ) TO {literal(str(target))} (FORMAT parquet, COMPRESSION zstd)
            """,
            {"source": str(source), "since": since, "until": until},
        ).fetchone()
    return int(row[0]) if row else 0


def _copy_sqlite(sqlite_file: Path, copy: Path) -> None:
    """Copy a SQLite file, if there is one."""
    if sqlite_file.exists():
        with contextlib.closing(sqlite3.connect(sqlite_file)) as old, contextlib.closing(sqlite3.connect(copy)) as new:
            old.backup(new)
