"""The workspace in a bucket: the small files that runs share, copied to a folder of one process and back.

    <storage.workspace>/runs/<run>/…      ledger, logs, settings, summary
    <storage.workspace>/profiles/…        the profiles that the next run's data is compared with
    <storage.workspace>/online/<service>/ feature store, with its watermark
    <storage.workspace>/material/…        data and weights
    <storage.workspace>/locks/<name>/…    the locks of what several runs write (rankline/io/lease.py)

The model registry, the remote cache and the checkpoints are beside them and are used in place. Each file is replaced
whole. A later copy of a folder downloads only what has changed.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rankline.errors import IntegrityError, StorageError
from rankline.io import digest, storage
from rankline.io.files import first_line, read_json_object, replacing, write_bytes, write_json
from rankline.io.lease import LEASE_S, Lease
from rankline.periodic import repeated

_DOWNLOADS = 16  # at once
URL_FILE = ".url"  # in a user's copy: where it comes from
VERSIONS_FILE = ".versions.json"  # in the local folder: the version of each file that was downloaded


class BucketWorkspace:
    """A workspace at a URL, and the local folder that its files are copied to."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url.rstrip("/"), folder
        self._copied: dict[str, tuple[int, ...]] = {}  # file -> its signature when it was last copied
        self._lock = threading.Lock()

    @classmethod
    def cached(cls, url: str) -> BucketWorkspace:
        """The workspace at a URL, and this user's copy of it in the cache folder."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        bucket = cls(url, cache / "rankline" / digest.json_digest(url.rstrip("/"))[:16])
        write_bytes(bucket.folder / URL_FILE, bucket.url.encode())
        return bucket

    def download(self, name: str, *, suffixes: tuple[str, ...] = ("",)) -> None:
        """Make the local files below ``name`` (or the one file) with one of these endings those of the bucket.

        Files that were downloaded before and are no longer in the bucket are removed.

        Raises:
            StorageError: the store does not respond.
        """
        with self._lock:
            fs, root = storage.open_filesystem(self.url)
            remote = {each: info for each, info in self._list(fs, root, name).items() if each.endswith(suffixes)}
            versions: dict[str, Any] = read_json_object(self.folder / VERSIONS_FILE)
            before = dict(versions)
            outdated = [
                each
                for each, info in remote.items()
                if versions.get(each) != _version(info) or not self._local_path(each).is_file()
            ]
            with ThreadPoolExecutor(_DOWNLOADS) as threads:
                copied = threads.map(
                    lambda each: self._download_file(fs, f"{root}/{each}", each, remote[each]), outdated
                )
                versions |= {each: _version(remote[each]) for each, exists in zip(outdated, copied) if exists}
            for each in [each for each in versions if _is_below(each, name) and each not in remote]:
                if each.endswith(suffixes):
                    self._local_path(each).unlink(missing_ok=True)
                    del versions[each]
            if versions != before:
                write_json(self.folder / VERSIONS_FILE, versions)

    def upload(self, name: str, *, deep: bool = True) -> None:
        """Upload the local files below ``name`` that were changed since they were last copied, the oldest first.

        Files that were copied before and have been removed here are removed there. Hidden files stay; so do those in
        folders below it, unless ``deep``.

        Raises:
            StorageError: the store does not respond.
        """
        with self._lock:
            fs, root = storage.open_filesystem(self.url)
            for path in self._local_files(self.folder / name, deep=deep):
                each = path.relative_to(self.folder).as_posix()
                with contextlib.suppress(FileNotFoundError):  # it was replaced or removed meanwhile
                    signature = _signature(path)
                    if self._copied.get(each) != signature:
                        _upload_file(fs, path, f"{root}/{each}")
                        self._copied[each] = signature
            for each in [each for each in self._copied if _is_below(each, name)]:
                if not (self.folder / each).exists():
                    with contextlib.suppress(FileNotFoundError):
                        fs.rm_file(f"{root}/{each}")
                    del self._copied[each]

    def upload_missing(self, name: str) -> None:
        """Upload the local files below ``name`` that the bucket does not have, such as data and weights.

        Raises:
            StorageError: the store does not respond.
        """
        fs, root = storage.open_filesystem(self.url)
        present = self._list(fs, root, name)
        for path in self._local_files(self.folder / name, deep=True):
            if (each := path.relative_to(self.folder).as_posix()) not in present:
                _upload_file(fs, path, f"{root}/{each}")

    @contextlib.contextmanager
    def uploading(self, name: str, *, interval_s: float = 5.0) -> Iterator[None]:
        """Upload the files in the folder ``name`` every few seconds while the block runs; a failure is left out."""

        def upload() -> None:
            with contextlib.suppress(StorageError, OSError):
                self.upload(name, deep=False)

        upload()
        with repeated(upload, interval_s=interval_s, name="run folder"):
            yield

    @contextlib.contextmanager
    def writing(self, name: str, *, owner: Mapping[str, str], timeout_s: float) -> Iterator[Callable[[], None]]:
        """Hold the lock of what several runs write below ``name``, and start from the latest state of it.

        Yields a function that uploads what has changed.

        Raises:
            TimeoutError: another process held the lock for longer than ``timeout_s``; the message says which.
        """
        lease = self.lock(name)

        def publish() -> None:
            lease.require_held()
            self.upload(name)

        with lease.held(timeout_s=timeout_s, owner=owner):
            self.download(name)
            yield publish

    def lock(self, name: str) -> Lease:
        """The lock of what several runs write below ``name``."""
        return Lease(f"{self.url}/locks/{name}", lease_s=LEASE_S)

    def named_files(self, settings: Any) -> list[str]:
        """What settings name below the workspace, such as a source in material/."""
        if isinstance(settings, Mapping):
            return [name for value in settings.values() for name in self.named_files(value)]
        if isinstance(settings, (list, tuple)):
            return [name for value in settings for name in self.named_files(value)]
        if isinstance(settings, str) and settings.startswith(f"{self.folder}/"):
            name = settings.removeprefix(f"{self.folder}/")
            fixed = name[: min((name.find(sign) for sign in "*?[" if sign in name), default=len(name))]
            return [fixed.rpartition("/")[0] if fixed != name else name]
        return []

    def _list(self, fs: Any, root: str, name: str) -> dict[str, dict[str, Any]]:
        """File below ``name``, relative to the workspace -> what the store says of it."""
        path = f"{root}/{name}".rstrip("/")
        with contextlib.suppress(FileNotFoundError):
            infos = fs.find(path, detail=True).values()
            names = {str(info["name"]).removeprefix(root).lstrip("/"): info for info in infos if info["type"] == "file"}
            return {each: info for each, info in names.items() if "/." not in f"/{each}"}
        return {}

    def _local_path(self, name: str) -> Path:
        path = self.folder / name
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise IntegrityError(
                "a file of the workspace leads outside of it",
                expected="a name below the workspace",
                found=name,
                where=self.url,
                hint="remove that file from the bucket",
            )
        return path

    def _download_file(self, fs: Any, source: str, name: str, info: Mapping[str, Any]) -> bool:
        """Download a file with its time; False if it was removed since it was listed."""
        path = self._local_path(name)
        with contextlib.suppress(FileNotFoundError), replacing(path) as partial:
            fs.get_file(source, str(partial))
            os.utime(partial, (storage.modified_time(info),) * 2)
        if path.is_file():
            self._copied[name] = _signature(path)
        return path.is_file()

    @staticmethod
    def _local_files(path: Path, *, deep: bool) -> list[Path]:
        if path.is_file():
            return [path]
        files = path.rglob("*") if deep else path.glob("*")
        visible = [each for each in files if "/." not in f"/{each.relative_to(path)}" and each.is_file()]
        return sorted(visible, key=lambda each: each.stat().st_mtime_ns)


def _upload_file(fs: Any, path: Path, target: str) -> None:
    if storage.is_local(fs):
        with replacing(Path(target)) as partial:
            partial.write_bytes(path.read_bytes())
        return
    try:
        fs.put_file(str(path), target)
    except FileNotFoundError as error:
        if not path.is_file():
            raise
        raise StorageError(
            "the workspace cannot be written",
            expected="a bucket that exists",
            found=first_line(error),
            where=target,
            hint="create the bucket, or set storage.workspace to another one",
        ) from error


def _is_below(name: str, folder: str) -> bool:
    return name == folder or name.startswith(f"{folder}/".lstrip("/"))


def _signature(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _version(info: Mapping[str, Any]) -> str:
    """What tells one version of a file from another: its ETag, in a folder its time and size."""
    return str(info.get("ETag") or info.get("etag") or f"{info.get('ino')} {info.get('mtime')} {info['size']}")
