"""The places of a workspace: its folder, and the buckets and folders that its runs and schedules name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipelines.recipe import WORKSPACE_PLACEHOLDER
from pipelines.retention.inventory import is_run, list_folders
from pipelines.runs.folder import RECIPE
from pipelines.schedules.store import ScheduleStore
from rankline.contracts import replace_in_strings
from rankline.io import storage
from rankline.io.files import json_object, read_json_object, write_bytes
from rankline.io.storage import StorageConfig
from rankline.registry.removal import delete_atomically

# of a workspace; what is not one of these is a source
OURS = (
    "artifacts", "cache", "checkpoints", "erased", "fetched", "locks", "material", "mlruns", "mlflow.db",
    "notifications", "online", "profiles", "repository", "runs", "schedules",
)  # fmt: skip
_STEPS = ("cache", "checkpoints", "runs")  # whose folders have the summaries of steps


@dataclass(frozen=True)
class Place:
    """A folder or bucket; ``part`` is the part of a workspace that it stands for, empty for a whole one."""

    url: str
    part: str = ""

    @property
    def local(self) -> bool:
        """Whether it is a folder of this machine."""
        return storage.is_local(storage.open_filesystem(self.url)[0])

    def files(self) -> Iterator[str]:
        """The paths of all files below it, hidden ones too."""
        fs, root = storage.open_filesystem(self.url)
        fs.invalidate_cache()
        for path in sorted(fs.find(root)):
            yield str(path).removeprefix(root).lstrip("/")

    def in_workspace(self, file: str) -> str:
        """The path of a file as it would be in one workspace folder."""
        path = f"{self.part}/{file}" if self.part else file
        return f"cache/{path.removeprefix('artifacts/')}" if path.startswith("artifacts/") else path

    def read(self, file: str) -> bytes:
        """The content of a file; empty if it was removed meanwhile."""
        fs, root = storage.open_filesystem(self.url)
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            return bytes(fs.cat_file(f"{root}/{file}"))
        return b""

    def write(self, file: str, content: bytes) -> None:
        """Replace a file whole; other names of the old one keep their content."""
        fs, root = storage.open_filesystem(self.url)
        if storage.is_local(fs):
            path = Path(root) / file
            mode = path.stat().st_mode if path.exists() else None
            write_bytes(path, content)
            if mode is not None:
                path.chmod(mode & 0o777)
        else:
            fs.pipe_file(f"{root}/{file}", content)

    def remove(self, path: str) -> None:
        """Remove a file or a folder, if it is still there."""
        fs, root = storage.open_filesystem(self.url)
        if storage.is_local(fs):
            if (Path(root) / path).exists():
                delete_atomically(Path(root) / path)
            return
        with contextlib.suppress(FileNotFoundError):
            fs.rm(f"{root}/{path}", recursive=True)


@dataclass(frozen=True)
class Recorded:
    """What the runs and the schedules of a workspace say of its storages and of its users."""

    storages: tuple[StorageConfig, ...]
    ingests: tuple[dict[str, Any], ...]  # the settings of ingest
    keys: tuple[tuple[str, str, str], ...] = ()  # (variable, fingerprint, file) of what holds hashed ids


def recorded(workspace: Path) -> Recorded:
    """What the runs and schedules of a workspace recorded."""
    storages: list[StorageConfig] = []
    ingests: list[dict[str, Any]] = []
    for folder in list_folders(workspace / "runs", is_ours=is_run):
        recipe = replace_in_strings(read_json_object(folder / RECIPE), WORKSPACE_PLACEHOLDER, str(workspace))
        ingests.append(recipe.get("ingest") or {})
        with contextlib.suppress(ValidationError, TypeError):
            storages.append(StorageConfig(**(recipe.get("storage") or {})))
    schedules = ScheduleStore(workspace)
    for name in schedules.names():
        settings = dict(each.partition("=")[::2] for each in schedules.get(name).settings)
        named = {key.strip().removeprefix("storage."): value for key, value in settings.items()}
        with contextlib.suppress(ValidationError, TypeError):
            storages.append(StorageConfig(**{key: named[key] for key in StorageConfig.model_fields if key in named}))
    every = tuple(dict.fromkeys(storages))
    return Recorded(every, tuple(ingests), tuple(_keys(workspace, every)))


def _keys(workspace: Path, storages: tuple[StorageConfig, ...]) -> Iterator[tuple[str, str, str]]:
    """The keys that summaries of steps and online stores name; runs may be gone before them."""
    for place in places(workspace, storages):
        for file in place.files():
            top, name = place.in_workspace(file).split("/")[0], file.rpartition("/")[2]
            if name != {**dict.fromkeys(_STEPS, "summary.json"), "online": "watermark.json"}.get(top):
                continue
            hashed = json_object(place.read(file)).get("hash_users")
            if isinstance(hashed, dict) and hashed.get("variable"):
                yield str(hashed["variable"]), str(hashed.get("key", "")), f"{place.url}/{file}"


def places(workspace: Path, storages: tuple[StorageConfig, ...]) -> list[Place]:
    """The workspace, and every storage that is not below another place."""
    listed = [Place(str(workspace))]
    for config in storages:
        resolved = config.resolved
        named = [(config.workspace, ""), *((getattr(resolved, part), part) for part in ("repository", "artifacts"))]
        for url, part in [*named, (resolved.checkpoints, "checkpoints")]:
            if url and not any(_is_below(url, each.url) for each in listed):
                listed.append(Place(url.rstrip("/"), part))
    return listed


def _is_below(url: str, other: str) -> bool:
    paths = [str(Path(each).resolve()) if "://" not in each else each.rstrip("/") for each in (url, other)]
    return f"{paths[0]}/".startswith(f"{paths[1]}/")
