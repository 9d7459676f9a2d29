"""Reads a SQLite online store as Feast writes it, without Feast's library: the same values in a tenth of the time."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from rankline.errors import ServerError
from rankline.runtime.lazy_imports import import_feast_formats

Columns = dict[str, list[Any]]


class StoreReader(Protocol):
    """Reads an open online store; one lookup at a time."""

    is_local: bool

    def read(self, service: str, entities: Mapping[str, list[Any]]) -> Columns:
        """Read the features that need only these entities: one list per feature, None where unknown."""

    def shared_watermark(self) -> dict[str, Any] | None:
        """The watermark in the store itself; None for a store in a file."""

    def close(self) -> None:
        """Close connections."""


@dataclass(frozen=True)
class _View:
    """The stored features of a feature view that a service reads, and the entities that identify a row."""

    table: str
    keys: tuple[str, ...]
    features: list[str]


def open_sqlite(folder: Path, *, max_wait_s: float) -> SqliteReader | None:
    """A reader of the store in a folder; None if it is no SQLite store with the settings that Rankline writes."""
    text = (folder / "feature_store.yaml").read_text()
    settings = yaml.safe_load(text)
    if not isinstance(settings, dict) or "${" in text:  # a variable of the environment, which Feast replaces
        return None
    online, registry = settings.get("online_store"), settings.get("registry")
    if not isinstance(online, dict) or set(online) != {"type", "path"} or online["type"] != "sqlite":
        return None
    if not isinstance(registry, str) or "://" in registry or settings.get("entity_key_serialization_version", 3) != 3:
        return None
    return SqliteReader(folder / online["path"], folder / registry, project=settings["project"], max_wait_s=max_wait_s)


class SqliteReader:
    """A SQLite file of Feast's, with the definitions in Feast's registry file."""

    is_local = True

    def __init__(self, file: Path, registry: Path, *, project: str, max_wait_s: float) -> None:
        """Connect.

        Raises:
            ServerError: the store has no SQLite file.
        """
        self._formats = import_feast_formats()
        if not file.is_file():
            raise ServerError(
                "the feature store has no rows",
                expected="a SQLite file",
                found="no such file",
                where=str(file),
                hint="run `rankline features materialize`; until then answers use default features",
            )
        definitions = self._formats.registry.FromString(registry.read_bytes())
        keys = {view.spec.name: tuple(c.name for c in view.spec.entity_columns) for view in definitions.feature_views}
        self._services: dict[str, list[_View]] = {
            service.spec.name: [
                _View(
                    f"{project}_{part.feature_view_name}",
                    keys[part.feature_view_name],
                    [column.name for column in part.feature_columns],
                )
                for part in service.spec.features
                if part.feature_view_name in keys  # the engine computes on-demand features
            ]
            for service in definitions.feature_services
        }
        # the file is not created; one that is write-protected is opened all the same
        uri = f"{file.resolve().as_uri()}?mode=rw"
        self._database = sqlite3.connect(uri, uri=True, timeout=max_wait_s, check_same_thread=False)
        self._database.execute("PRAGMA query_only = ON")

    def read(self, service: str, entities: Mapping[str, list[Any]]) -> Columns:
        """Read the features of a service whose views need only these entities.

        Raises:
            KeyError: there is no such service.
            TimeoutError: somebody is writing for too long.
        """
        columns: Columns = {}
        keys: dict[tuple[str, ...], list[bytes]] = {}
        for view in self._services[service]:
            if not set(view.keys) <= set(entities):
                continue
            if view.keys not in keys:
                keys[view.keys] = [self._key(view.keys, row) for row in zip(*(entities[key] for key in view.keys))]
            rows = self._rows(view, keys[view.keys])
            columns |= {name: [row.get(name) for row in rows] for name in view.features}
        return columns

    def _rows(self, view: _View, wanted: list[bytes]) -> list[dict[str, Any]]:
        """Feature -> value for each entity, empty where it is unknown."""
        places = ", ".join("?" * len(wanted))
        query = f'SELECT entity_key, feature_name, value FROM "{view.table}" WHERE entity_key IN ({places})'
        try:
            stored = self._database.execute(query, wanted).fetchall()
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise TimeoutError("somebody is writing the feature store for too long") from error
            raise
        known: dict[bytes, dict[str, Any]] = {}
        for key, name, value in stored:
            known.setdefault(key, {})[name] = self._decode(value)
        return [known.get(key, {}) for key in wanted]

    def _key(self, names: tuple[str, ...], values: tuple[str, ...]) -> bytes:
        key = self._formats.entity_key(
            join_keys=names, entity_values=[self._formats.value(string_val=value) for value in values]
        )
        encoded: bytes = self._formats.encode_key(key, entity_key_serialization_version=3)
        return encoded

    def _decode(self, stored: bytes) -> Any:
        """The Python value of one feature."""
        value = self._formats.value.FromString(stored)
        kind = value.WhichOneof("val")
        if kind is None or kind == "null_val":
            return None
        content = getattr(value, kind)
        return list(content.val) if kind.endswith("_list_val") else content

    def shared_watermark(self) -> None:
        """None: a file is not shared, and its watermark lies beside it."""

    def close(self) -> None:
        """Close the file."""
        self._database.close()
