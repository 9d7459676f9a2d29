"""Feast on Postgres (offline store, registry) and Redis (online store).

No password is written to disk: feature_store.yaml names an environment variable, which Feast resolves on reading.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from feature_repo.sources import Tables
from rankline.errors import StorageError
from rankline.io.storage import FeatureStoreConfig

_CONNECT_S = 10
_REDIS_S = 5  # after which a store that accepts a command and answers nothing is taken to be away
_REDIS_LIMITS = ("socket_timeout", "socket_connect_timeout")
_BATCH = 50_000  # rows of a Parquet file in memory at once


def offline(stores: FeatureStoreConfig) -> dict[str, Any]:
    """Feast's `offline_store`."""
    if stores.offline == "duckdb":
        return {"type": "duckdb"}
    user, host, port, database = _parse_address(stores.postgres)
    return {
        "type": "postgres",
        "host": host,
        "port": port,
        "database": database,
        "user": user,
        "password": "${PGPASSWORD}",
        "sslmode": stores.postgres_sslmode,
    }


def registry(stores: FeatureStoreConfig) -> str | dict[str, Any]:
    """Feast's `registry`; waits for locks up to ``stores.lock_timeout_s``."""
    if stores.registry == "file":
        return "registry.db"
    user, host, port, database = _parse_address(stores.postgres)
    return {
        "registry_type": "sql",
        "path": f"postgresql+psycopg://{user}@{host}:{port}/{database}",  # libpq itself reads PGPASSWORD
        "cache_ttl_seconds": 60,
        "sqlalchemy_config_kwargs": {"pool_pre_ping": True, "connect_args": _connection_settings(stores)},
    }


def online(stores: FeatureStoreConfig) -> dict[str, Any] | None:
    """Feast's `online_store`; None for the SQLite file."""
    if stores.online == "sqlite":
        return None
    secret = ",password=${REDIS_PASSWORD}" if os.environ.get("REDIS_PASSWORD") else ""
    # rows replace existing ones with the same timestamp, as in SQLite; by default Feast would keep the old one
    limits = "".join(f",{name}={_REDIS_S}" for name in _REDIS_LIMITS if f"{name}=" not in stores.redis)
    return {"type": "redis", "connection_string": f"{stores.redis}{limits}{secret}", "skip_dedup": True}


def load_tables(stores: FeatureStoreConfig, tables: Tables, files: Mapping[str, Path]) -> None:
    """Copy Parquet files into tables, in one transaction.

    A project's name contains the digest of its data, so existing tables already have these rows.

    Raises:
        StorageError: Postgres is unreachable or refuses; no table was created.
    """
    import pyarrow.parquet as parquet
    from psycopg import sql

    with translate_errors(stores), connect(stores) as connection, connection.cursor() as cursor:
        # of two that load the same project, the second waits and then finds the tables
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [tables.project])
        for view, path in files.items():
            name = sql.Identifier(tables.table_name(view))
            cursor.execute("SELECT to_regclass(%s)", [tables.table_name(view)])
            if (cursor.fetchone() or [None])[0] is not None:
                continue
            parquet_file = parquet.ParquetFile(path)
            columns = {field.name: _postgres_type(field.type) for field in parquet_file.schema_arrow}
            column_definitions = sql.SQL(", ").join(
                sql.SQL(f"{{}} {kind}").format(sql.Identifier(c)) for c, kind in columns.items()
            )
            cursor.execute(sql.SQL("CREATE TABLE {} ({})").format(name, column_definitions))
            with cursor.copy(sql.SQL("COPY {} FROM STDIN").format(name)) as copy:
                for batch in parquet_file.iter_batches(_BATCH):
                    for row in zip(*(column.to_pylist() for column in batch.columns)):
                        copy.write_row(row)
            key = next(iter(columns))
            cursor.execute(sql.SQL("CREATE INDEX ON {} ({}, event_timestamp)").format(name, sql.Identifier(key)))
            cursor.execute(sql.SQL("ANALYZE {}").format(name))


def connect(stores: FeatureStoreConfig) -> Any:
    """A connection; its `with` block commits unless it raises."""
    import psycopg

    user, host, port, database = _parse_address(stores.postgres)
    return psycopg.connect(host=host, port=port, user=user, dbname=database, **_connection_settings(stores))


def _connection_settings(stores: FeatureStoreConfig) -> dict[str, Any]:
    return {
        "options": f"-clock_timeout={int(stores.lock_timeout_s * 1000)}",
        "connect_timeout": _CONNECT_S,
        "sslmode": stores.postgres_sslmode,
    }


@contextlib.contextmanager
def translate_errors(stores: FeatureStoreConfig) -> Iterator[None]:
    """Turn the errors of Postgres and Redis into a StorageError."""
    import sqlalchemy.exc

    error_types: tuple[type[Exception], ...] = (sqlalchemy.exc.DBAPIError,)
    with contextlib.suppress(ImportError):
        import psycopg

        error_types += (psycopg.Error,)
    with contextlib.suppress(ImportError):
        import redis

        error_types += (redis.RedisError,)
    try:
        yield
    except error_types as error:
        cause = getattr(error, "orig", None) or error
        message = " ".join(str(cause).split())[:300]
        locked = "lock timeout" in message or type(cause).__name__ == "LockNotAvailable"
        details = {
            "found": f"{type(cause).__name__}: {message}",
            "where": stores.redis if "redis" in type(cause).__module__ else stores.postgres,
        }
        if locked:
            raise StorageError(
                "the feature registry is locked",
                expected=f"the lock to be released within {stores.lock_timeout_s:g} s",
                hint="run again when the other apply is done, or increase storage.features.lock_timeout_s",
                **details,
            ) from error
        raise StorageError(
            "a feature store failed",
            expected="Postgres and Redis to answer and to accept writes",
            hint="check that the server is up and that PGPASSWORD or REDIS_PASSWORD is right, and run again",
            **details,
        ) from error


def _parse_address(postgres: str) -> tuple[str, str, int, str]:
    """Split user@host:port/database."""
    user, _, rest = postgres.partition("@")
    address, _, database = rest.partition("/")
    host, _, port = address.partition(":")
    return user, host, int(port or 5432), database


def _postgres_type(arrow: Any) -> str:
    """The Postgres type for an Arrow type of a feature source."""
    import pyarrow as pa

    if pa.types.is_list(arrow):
        return f"{_postgres_type(arrow.value_type)}[]"
    if pa.types.is_timestamp(arrow):
        return "timestamptz"
    if pa.types.is_float32(arrow):
        return "real"
    if pa.types.is_floating(arrow):
        return "double precision"
    if pa.types.is_integer(arrow):
        return "bigint"
    if pa.types.is_boolean(arrow):
        return "boolean"
    return "text"
