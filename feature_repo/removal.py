"""Rows that leave an online store: of entities that the sources no longer hold, past a lifetime, or of erased users."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

_BATCH = 1000  # keys per round trip


def entity_key(join_key: str, value: str) -> bytes:
    """An entity as Feast's online stores name it."""
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    key = EntityKey(join_keys=[join_key], entity_values=[Value(string_val=value)])
    return bytes(serialize_entity_key(key, entity_key_serialization_version=3))


# -- what the sources no longer hold ---------------------------------------------------------------------------


def clear_sqlite(sqlite_file: Path, store: Any, *, until: datetime) -> None:
    """Remove the rows of a SQLite store up to ``until``, which the sources' rows then replace.

    What is left are later rows: events that were pushed and that no source holds yet.
    """
    from feast.utils import to_naive_utc

    with _sqlite(sqlite_file) as db:
        for table in _sqlite_tables(db, store):
            db.execute(f'DELETE FROM "{table}" WHERE event_ts <= ?', [to_naive_utc(until)])


def remove_stale_from_redis(store: Any, sources: Path, *, until: datetime) -> None:
    """Remove the rows of a Redis store up to ``until`` whose entities are not in ``sources``, one file per view."""
    views: dict[str, list[Any]] = {}
    for view in _views(store):
        views.setdefault(view.join_keys[0], []).append(view)
    client = _redis_client(store)
    for join_key, of_entity in views.items():
        current = {view.name: _keys_in(sources / f"{view.name}.parquet", join_key) for view in of_entity}
        keys = list(_redis_keys(client, store.project, join_key))
        for start in range(0, len(keys), _BATCH):
            part = keys[start : start + _BATCH]
            _remove_stale_fields(client, store.project, of_entity, current, part, until=until)


def _remove_stale_fields(
    client: Any,
    project: str,
    views: list[Any],
    current: Mapping[str, Collection[bytes]],
    keys: list[bytes],
    *,
    until: datetime,
) -> None:
    times = [f"_ts:{view.name}" for view in views]
    with client.pipeline(transaction=False) as reads:
        for key in keys:
            reads.hmget(key, times)
        stamps = reads.execute()
    with client.pipeline(transaction=False) as removals:
        for key, of_key in zip(keys, stamps):
            entity = key[: -len(project)]
            for view, stamp in zip(views, of_key):
                if stamp is not None and entity not in current[view.name] and _seconds(stamp) <= until.timestamp():
                    removals.hdel(key, *_redis_fields(view))
        removals.execute()


def _keys_in(source: Path, join_key: str) -> set[bytes]:
    """The entities of a view's source, as the online store names them."""
    import pyarrow.parquet as parquet

    ids = parquet.read_table(source, columns=[join_key])[join_key]
    return {entity_key(join_key, each) for each in ids.to_pylist()}


# -- erased users ----------------------------------------------------------------------------------------------


def erase_users(store: Any, folder: Path, ids: Collection[str], *, dry_run: bool = False) -> set[str]:
    """Remove the rows of users from the online store of ``folder``; returns the users who had rows."""
    online = store.config.online_store
    keys = {each: entity_key("user_id", each) for each in ids}
    if online.type == "redis":
        client = _redis_client(store)
        verb = client.exists if dry_run else client.delete
        return {each for each, key in keys.items() if verb(key + store.project.encode())}
    path = folder / online.path
    if not path.is_file():
        return set()
    with _sqlite(path, read_only=dry_run) as db:
        tables = _sqlite_tables(db, store)
        return {each for each, key in keys.items() if _erase_from_sqlite(db, tables, key, dry_run=dry_run)}


def _erase_from_sqlite(db: sqlite3.Connection, tables: Collection[str], key: bytes, *, dry_run: bool) -> bool:
    held = [table for table in tables if db.execute(f'SELECT 1 FROM "{table}" WHERE entity_key = ?', [key]).fetchone()]
    for table in [] if dry_run else held:
        db.execute(f'DELETE FROM "{table}" WHERE entity_key = ?', [key])
    return bool(held)


# -- Feast's layout --------------------------------------------------------------------------------------------


def _views(store: Any) -> list[Any]:
    return list(store.list_batch_feature_views())


@contextlib.contextmanager
def _sqlite(path: Path, *, read_only: bool = False) -> Iterator[sqlite3.Connection]:
    """A SQLite file, whose removed rows do not stay in its free pages."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        yield db
        if not read_only:
            db.commit()
            db.execute("VACUUM")


def _sqlite_tables(db: sqlite3.Connection, store: Any) -> list[str]:
    """The tables of the store's views; an older store may lack some."""
    existing = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return sorted(existing & {f"{store.project}_{view.name}" for view in _views(store)})


def _redis_client(store: Any) -> Any:
    return store._get_provider().online_store._get_client(store.config.online_store)


def _redis_keys(client: Any, project: str, join_key: str) -> Iterator[bytes]:
    """The keys of a project's entities; those of a project with a longer name that ends the same are not among them."""
    from feast.infra.key_encoding_utils import deserialize_entity_key, serialize_entity_key, serialize_entity_key_prefix

    suffix = project.encode()
    for key in client.scan_iter(serialize_entity_key_prefix([join_key]) + b"*" + suffix, count=_BATCH):
        entity = key[: -len(suffix)]
        with contextlib.suppress(ValueError, UnicodeDecodeError):
            parsed = deserialize_entity_key(entity, entity_key_serialization_version=3)
            if serialize_entity_key(parsed, entity_key_serialization_version=3) == entity:
                yield key


def _redis_fields(view: Any) -> list[bytes]:
    """The fields of a view's row in the hash of an entity."""
    from feast.infra.online_stores.helpers import _mmh3

    return [f"_ts:{view.name}".encode(), *(_mmh3(f"{view.name}:{feature.name}") for feature in view.features)]


def _seconds(stamp: bytes) -> float:
    from google.protobuf.timestamp_pb2 import Timestamp

    time = Timestamp()
    time.ParseFromString(stamp)
    return float(time.seconds + time.nanos / 1e9)
