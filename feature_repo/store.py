"""Feature stores in a folder: feature_store.yaml, registry.db, online.db, and optionally their sources/.

Paths inside the folder are relative, so it can be copied or moved.
"""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from feature_repo import backends
from feature_repo.definitions import definitions, view_names
from feature_repo.profile import read_declared
from feature_repo.registry_file import strip_timestamps
from feature_repo.sources import Tables
from rankline.errors import SourceError
from rankline.features.profile import ProfileFields
from rankline.io.files import replacing
from rankline.io.storage import FeatureStoreConfig

SETTINGS, REGISTRY, SOURCES = "feature_store.yaml", "registry.db", "sources"


def apply(
    folder: Path,
    *,
    project: str,
    sources: Path,
    online: Path | None = None,
    stores: FeatureStoreConfig | None = None,
) -> None:
    """Create or update a store in ``folder`` with every definition, over ``sources`` (Parquet files).

    ``online`` is the SQLite file of the online store, by default online.db in the folder. With ``stores`` on Postgres
    the files are first copied into tables.

    Raises:
        StorageError: Postgres or its registry cannot be written; the store is unchanged.
    """
    stores = stores or FeatureStoreConfig()
    settings = store_settings(
        project,
        registry=backends.registry(stores),
        offline=backends.offline(stores),
        online=backends.online(stores) or sqlite_settings(online.resolve() if online else Path("online.db")),
    )
    is_inside = sources.resolve().is_relative_to(folder.resolve())
    fields = read_declared(sources)
    source: Path | Tables = sources.resolve().relative_to(folder.resolve()) if is_inside else sources.resolve()
    if stores.offline == "postgres":
        source = Tables(project)
        backends.load_tables(stores, source, {view: sources / f"{view}.parquet" for view in view_names(fields)})
    with backends.translate_errors(stores):
        write_store(folder, settings, source, fields)


def sqlite_settings(path: Path) -> dict[str, Any]:
    """Feast's `online_store` for a SQLite file."""
    return {"type": "sqlite", "path": str(path)}


def store_settings(
    project: str,
    *,
    online: Mapping[str, Any],
    registry: str | Mapping[str, Any] = REGISTRY,
    offline: Mapping[str, Any] = {"type": "duckdb"},
) -> dict[str, Any]:
    """The content of feature_store.yaml."""
    return {
        "project": project,
        "provider": "local",
        "registry": registry,
        "offline_store": offline,
        "online_store": online,
        "entity_key_serialization_version": 3,
    }


def write_store(folder: Path, settings: Mapping[str, Any], sources: Path | Tables, fields: ProfileFields) -> None:
    """Write feature_store.yaml and register every definition, with the declared ``fields`` of users and of requests.

    Feast writes a registry file in place and cannot read a half-written one. It is therefore written under a hidden
    name, so that a reader sees either the old or the new definitions.
    """
    from feast import FeatureStore

    registry = settings["registry"]
    with replacing(folder / SETTINGS) as partial_yaml:
        with replacing(folder / registry) if isinstance(registry, str) else contextlib.nullcontext() as partial:
            _write_settings(partial_yaml, {**settings, "registry": partial.name if partial else registry})
            with _suppress_warnings():
                FeatureStore(repo_path=str(folder), fs_yaml_file=partial_yaml).apply(definitions(sources, fields))
            if partial:
                strip_timestamps(partial)
        _write_settings(partial_yaml, settings)


def _write_settings(path: Path, settings: Mapping[str, Any]) -> None:
    content = yaml.safe_dump(dict(settings), sort_keys=False)
    # Feast inserts the variable before it parses the file: unquoted, a password of digits would be a number
    path.write_text(content.replace(" ${PGPASSWORD}", " '${PGPASSWORD}'"))


def open_store(folder: Path) -> Any:
    """Feast's FeatureStore in a folder; point-in-time joins need `working_directory` around them.

    Raises:
        SourceError: the folder has no store.
    """
    from feast import FeatureStore

    if not (folder / SETTINGS).is_file():
        raise SourceError(
            "there is no feature store here",
            expected=f"{SETTINGS} and {REGISTRY}",
            found=f"no {SETTINGS}",
            where=str(folder),
            hint="run the pipeline: featurize and promote write feature stores",
        )
    return FeatureStore(repo_path=str(folder))


@contextlib.contextmanager
def working_directory(folder: Path) -> Iterator[None]:
    """Change into a store's folder while Feast reads sources, because DuckDB resolves relative paths from there.

    DuckDB spills to a temporary folder, not into the store.
    """
    import duckdb
    import ibis

    with tempfile.TemporaryDirectory(prefix="feast-") as spill, contextlib.chdir(folder), _suppress_warnings():
        connection = duckdb.connect(config={"temp_directory": spill})
        ibis.set_backend(ibis.duckdb.from_connection(connection))
        try:
            yield
        finally:
            ibis.options.default_backend = None
            connection.close()


@contextlib.contextmanager
def _suppress_warnings() -> Iterator[None]:
    """Hide warnings that Feast and Ibis emit on every call."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="On demand feature view is an experimental feature")
        warnings.filterwarnings("ignore", message="fetch_arrow_table")
        yield
