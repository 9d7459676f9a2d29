"""Where features come from: Feast's online store, through one small interface with two ways in.

``FeastLibrary`` reads the store in this process (importing Feast takes seconds and 345 MB), ``FeastServer``
asks Feast's own feature server beside it. Neither retries nor hides an error: serving/features.py does.
"""

from __future__ import annotations

import contextlib
import json
import threading
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from rankline.contracts import History
from rankline.errors import ServerError
from rankline.features import transforms, watermark

HISTORY_SERVICE = "history_v1"

# Items looked up in one read: a read holds the store, and users' look-ups wait behind it.
_ITEMS_PER_READ = 200

Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class UserState:
    """What the store knows of a user."""

    known: bool = False
    history: History = field(default_factory=History)
    seen: Sequence[str] = ()
    user_features: Mapping[str, float] = field(default_factory=dict)
    affinity: Mapping[str, float] = field(default_factory=dict)


class FeatureSource(ABC):
    """Feast's online store, however it is reached. Methods raise whatever the store raises."""

    @abstractmethod
    def open(self) -> None:
        """Connect; cheap when nothing changed since the last time."""

    @abstractmethod
    def read(self, service: str, entities: Mapping[str, list[Any]]) -> Columns:
        """The features that these entities suffice for: one list a feature, None where unknown."""

    def changed(self) -> bool:
        """Whether the store is another one, or was written, since it was opened; cheap, where it can be told at all."""
        return False

    def watermark(self) -> float | None:
        """Unix seconds up to which the store knows everything, where that is told."""
        return None

    def user_state(self, user_id: str, at: float) -> UserState:
        """What is known of a user; of the history, what lies before ``at`` (unix seconds)."""
        row = {
            name: values[0]
            for service in (transforms.SERVICE, HISTORY_SERVICE)
            for name, values in self.read(service, {"user_id": [user_id]}).items()
        }
        wanted = (*transforms.USER, "affinity_categories", "history_items")
        items, times = row.get("history_items") or [], row.get("history_times") or []
        ratings = row.get("history_ratings") or []
        past = sum(1 for time in times if time < at)
        return UserState(
            known=any(row.get(name) is not None for name in wanted),
            history=History(item_ids=items[:past], times=times[:past], ratings=ratings[:past]),
            seen=row.get("seen_items") or [],
            user_features={name: row.get(name) or 0.0 for name in transforms.USER},
            affinity=dict(zip(row.get("affinity_categories") or [], row.get("affinity_shares") or [])),
        )

    def item_features(self, item_ids: Sequence[str]) -> Columns:
        """Columns (item_id, and a float32 array a feature) of the items that the store knows."""
        ids: list[str] = []
        parts: list[np.ndarray[Any, Any]] = []
        for start in range(0, len(item_ids), _ITEMS_PER_READ):
            batch = list(item_ids[start : start + _ITEMS_PER_READ])
            values = self.read(transforms.SERVICE, {"item_id": batch})
            values_FN = np.array([values[name] for name in transforms.ITEM], np.float32)
            known_N = np.logical_not(np.isnan(values_FN).all(axis=0))
            ids += [item for item, known in zip(batch, known_N.tolist()) if known]
            parts.append(np.nan_to_num(values_FN[:, known_N]))
        if not ids:
            return {}
        joined_FN = np.concatenate(parts, 1)
        columns: dict[str, Any] = {name: joined_FN[f] for f, name in enumerate(transforms.ITEM)}
        return {"item_id": ids, **columns}


class FeastLibrary(FeatureSource):
    """The store of a folder (feature_store.yaml, registry.db, online.db), read in this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._store: Any = None
        self._opened_versions: object = None
        self._references: dict[tuple[str, frozenset[str]], list[str]] = {}
        self._lock = threading.Lock()  # one SQLite connection, many request threads

    def open(self) -> None:
        """Import Feast and open the store; again whenever promotion has replaced or refreshed it.

        Raises:
            ServerError: no store lies there.
        """
        if not (self._folder / "feature_store.yaml").is_file():
            raise ServerError("there is no feature store", found="no feature_store.yaml", where=str(self._folder))
        now = self._file_versions()
        if now == self._opened_versions:
            return
        from rankline.runtime.lazy_imports import import_feast

        store = import_feast().FeatureStore(repo_path=str(self._folder))
        with self._lock:
            self._store, self._opened_versions, self._references = store, now, {}

    def changed(self) -> bool:
        """Whether promotion or a materialization has been here."""
        return self._file_versions() != self._opened_versions

    def _file_versions(self) -> list[tuple[int, int]]:
        versions = []
        for name in ("feature_store.yaml", "registry.db", watermark.FILE):  # the last of them is written last
            with contextlib.suppress(FileNotFoundError):
                stat = (self._folder / name).stat()
                versions.append((stat.st_ino, stat.st_mtime_ns))
        return versions

    def read(self, service: str, entities: Mapping[str, list[Any]]) -> Columns:
        """The features of a service whose views need no other entities than these."""
        with self._lock:
            key = (service, frozenset(entities))
            if key not in self._references:
                self._references[key] = self._feature_references(service, key[1])
            found = self._store.get_online_features(self._references[key], dict(entities)).to_dict()
        return {name: values for name, values in found.items() if name not in entities}

    def _feature_references(self, service: str, keys: frozenset[str]) -> list[str]:
        """References of a service's stored features; those computed on demand are ours to compute."""
        views = {view.name: view for view in self._store.list_feature_views()}
        return [
            f"{projection.name}:{feature.name}"
            for projection in self._store.get_feature_service(service).feature_view_projections
            if projection.name in views and keys.issuperset(views[projection.name].join_keys)
            for feature in projection.features
        ]

    def watermark(self) -> float | None:
        """What the store says, or watermark.json beside it."""
        with self._lock:
            content = watermark.read_shared(self._store) if self._store is not None else None
        try:
            content = content or json.loads((self._folder / watermark.FILE).read_text())
            return datetime.fromisoformat(content["until"]).timestamp()
        except (OSError, ValueError, KeyError):
            return None


class FeastServer(FeatureSource):
    """Feast's own feature server (`feast serve`), asked over HTTP."""

    # The server answers whole services only: what a look-up does not name is filled in and not read.
    _PLACEHOLDERS: Mapping[str, Any] = {
        "user_id": "",
        "item_id": "",
        "request_time": 0.0,
        "last_event_time": 0.0,
        "history_length": 0.0,
    }

    def __init__(self, url: str, *, timeout_s: float = 2.0) -> None:
        self._url, self._timeout_s = url.rstrip("/"), timeout_s

    def open(self) -> None:
        """See that it is there."""
        with urllib.request.urlopen(f"{self._url}/health", timeout=self._timeout_s):
            pass

    def read(self, service: str, entities: Mapping[str, list[Any]]) -> Columns:
        """The features of a service; None for those of entities that were not named."""
        count = len(next(iter(entities.values())))
        placeholders = {} if service == HISTORY_SERVICE else self._PLACEHOLDERS
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
