"""Reads Feast's online store, in this process or through Feast's feature server.

``StoreFolder`` reads it in this process: a SQLite store directly (serving/features/sqlite_store.py), every other one
through Feast's library, whose import takes seconds and 345 MB. ``FeastBucket`` does so with a copy of a store in a
bucket. ``FeastServer`` asks a feature server over HTTP. None of them retries or hides an error:
serving/features/lookup.py does.
"""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
import threading
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from rankline.contracts import TIME_ZONE, History
from rankline.errors import ServerError, StorageError
from rankline.features import transforms, watermark
from rankline.features.profile import GIVEN, PROFILE, ProfileFields, given_values
from rankline.io.files import read_json_object
from rankline.runtime.bucket_workspace import BucketWorkspace
from serving.features.sqlite_store import Columns, StoreReader, open_sqlite

# Items per read: a read locks the store, and the lookups of users wait for it.
_ITEMS_PER_READ = 200
MAX_WAIT_S = 1.0  # of a request for the lookups before it


@dataclass(frozen=True)
class UserState:
    """A user's features and history in the store."""

    known: bool = False
    history: History = field(default_factory=History)
    seen: Sequence[str] = ()
    user_features: Mapping[str, float] = field(default_factory=dict)
    affinity: Mapping[str, float] = field(default_factory=dict)
    profile: Mapping[str, Any] = field(default_factory=dict)
    time_zone: str = ""


class FeatureSource(ABC):
    """Feast's online store. Methods raise whatever the store raises.

    ``fields`` are the declared fields of the feature service that it reads.
    """

    fields = ProfileFields()

    @property
    def is_local(self) -> bool:
        """Whether a lookup takes so little time that a batch can wait for it."""
        return False

    @property
    def service(self) -> str:
        """The feature service that is read."""
        return self.fields.service

    @abstractmethod
    def for_fields(self, fields: ProfileFields) -> FeatureSource:
        """The source of the feature service with these declared fields."""

    @abstractmethod
    def open(self) -> None:
        """Connect, or reconnect after a change."""

    @abstractmethod
    def read(self, service: str, entities: Mapping[str, list[Any]]) -> Columns:
        """Read the features that need only these entities: one list per feature, None where unknown."""

    def changed(self) -> bool:
        """Whether the store was replaced or written since it was opened; False if that is not known."""
        return False

    def watermark(self) -> float | None:
        """The store's watermark in unix seconds, if known."""
        return None

    def hash_users(self) -> Mapping[str, str]:
        """The variable and the fingerprint of the key that hashed the ids of users; empty for plain ids."""
        return {}

    def user_state(self, user_id: str, at: float) -> UserState:
        """Read a user's features, and the history before ``at`` (unix seconds)."""
        row = {
            name: values[0]
            for service in (self.service, transforms.HISTORY_SERVICE)
            for name, values in self.read(service, {"user_id": [user_id]}).items()
        }
        wanted = (*transforms.USER, "affinity_categories", "history_items")
        items, times = row.get("history_items") or [], row.get("history_times") or []
        ratings = row.get("history_ratings") or []
        past = sum(1 for time in times if time < at)
        profile = given_values(row, PROFILE)
        time_zone = profile.pop(TIME_ZONE, "") if self.fields.time_zone else ""
        return UserState(
            known=any(row.get(name) is not None for name in wanted) or bool(profile),
            # not validated: the store's own values
            history=History.model_construct(item_ids=items[:past], times=times[:past], ratings=ratings[:past]),
            seen=row.get("seen_items") or [],
            user_features={name: row.get(name) or 0.0 for name in transforms.USER},
            affinity=dict(zip(row.get("affinity_categories") or [], row.get("affinity_shares") or [])),
            profile=profile,
            time_zone=str(time_zone),
        )

    def item_features(self, item_ids: Sequence[str]) -> Columns:
        """Read columns (item_id, and a float32 array per feature) for the items that the store knows."""
        ids: list[str] = []
        parts: list[np.ndarray[Any, Any]] = []
        for start in range(0, len(item_ids), _ITEMS_PER_READ):
            batch = list(item_ids[start : start + _ITEMS_PER_READ])
            values = self.read(self.service, {"item_id": batch})
            values_FN = np.array([values[name] for name in transforms.ITEM], np.float32)
            known_N = np.logical_not(np.isnan(values_FN).all(axis=0))
            ids += [item for item, known in zip(batch, known_N.tolist()) if known]
            parts.append(np.nan_to_num(values_FN[:, known_N]))
        if not ids:
            return {}
        joined_FN = np.concatenate(parts, 1)
        columns: dict[str, Any] = {name: joined_FN[f] for f, name in enumerate(transforms.ITEM)}
        return {"item_id": ids, **columns}


