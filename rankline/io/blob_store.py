"""A place of files that are made whole and once: a folder or a bucket, which serve alike.

In a folder whatever is made gets its name when it is safe on the disk. In a bucket a single file is made whole by
its nature; of several, the last one put makes them exist.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec

from rankline.errors import IntegrityError, RegistryError
from rankline.io import digest, storage

_STALE_PARTIAL_S = 86_400


class BlobStore:
    """The files below one folder or URL."""

    def __init__(self, url: str | Path) -> None:
        self.fs, self.root = storage.open_filesystem(str(url))
        self.local = storage.is_local(self.fs)

    def _path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    def _read(self, name: str) -> bytes:
        return bytes(self.fs.cat_file(self._path(name)))

    def _create(self, name: str, content: bytes) -> bool:
        """Make a file whole under a name that nobody has taken; False if somebody has."""
        path = self._path(name)
        if self.local:
            _remove_stale_partials(Path(path).parent)
            try:
                with _temporary_file(Path(path), content) as partial:
                    os.link(partial, path)
                _fsync(Path(path).parent)
            except FileExistsError:
                return False
            except OSError as error:
                raise _write_error(path, error) from error
            return True
        if not _supports_exclusive_create(getattr(self.fs, "inner", self.fs)):
            raise RegistryError(
                "this kind of store cannot create a file exclusively",
                expected="a local folder, memory://, or a bucket with conditional writes (s3, gcs, abfs)",
                found=type(self.fs).__name__,
                where=self.root,
                hint="keep the model repository elsewhere",
            )
        try:
            self.fs.pipe_file(path, content, mode="create")
        except FileExistsError:
            # a try whose answer got lost on the way is taken for somebody else's by the next one
            return self._read(name) == content
        except FileNotFoundError as error:
            raise _missing_bucket_error(path) from error
        return True

    def _replace(self, name: str, content: bytes) -> None:
        """Write a file of which readers see the old or the new, never a half."""
        path = self._path(name)
        if self.local:
            _remove_stale_partials(Path(path).parent)
            with _temporary_file(Path(path), content) as partial:
                os.replace(partial, path)
        else:
            self.fs.pipe_file(path, content)

    def _put_files(self, folder: Path, name: str, files: Iterable[str], *, claim: str = "") -> None:
        """Copy some files of a folder to where they will never change; a no-op if they are there already.

        The last of them makes them exist. ``claim`` is one that others may put with other bytes: the first stays.
        """
        names = list(files)
        target = self._path(name)
        if self.fs.exists(f"{target}/{names[-1]}"):
            return
        if not self.local:
            try:
                for file in names:
                    if file == claim:
                        self._create(f"{name}/{file}", (folder / file).read_bytes())
                    else:
                        self.fs.put_file(str(folder / file), f"{target}/{file}")
            except FileNotFoundError as error:
                raise _missing_bucket_error(target) from error
            return
        final = Path(target)
        partial = final.with_name(f".{final.name}.{uuid.uuid4().hex}")
        _remove_stale_partials(final.parent)
        try:
            for file in names:
                (partial / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / file, partial / file)
                _fsync(partial / file)
            try:
                os.rename(partial, final)
            except OSError:
                if not final.is_dir():  # else somebody put the same bytes there first
                    raise
            _fsync(final.parent)
        except OSError as error:
            raise _write_error(target, error) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _fetch_files(self, name: str, folder: Path, files: Mapping[str, str], last: str) -> None:
        """Copy files (path -> sha256) out of a bucket, and at the end ``last``; what lies there as it should is left.

        One that is not in the bucket is not there afterwards, either: whoever opens the folder tells it.
        """
        for file in files:
            if not (folder / file).resolve().is_relative_to(folder.resolve()):
                raise IntegrityError(
                    "a list of files leads out of its folder",
                    expected="paths inside of it",
                    found=file,
                    where=self._path(name),
                    hint="somebody has tampered with the repository; bring it back from a copy",
                )
        outdated = [file for file, sha256 in files.items() if not _has_digest(folder / file, sha256)]
        with suppress(FileNotFoundError):
            for file in (*outdated, last):
                (folder / file).unlink(missing_ok=True)
            self.fs.get(
                [self._path(f"{name}/{file}") for file in (*outdated, last)],
                [str(folder / file) for file in (*outdated, last)],
            )

    def _repair_files(self, folder: Path, name: str, files: Mapping[str, str]) -> None:
        """Bring back, out of ``folder``, those of the files (path -> sha256) of a place whose bytes changed there."""
        for file, sha256 in files.items():
            if self._sha256(f"{name}/{file}") == sha256:
                continue
            path = Path(self._path(f"{name}/{file}"))
            if not self.local:
                self.fs.put_file(str(folder / file), str(path))
                continue
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with _temporary_file(path, (folder / file).read_bytes()) as partial:
                    os.replace(partial, path)
            except OSError as error:
                raise _write_error(str(path), error) from error

    def _sha256(self, name: str) -> str:
        """The digest of a file's bytes, read piece by piece; empty where there is none."""
        try:
            with self.fs.open(self._path(name), "rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        except FileNotFoundError:
            return ""


def _has_digest(path: Path, sha256: str) -> bool:
    return path.is_file() and digest.file_digest(path) == sha256


def _write_error(path: str, error: OSError) -> RegistryError:
    return RegistryError(
        "the model repository cannot be written",
        expected="room, permission, and a file system with hard links",
        found=str(error),
        where=path,
        hint="free some space, or keep the repository on another disk or in a bucket",
    )


def _missing_bucket_error(path: str) -> RegistryError:
    return RegistryError(
        "the model repository cannot be written",
        expected="a bucket that exists",
        found="no such bucket",
        where=path,
        hint="make the bucket, or set storage.repository to another place",
    )


@contextmanager
def _temporary_file(path: Path, content: bytes) -> Iterator[Path]:
    """The content, safe on the disk under a hidden name in the same folder, gone afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with partial.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_stale_partials(folder: Path) -> None:
    """Remove what writers that were killed more than a day ago left behind."""
    for partial in folder.glob(".*.*"):
        with suppress(OSError):  # another writer swept it, or has just finished
            if time.time() - partial.stat().st_mtime <= _STALE_PARTIAL_S:
                continue
            if partial.is_dir():
                shutil.rmtree(partial, ignore_errors=True)
            else:
                partial.unlink()


def _supports_exclusive_create(fs: Any) -> bool:
    """Whether a store's exclusive creation is its own: fsspec's stand-in looks first and writes later."""
    if getattr(fs, "async_impl", False):
        return "mode" in inspect.signature(fs._pipe_file).parameters
    return type(fs).pipe_file is not fsspec.AbstractFileSystem.pipe_file
