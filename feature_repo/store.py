"""A feature store in a folder: feature_store.yaml, registry.db, online.db, and sources/ where it has its own.

Such a folder may be copied or moved whole: what lies inside is named relative to it.
"""

from __future__ import annotations

import contextlib
import io
import os
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from feature_repo import backends
from feature_repo.definitions import VIEWS, definitions
from feature_repo.sources import Tables
from rankline.errors import SourceError
from rankline.features import watermark
from rankline.io.files import write_json
from rankline.io.storage import FeatureStoreConfig

WATERMARK = watermark.FILE
SOURCES = "sources"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

QUOTE = "'"  # doubled inside of an SQL string


def apply(
    folder: Path,
    *,
    project: str,
    sources: Path,
    online: Path | None = None,
    stores: FeatureStoreConfig | None = None,
) -> None:
    """Lay a store out in ``folder`` and register every definition over ``sources`` (Parquet files).

    ``online`` is the SQLite file of the online store, online.db in the folder if left out. ``stores`` says what
    else Feast stands on; where that is Postgres, the files are copied into its tables first. Applying twice is
    applying once.

    Raises:
        StorageError: Postgres or its registry cannot be written; nothing else has changed.
    """
    stores = stores or FeatureStoreConfig()
    settings = {
        "project": project,
        "provider": "local",
        "registry": backends.registry(stores),
        "offline_store": backends.offline(stores),
        "online_store": backends.online(stores)
        or {"type": "sqlite", "path": str(online.resolve()) if online else "online.db"},
        "entity_key_serialization_version": 3,
    }
    is_inside = sources.resolve().is_relative_to(folder.resolve())
    source: Path | Tables = sources.resolve().relative_to(folder.resolve()) if is_inside else sources.resolve()
    if stores.offline == "postgres":
        source = Tables(project)
        backends.load_tables(stores, source, {view: sources / f"{view}.parquet" for view in VIEWS})
    with backends.translate_errors(stores):
        _write_store(folder, settings, source)


def _write_store(folder: Path, settings: dict[str, Any], sources: Path | Tables) -> None:
    """Write feature_store.yaml and register every definition.

    Feast writes a registry that is a file in place, and cannot read one whose writer was killed: it is made anew
    under a hidden name, so that whoever reads the store sees the old definitions or the new ones.
    """
    from feast import FeatureStore

    folder.mkdir(parents=True, exist_ok=True)
    registry = settings["registry"]
    is_file = isinstance(registry, str)
    partial_yaml, partial_registry = folder / ".feature_store.yaml", folder / ".registry.db"
    partial_registry.unlink(missing_ok=True)
    _write_settings(partial_yaml, {**settings, "registry": partial_registry.name if is_file else registry})
    with _suppress_warnings():
        FeatureStore(repo_path=str(folder), fs_yaml_file=partial_yaml).apply(definitions(sources))
    if is_file:
        _strip_timestamps(partial_registry)
        os.replace(partial_registry, folder / registry)
    _write_settings(partial_yaml, settings)
    os.replace(partial_yaml, folder / "feature_store.yaml")


def _write_settings(path: Path, settings: dict[str, Any]) -> None:
    content = yaml.safe_dump(settings, sort_keys=False)
    # the variable's value is put in before the file is parsed: unquoted, a password of digits would be a number
    path.write_text(content.replace(" ${PGPASSWORD}", " '${PGPASSWORD}'"))


# What Feast writes down of when and as which revision a definition was applied.
_TIMESTAMP_FIELDS = ("created_timestamp", "last_updated_timestamp", "last_updated", "version_id", "project_uuid")


def _strip_timestamps(registry: Path) -> None:
    """Make a registry say only what is defined, so that the same definitions are the same bytes.

    An artifact's digest decides whether the steps after it run again: it must not hang on the time of day.
    """
    from feast.protos.feast.core.Registry_pb2 import Registry

    content = Registry.FromString(registry.read_bytes())
    content.ClearField("feature_view_version_history")
    _strip_fields(content)
    registry.write_bytes(content.SerializeToString(deterministic=True))


def _strip_fields(message: Any) -> None:
    """Clear what `_CLOCK` names in a message and all it holds; order what has no order of its own."""
    for field, value in message.ListFields():
        if field.name in _TIMESTAMP_FIELDS:
            message.ClearField(field.name)
        elif field.message_type and field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type:
                for inner in value.values():
                    _strip_fields(inner)
        elif field.message_type:
            for inner in value if field.is_repeated else [value]:
                _strip_fields(inner)
    for field, value in message.ListFields():
        if field.name == "data_sources":
            value.sort(key=lambda source: source.name)


def open_store(folder: Path) -> Any:
    """Feast's FeatureStore over a folder that `apply` laid out; joins want `standing_in` around them.

    Raises:
        SourceError: no store was laid out there.
    """
    from feast import FeatureStore

    if not (folder / "feature_store.yaml").is_file():
        raise SourceError(
            "there is no feature store here",
            expected="feature_store.yaml and registry.db",
            found="no feature_store.yaml",
            where=str(folder),
            hint="run the flow: featurize and promote lay stores out",
        )
    return FeatureStore(repo_path=str(folder))


@contextlib.contextmanager
def _suppress_warnings() -> Iterator[None]:
    """Without the warnings that Feast and Ibis give on every call whatever one does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="On demand feature view is an experimental feature")
        warnings.filterwarnings("ignore", message="fetch_arrow_table")
        yield


@contextlib.contextmanager
def working_directory(folder: Path) -> Iterator[None]:
    """Stand in a store's folder while Feast reads sources: DuckDB finds relative ones from where it stands.

    What does not fit into memory goes to a passing folder and not into the store's.
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


