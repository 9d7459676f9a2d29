"""The stores: the model registry, Feast's registry and online stores, MLflow, and the servers a recipe names."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cli.project.checks.mlflow import mlflow
from cli.project.checks.model import TIMEOUT_S, Check, CheckContext, Finding, error_line, redacted
from cli.project.checks.model_registry import creates_exclusively, repository
from rankline.io.files import read_json_object

SERVERS = {
    "postgresql": "Postgres", "postgres": "Postgres", "redis": "Redis", "rediss": "Redis", "s3": "bucket",
    "gs": "bucket", "gcs": "bucket", "abfs": "bucket", "az": "bucket", "http": "server", "https": "server",
}  # fmt: skip
SCHEMELESS = {"storage.features.postgres": "postgresql", "storage.features.redis": "redis"}


def feast(context: CheckContext) -> Iterator[Finding]:
    """Each online store has a readable registry with its service, and every view answers."""
    folders = sorted(path.parent for path in context.workspace.glob("online/*/feature_store.yaml"))
    if not folders:
        yield Finding("feature store", "ok", "none yet; the first promotion creates it")
        return
    from rankline.runtime.lazy_imports import import_feast

    library = import_feast()
    for folder in folders:
        yield _feature_store(library, folder)


def _feature_store(library: Any, folder: Path) -> Finding:
    name = f"features {folder.name}"
    try:
        store = library.FeatureStore(repo_path=str(folder), config=_config_without_changes(folder))
        services = {service.name for service in store.list_feature_services()}
    except Exception as error:  # protobuf, SQL and Feast each have their own errors
        hint = f"rm -r {folder}, then run the recipe again: promotion creates it again"
        return Finding(name, "fail", f"the registry cannot be read: {error_line(error)}", hint)
    if folder.name not in services:
        hint = "run the recipe again: promotion applies the definitions"
        return Finding(name, "fail", f"the registry has no service {folder.name}", hint)
    try:
        views = _probe_views(store)
    except Exception as error:
        hint = f"start its server, or rm -r {folder} and run the recipe again; until then defaults are served"
        return Finding(name, "fail", f"the online store does not answer: {error_line(error)}", hint)
    if until := read_json_object(folder / "watermark.json").get("until"):
        return Finding(name, "ok", f"{views} views answer; materialized up to {until}")
    hint = "run the recipe again: promotion fills it"
    return Finding(name, "warn", f"{views} views answer, but they were never filled", hint)


def _config_without_changes(folder: Path) -> Any:
    """A store's settings, with which Feast creates neither missing tables nor the row of a missing project.

    Raises:
        FileNotFoundError: the registry is a file that is missing, which Feast would create.
    """
    from feast.repo_config import load_repo_config

    config = load_repo_config(folder, folder / "feature_store.yaml")
    if config.registry.registry_type == "file" and not (folder / config.registry.path).is_file():
        raise FileNotFoundError(f"there is no {config.registry.path}")
    if config.registry.registry_type == "sql":
        config.registry.schema_mode, config.registry.purge_feast_metadata = "verify", True
    return config


def _probe_views(store: Any) -> int:
    """Look up one entity, which need not exist, in every view; returns the number of views."""
    views = [view for view in store.list_feature_views() if view.features]
    for view in views:
        if store.config.online_store.type == "sqlite":
            path = Path(store.repo_path) / store.config.online_store.path
            with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
                (status,) = db.execute("PRAGMA quick_check(1)").fetchone()
                if status != "ok":
                    raise OSError(status)
        entity = {key: "?" for key in view.join_keys}
        store.get_online_features(features=[f"{view.name}:{view.features[0].name}"], entity_rows=[entity]).to_dict()
    return len(views)


def servers(context: CheckContext) -> Iterator[Finding]:
    """Every Postgres, Redis, bucket and server that the recipe's settings name answers."""
    from pipelines.recipe import as_dict

    checked: set[tuple[str, Any]] = set()
    for setting, value in _addresses(as_dict(context.recipe)):
        kind = SERVERS[_scheme(value)]
        bucket = BUCKETS.get(setting, _readable_bucket)
        has_own_check = setting in ("promote.tracking_uri", "storage.repository")
        if not value or has_own_check or (value, bucket) in checked:  # one bucket may be read here and written there
            continue
        checked.add((value, bucket))
        try:
            status = {"Postgres": _postgres, "Redis": _redis, "bucket": bucket, "server": _http}[kind](value)
            yield Finding(setting, "ok", f"{kind} {redacted(value)}: {status}")
        except _Unconditional as error:
            hint = "use a store with conditional writes (If-None-Match); here two runs at once could spoil each other's"
            yield Finding(setting, "fail", f"{kind} {redacted(value)}: {error}", hint)
        except ImportError as error:
            hint = f"pip install -c constraints.lock {error.name or 'its driver'}"
            yield Finding(setting, "fail", f"{kind} {redacted(value)}: no driver ({error_line(error)})", hint)
        except Exception as error:  # every driver has its own errors
            hint = f"start it, check its credentials, or change --set {setting}=…"
            message = f"{kind} {redacted(value)} does not answer here: {error_line(error)}"
            yield Finding(setting, context.unreachable, message, hint)