class StoreFolder(FeatureSource):
    """A store in a folder (feature_store.yaml, registry.db, online.db), read in this process."""

    def __init__(self, folder: Path, fields: ProfileFields = ProfileFields()) -> None:  # noqa: B008 (frozen)
        self._folder, self.fields = folder, fields
        self._reader: StoreReader | None = None
        self._opened_versions: object = None
        self._lock = threading.Lock()  # one connection for all request threads

    def for_fields(self, fields: ProfileFields) -> FeatureSource:
        """The store beside this one, whose folder is named like its feature service."""
        return type(self)(self._folder.with_name(fields.service), fields)

    def open(self) -> None:
        """Open the store, or reopen it after promotion replaced or refreshed it.

        Raises:
            ServerError: the folder has no store.
        """
        if not (self._folder / "feature_store.yaml").is_file():
            raise ServerError(
                "there is no feature store",
                expected="feature_store.yaml",
                found="no such file",
                where=str(self._folder),
                hint="promotion writes the store; until then answers use default features",
            )
        now = self._file_versions()
        if now == self._opened_versions:
            return
        reader = self._open_reader()
        with self._lock:
            self._reader, self._opened_versions, old = reader, now, self._reader
        if old is not None:
            old.close()

    @property
    def is_local(self) -> bool:
        """Whether the store is a file, read directly."""
        return self._reader is not None and self._reader.is_local

    def _open_reader(self) -> StoreReader:
        return open_sqlite(self._folder, max_wait_s=MAX_WAIT_S) or FeastReader(self._folder)

    def changed(self) -> bool:
        """Whether promotion or materialization wrote the store since it was opened."""
        return self._file_versions() != self._opened_versions

    def _file_versions(self) -> list[tuple[int, int]]:
        versions = []
        for name in ("feature_store.yaml", "registry.db", watermark.FILE):  # the watermark is written last
            with contextlib.suppress(FileNotFoundError):
                stat = (self._folder / name).stat()
                versions.append((stat.st_ino, stat.st_mtime_ns))
        return versions

    def read(self, service: str, entities: Mapping[str, list[Any]]) -> Columns:
        """Read the features of a service whose views need only these entities.

        Raises:
            TimeoutError: the store is busy with another lookup for too long.
        """
        if not self._lock.acquire(timeout=MAX_WAIT_S):
            raise TimeoutError(f"the lookup before this one has not ended within {MAX_WAIT_S:g} s")
        try:
            assert self._reader is not None, "opened before it is read"
            return self._reader.read(service, entities)
        finally:
            self._lock.release()

    def watermark(self) -> float | None:
        """The watermark in the store, or in watermark.json next to it."""
        try:
            return datetime.fromisoformat(self._watermark_content()["until"]).timestamp()
        except (ValueError, KeyError):
            return None

    def hash_users(self) -> Mapping[str, str]:
        """The variable and the fingerprint of the key, as the watermark has them."""
        content: Mapping[str, str] = self._watermark_content().get("hash_users") or {}
        return content

    def _watermark_content(self) -> dict[str, Any]:
        with self._lock:
            content = self._reader.shared_watermark() if self._reader is not None else None
        return content or read_json_object(self._folder / watermark.FILE) or {}


class FeastReader:
    """Reads a store of any kind through Feast's library."""

    is_local = False

    def __init__(self, folder: Path) -> None:
        from rankline.runtime.lazy_imports import import_feast

        self._store: Any = import_feast().FeatureStore(repo_path=str(folder))
        self._references: dict[tuple[str, frozenset[str]], list[str]] = {}

    def read(self, service: str, entities: Mapping[str, list[Any]]) -> Columns:
        """Read the features of a service whose views need only these entities."""
        key = (service, frozenset(entities))
        if key not in self._references:
            self._references[key] = self._feature_references(service, key[1])
        columns = self._store.get_online_features(self._references[key], dict(entities)).to_dict()
        return {name: values for name, values in columns.items() if name not in entities}

    def _feature_references(self, service: str, keys: frozenset[str]) -> list[str]:
        """References of a service's stored features; on-demand features are computed by the engine."""
        views = {view.name: view for view in self._store.list_feature_views()}
        return [
            f"{projection.name}:{feature.name}"
            for projection in self._store.get_feature_service(service).feature_view_projections
            if projection.name in views and keys.issuperset(views[projection.name].join_keys)
            for feature in projection.features
        ]

    def shared_watermark(self) -> dict[str, Any] | None:
        """The watermark that a store of several machines holds itself."""
        return watermark.read_shared(self._store)

    def close(self) -> None:
        """Nothing: Feast's connections end with the store."""