def materialize(folder: Path, *, until: datetime, owner: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Bring the online store to what was known by ``until``, and say so in watermark.json, which it returns.

    Feast's own materialization puts rows online that were known only later, so it is given copies of the
    sources that hold each entity's last row among those known by then and not outlived. It replaces what is
    online for those entities, pushed rows too, and leaves the others as they are: a fresh start is a fresh
    folder. ``owner`` (who it was done for, and by which run) is written down beside the watermark.

    A store that is a SQLite file is written as a copy that takes its place at the end: who reads meanwhile waits
    for nothing and reads the old rows, and what a killed attempt left is in nobody's way.
    """
    if until.tzinfo is None:
        raise ValueError("a moment without a time zone is no moment")
    started_at = time.monotonic()
    store = open_store(folder)
    sqlite_file: Path | None = None
    rows: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="materialize-") as scratch:
        sources = Path(scratch) / SOURCES
        sources.mkdir()
        for view in (store.get_feature_view(name) for name in VIEWS):
            rows[view.name] = _copy_known(
                folder / view.batch_source.path,
                sources / f"{view.name}.parquet",
                key=view.join_keys[0],
                since=until - view.ttl if view.ttl else EPOCH,
                until=until,
            )
        online = yaml.safe_load((folder / "feature_store.yaml").read_text())["online_store"]
        if online["type"] == "sqlite":
            sqlite_file = (folder / online["path"]).resolve()
            online["path"] = str(_copy_sqlite(sqlite_file))
        settings = {
            "project": store.project,
            "provider": "local",
            "registry": "registry.db",
            "offline_store": {"type": "duckdb"},
            "online_store": online,
            "entity_key_serialization_version": 3,
        }
        _write_store(Path(scratch), settings, Path(SOURCES))
        scratch_store = open_store(Path(scratch))
        with working_directory(Path(scratch)), contextlib.redirect_stdout(io.StringIO()):
            if nonempty_views := [name for name in VIEWS if rows[name]]:
                scratch_store.materialize(EPOCH, until, feature_views=nonempty_views)
        if sqlite_file is not None:
            os.replace(online["path"], sqlite_file)
    new_watermark = {
        "until": until.astimezone(UTC).isoformat(),
        "project": store.project,
        "entities": rows,
        "owner": dict(owner or {}),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "took_s": round(time.monotonic() - started_at, 2),
    }
    watermark.write_shared(store, new_watermark)
    write_json(folder / WATERMARK, new_watermark)
    return new_watermark


def _copy_sqlite(sqlite_file: Path) -> Path:
    """A copy of a SQLite file beside it, under a hidden name, whatever an earlier attempt left there."""
    copy = sqlite_file.with_name(f".{sqlite_file.name}")
    for name in (copy.name, f"{copy.name}-journal"):
        (copy.parent / name).unlink(missing_ok=True)
    if sqlite_file.exists():
        with contextlib.closing(sqlite3.connect(sqlite_file)) as old, contextlib.closing(sqlite3.connect(copy)) as new:
            old.backup(new)
    return copy


def definition_changes(folder: Path) -> list[str]:
    """What would change for whoever reads the store in ``folder`` if the definitions of this code were applied.

    Empty where nothing would, and where no store lies there yet.
    """
    if not (folder / "feature_store.yaml").is_file():
        return []
    from google.protobuf.message import DecodeError

    try:
        current = _describe_definitions(open_store(folder))
    except DecodeError:  # a registry that nobody can read is made anew
        return []
    with tempfile.TemporaryDirectory(prefix="definitions-") as scratch:
        settings = {
            "project": "rankline",
            "provider": "local",
            "registry": "registry.db",
            "offline_store": {"type": "duckdb"},
            "online_store": {"type": "sqlite", "path": "online.db"},
            "entity_key_serialization_version": 3,
        }
        _write_store(Path(scratch), settings, Path(SOURCES))
        proposed = _describe_definitions(open_store(Path(scratch)))
    changes = [f"{name} is gone" for name in sorted(current.keys() - proposed.keys())]
    changes += [f"{name} is new" for name in sorted(proposed.keys() - current.keys())]
    both = sorted(proposed.keys() & current.keys())
    return changes + [
        f"{name}: {current[name]} -> {proposed[name]}" for name in both if proposed[name] != current[name]
    ]


def _describe_definitions(store: Any) -> dict[str, str]:
    """Everything that a reader of a store can ask for, and what it is."""
    described = {}
    for view in store.list_feature_views():
        days = view.ttl.total_seconds() / 86_400 if view.ttl else 0
        described[view.name] = f"by {', '.join(view.join_keys)}, for {days:g} days"
        described |= {f"{view.name}:{feature.name}": str(feature.dtype) for feature in view.features}
    for service in store.list_feature_services():
        names = (f"{each.name}:{one.name}" for each in service.feature_view_projections for one in each.features)
        described[f"service {service.name}"] = ", ".join(sorted(names))
    return described


def _copy_known(source: Path, target: Path, *, key: str, since: datetime, until: datetime) -> int:
    """Copy each entity's last row in [since, until] that was known by ``until``; the number of rows."""
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
            ) TO '{str(target).replace(QUOTE, 2 * QUOTE)}' (FORMAT parquet, COMPRESSION zstd)
            """,
            {"source": str(source), "since": since, "until": until},
        ).fetchone()
    return int(row[0]) if row else 0