def _addresses(value: Any, setting: str = "") -> Iterator[tuple[str, str]]:
    """(dotted setting, address) of every setting whose value is the address of a server."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _addresses(each, f"{setting}.{name}".strip("."))
    elif isinstance(value, list):
        for each in value:
            yield from _addresses(each, setting)
    elif isinstance(value, str) and _scheme(value) in SERVERS:
        yield setting, value
    elif value and setting in SCHEMELESS:  # the addresses of Feast's own stores have no scheme
        yield setting, f"{SCHEMELESS[setting]}://{str(value).split(',')[0]}"


def _scheme(address: str) -> str:
    """`postgresql` of `postgresql+psycopg://…`; empty for other texts."""
    match = re.match(r"([a-z0-9]+)(\+[a-z0-9]+)?://", address)
    return match[1] if match else ""


def _postgres(address: str) -> str:
    import psycopg

    plain = re.sub(r"^[a-z]+(\+[a-z0-9]+)?://", "postgresql://", address)
    with psycopg.connect(plain, connect_timeout=int(TIMEOUT_S)) as connection:
        row = connection.execute("SHOW server_version").fetchone()
    return f"version {row[0] if row else 'unknown'}"


def _redis(address: str) -> str:
    import redis

    password = os.environ.get("REDIS_PASSWORD")
    client = redis.Redis.from_url(
        address, password=password, socket_connect_timeout=TIMEOUT_S, socket_timeout=TIMEOUT_S
    )
    client.ping()
    info: Any = client.info("server")
    return f"version {info['redis_version']}"


class _Unconditional(Exception):
    """A store that does not heed the condition of a write."""


def _shared_bucket(address: str) -> str:
    """A place that several runs write to: it has to accept only the first of two writes of the same file."""
    fs, probe = _probe(address)
    if not creates_exclusively(fs, probe):
        raise _Unconditional("a second write replaces an existing file instead of failing")
    return "writable, each file once"


def _written_bucket(address: str) -> str:
    fs, probe = _probe(address)
    fs.pipe_file(probe, b"x")
    fs.rm_file(probe)
    return "writable"


def _probe(address: str) -> tuple[Any, str]:
    """The file system of a URL, and a file that nobody has there."""
    from rankline.io import storage

    fs, root = storage.open_filesystem(address)
    return fs, f"{root.rstrip('/')}/.rankline-doctor-{uuid.uuid4().hex}"


def _readable_bucket(address: str) -> str:
    """A place that runs only read, such as the source: nothing is written there."""
    from rankline.io import storage

    fs, root = storage.open_filesystem(address)
    fs.ls(root.partition("*")[0].rpartition("/")[0] if "*" in root else root)
    return "readable"


# what is done to a bucket, by the setting that names it; storage.repository has a check of its own
BUCKETS = dict.fromkeys(("storage.workspace", "storage.artifacts", "storage.checkpoints"), _shared_bucket)
BUCKETS["promote.artifact_location"] = _written_bucket


def _http(address: str) -> str:
    import httpx

    response = httpx.get(address, timeout=TIMEOUT_S, follow_redirects=True)
    if response.status_code >= 500:
        raise OSError(f"status {response.status_code}")
    return f"status {response.status_code}"


CHECKS: tuple[Check, ...] = (repository, feast, mlflow, servers)