class FeastLibrary(StoreFolder):
    """A store in a folder, always read through Feast's library."""

    def _open_reader(self) -> StoreReader:
        return FeastReader(self._folder)


class FeastBucket(StoreFolder):
    """A store in a bucket, read in this process from a copy that follows it."""

    _FILES = ("feature_store.yaml", "registry.db", "online.db", watermark.FILE)

    def __init__(self, url: str, fields: ProfileFields = ProfileFields(), *, poll_s: float = 2.0) -> None:  # noqa: B008
        self._scratch = tempfile.TemporaryDirectory(prefix="features-")
        super().__init__(Path(self._scratch.name), fields)
        self._url = url
        self._bucket, self._poll_s, self._polled_at = BucketWorkspace(url, self._folder), poll_s, -math.inf

    def for_fields(self, fields: ProfileFields) -> FeatureSource:
        """The store beside this one in the bucket."""
        return FeastBucket(f"{self._url.rstrip('/').rpartition('/')[0]}/{fields.service}", fields, poll_s=self._poll_s)

    def open(self) -> None:
        """Bring the copy up to date, and open it like a store in a folder.

        Raises:
            ServerError: the bucket has no store.
            StorageError: the bucket does not respond, and there is no copy yet.
        """
        self._follow()
        super().open()

    def changed(self) -> bool:
        """Whether the copy is another one than was opened, after bringing it up to date."""
        self._follow()
        return super().changed()

    def _follow(self) -> None:
        """Download what has changed; a bucket that does not respond leaves the copy as it is."""
        if time.monotonic() - self._polled_at < self._poll_s:
            return
        self._polled_at = time.monotonic()
        try:
            self._bucket.download("", suffixes=self._FILES)
        except (StorageError, OSError):
            if not (self._folder / "feature_store.yaml").is_file():
                raise


class FeastServer(FeatureSource):
    """Feast's feature server (`feast serve`), asked over HTTP."""

    # The server returns whole services only, so entities that a lookup does not need get placeholders.
    _PLACEHOLDERS: Mapping[str, Any] = {
        "user_id": "",
        "item_id": "",
        "request_time": 0.0,
        "last_event_time": 0.0,
        "history_length": 0.0,
    }

    def __init__(
        self,
        url: str,
        fields: ProfileFields = ProfileFields(),  # noqa: B008
        *,
        timeout_s: float = 2.0,
        hash_users: str = "",
    ) -> None:
        self._url, self.fields = url.rstrip("/"), fields
        self._timeout_s, self._hash_users = timeout_s, hash_users

    def for_fields(self, fields: ProfileFields) -> FeatureSource:
        """The same server, which has every feature service of its registry."""
        return FeastServer(self._url, fields, timeout_s=self._timeout_s, hash_users=self._hash_users)

    def _placeholders(self) -> dict[str, Any]:
        empty: dict[str, Any] = {"number": 0.0, "choices": []}
        given = {f"{GIVEN}{name}": empty.get(kind, "") for name, kind in self.fields.context.items()}
        return {**self._PLACEHOLDERS, **given, **({TIME_ZONE: ""} if self.fields.time_zone else {})}

    def open(self) -> None:
        """Check that the server answers."""
        with urllib.request.urlopen(f"{self._url}/health", timeout=self._timeout_s):
            pass

    def hash_users(self) -> Mapping[str, str]:
        """The variable of the settings, since a feature server does not know it."""
        return {"variable": self._hash_users} if self._hash_users else {}

    def read(self, service: str, entities: Mapping[str, list[Any]]) -> Columns:
        """Read the features of a service; those of placeholder entities are None."""
        count = len(next(iter(entities.values())))
        placeholders = {} if service == transforms.HISTORY_SERVICE else self._placeholders()
        rows = {name: [placeholder] * count for name, placeholder in placeholders.items()} | dict(entities)
        request = urllib.request.Request(
            f"{self._url}/get-online-features",
            data=json.dumps({"feature_service": service, "entities": rows}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=self._timeout_s) as response:
            body = json.load(response)
        names = body["metadata"]["feature_names"]
        columns = {name: result["values"] for name, result in zip(names, body["results"])}
        return {name: values for name, values in columns.items() if name not in rows}
