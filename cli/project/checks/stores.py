"""The stores: the model repository, Feast's registry and online store, MLflow, and what else a recipe names."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cli.project.checks import Check, CheckContext, Finding
from cli.project.checks.repository import repository

TIMEOUT_S = 5.0  # for a server that may not be there
SERVERS = {
    "postgresql": "Postgres", "postgres": "Postgres", "redis": "Redis", "rediss": "Redis", "s3": "bucket",
    "gs": "bucket", "gcs": "bucket", "abfs": "bucket", "az": "bucket", "http": "server", "https": "server",
}  # fmt: skip
SCHEMELESS = {"storage.features.postgres": "postgresql", "storage.features.redis": "redis"}


def feast(context: CheckContext) -> Iterator[Finding]:
    """Each online store: the registry can be read, holds the champion's service, and every view answers."""
    folders = sorted(path.parent for path in context.workspace.glob("online/*/feature_store.yaml"))
    if not folders:
        yield Finding("feature store", "ok", "none yet; the first promotion makes it")
        return
    from rankline.runtime.lazy_imports import import_feast

    library = import_feast()
    for folder in folders:
        name = f"features {folder.name}"
        try:
            store = library.FeatureStore(repo_path=str(folder))
            services = {service.name for service in store.list_feature_services()}
        except Exception as error:  # protobuf, SQL and Feast each have their own
            hint = f"rm -r {folder}, then run the recipe again: promotion lays it out anew"
            yield Finding(name, "fail", f"the registry cannot be read: {_first_line(error)}", hint)
            continue
        if folder.name not in services:
            hint = "run the recipe again: promotion applies the definitions"
            yield Finding(name, "fail", f"the registry has no service {folder.name}", hint)
            continue
        try:
            views = _probe_views(store)
        except Exception as error:
            hint = f"start its server, or rm -r {folder} and run the recipe again; until then defaults are served"
            yield Finding(name, "fail", f"the online store does not answer: {_first_line(error)}", hint)
            continue
        watermark = {}
        with contextlib.suppress(OSError, ValueError):
            watermark = json.loads((folder / "watermark.json").read_text())
        if until := watermark.get("until"):
            yield Finding(name, "ok", f"{views} views answer; what was known by {until}")
        else:
            hint = "run the recipe again: promotion fills it"
            yield Finding(name, "warn", f"{views} views answer, and nobody has filled them", hint)


def _probe_views(store: Any) -> int:
    """Ask every view's online table for one entity (that need not exist); how many there are."""
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


def mlflow(context: CheckContext) -> Iterator[Finding]:
    """The tracking database or server answers."""
    path = context.workspace.resolve() / "mlflow.db"
    uri = context.recipe.promote.tracking_uri or f"sqlite:///{path}"
    is_local = not context.recipe.promote.tracking_uri
    if is_local and not path.is_file():
        yield Finding("MLflow", "ok", "none yet; the first promotion makes it")
        return
    environment = {
        "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(int(TIMEOUT_S)),
    }  # fmt: skip
    for variable, value in environment.items():  # read when it is imported
        os.environ.setdefault(variable, value)
    try:
        if is_local:  # a damaged file would first be migrated for a minute
            with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
                db.execute("SELECT count(*) FROM alembic_version").fetchone()
        from mlflow import MlflowClient

        with warnings.catch_warnings():  # its import lifts the filters that were there
            warnings.simplefilter("ignore")
            versions = MlflowClient(tracking_uri=uri, registry_uri=uri).search_model_versions(max_results=1000)
        yield Finding("MLflow", "ok", f"{redacted(uri)} answers: {len(versions)} model versions")
    except Exception as error:
        hint = (
            f"mv {path} {path}.damaged: the next promotion begins a new one"
            if is_local
            else "start it, or mend its address"
        )
        message = f"{redacted(uri)} does not answer: {_first_line(error)}"
        yield Finding("MLflow", "warn", message, f"{hint}; promotions go on without it")


def servers(context: CheckContext) -> Iterator[Finding]:
    """Every Postgres, Redis, bucket and server that a setting of the recipe names."""
    from pipelines.recipe import as_dict

    seen = set()
    for setting, value in _addresses(as_dict(context.recipe)):
        kind = SERVERS[_scheme(value)]
        if value in seen or setting in ("promote.tracking_uri", "storage.repository"):  # asked above, by what uses them
            continue
        seen.add(value)
        try:
            status = {"Postgres": _postgres, "Redis": _redis, "bucket": _bucket, "server": _http}[kind](value)
            yield Finding(setting, "ok", f"{kind} {redacted(value)}: {status}")
        except ImportError as error:
            hint = f"pip install -c constraints.lock {error.name or 'its driver'}"
            yield Finding(setting, "fail", f"{kind} {redacted(value)}: no driver ({_first_line(error)})", hint)
        except Exception as error:  # every driver has its own
            hint = f"start it, or change --set {setting}=…; check its credentials, too"
            yield Finding(setting, "fail", f"{kind} {redacted(value)} does not answer: {_first_line(error)}", hint)


def _addresses(value: Any, setting: str = "") -> Iterator[tuple[str, str]]:
    """(dotted knob, address) of every text in the settings that is one of a server we know."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _addresses(each, f"{setting}.{name}".strip("."))
    elif isinstance(value, list):
        for each in value:
            yield from _addresses(each, setting)
    elif isinstance(value, str) and _scheme(value) in SERVERS:
        yield setting, value
    elif value and setting in SCHEMELESS:  # Feast's own stores are named without a scheme
        yield setting, f"{SCHEMELESS[setting]}://{str(value).split(',')[0]}"


def _scheme(address: str) -> str:
    """`postgresql` of `postgresql+psycopg://…`; empty for what is no address."""
    match = re.match(r"([a-z0-9]+)(\+[a-z0-9]+)?://", address)
    return match[1] if match else ""


def redacted(address: str) -> str:
    """An address without its password."""
    return re.sub(r"://([^/@:]*):[^/@]*@", r"://\1:…@", address)


def _postgres(address: str) -> str:
    import psycopg

    plain = re.sub(r"^[a-z]+(\+[a-z0-9]+)?://", "postgresql://", address)
    with psycopg.connect(plain, connect_timeout=int(TIMEOUT_S)) as connection:
        (version,) = connection.execute("SHOW server_version").fetchone()
    return f"version {version}"


def _redis(address: str) -> str:
    import redis

    password = os.environ.get("REDIS_PASSWORD")
    client = redis.Redis.from_url(
        address, password=password, socket_connect_timeout=TIMEOUT_S, socket_timeout=TIMEOUT_S
    )
    client.ping()
    return f"version {client.info('server')['redis_version']}"


def _bucket(address: str) -> str:
    from rankline.io import storage

    fs, root = storage.open_filesystem(address)
    probe = f"{root.rstrip('/')}/.rankline-doctor-{uuid.uuid4().hex}"
    fs.pipe_file(probe, b"x")
    fs.rm_file(probe)
    return "readable and writable"


def _http(address: str) -> str:
    import httpx

    response = httpx.get(address, timeout=TIMEOUT_S, follow_redirects=True)
    if response.status_code >= 500:
        raise OSError(f"status {response.status_code}")
    return f"status {response.status_code}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return redacted(f"{type(error).__name__}: {lines[0] if lines else ''}"[:200])


CHECKS: tuple[Check, ...] = (repository, feast, mlflow, servers)
