"""Files that are written whole and once, in a folder or a bucket.

In a folder a file gets its name once it is on the disk. A bucket writes a single file atomically; of several files,
the last one makes them visible.
"""

from __future__ import annotations

import hashlib
import inspect
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec

from rankline.errors import IntegrityError, RegistryError
from rankline.io import digest, files, storage


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
        """Create a file that does not exist; False, and nothing changed, if it does."""
        path = self._path(name)
        if self.local:
            files.remove_stale_partials(Path(path).parent)
            with _explain_write_errors(path):
                return files.create_exclusively(Path(path), content, durable=True)
        if not _supports_exclusive_create(getattr(self.fs, "inner", self.fs)):
            raise RegistryError(
                "this kind of store cannot create a file exclusively",
                expected="a local folder, memory://, or a bucket with conditional writes (s3, gcs, abfs)",
                found=type(self.fs).__name__,
                where=self.root,
                hint="use another model registry (storage.repository)",
            )
        try:
            self.fs.pipe_file(path, content, mode="create")
        except FileExistsError:
            try:  # a retry finds the file of its own first attempt if only the response was lost
                return self._read(name) == content
            except FileNotFoundError:  # another process's, which has removed it since
                return False
        except FileNotFoundError as error:
            raise _missing_bucket_error(path) from error
        return True

    def _replace(self, name: str, content: bytes) -> None:
        """Replace a file whole."""
        path = self._path(name)
        if self.local:
            files.remove_stale_partials(Path(path).parent)
            files.write_bytes(Path(path), content, durable=True)
        else:
            self.fs.pipe_file(path, content)

    def _put_files(self, folder: Path, name: str, relative_paths: Iterable[str], *, first_wins: str = "") -> None:
        """Copy files of a folder to where they never change; does nothing if they exist already.

        The last file makes them visible. ``first_wins`` is a file that another process may write with other bytes: the
        first one stays.
        """
        paths = list(relative_paths)
        target = self._path(name)
        if self.fs.exists(f"{target}/{paths[-1]}"):
            return
        if self.local:
            self._put_local_files(folder, Path(target), paths)
            return
        try:
            for path in paths:
                if path == first_wins:
                    self._create(f"{name}/{path}", (folder / path).read_bytes())
                else:
                    self.fs.put_file(str(folder / path), f"{target}/{path}")
        except FileNotFoundError as error:
            raise _missing_bucket_error(target) from error

    @staticmethod
    def _put_local_files(folder: Path, target: Path, paths: list[str]) -> None:
        files.remove_stale_partials(target.parent)
        partial = files.partial_path(target)
        try:
            with _explain_write_errors(str(target)):
                for path in paths:
                    (partial / path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(folder / path, partial / path)
                    files.fsync(partial / path)
                files.publish_folder(partial, target)
                files.fsync(target.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _fetch_files(self, name: str, folder: Path, digests: Mapping[str, str], last: str) -> None:
        """Download the files (path -> sha256) that ``folder`` lacks or has with other bytes, and then ``last``.

        A file that is missing in the bucket is missing in ``folder``, too; whoever opens the folder finds out.
        """
        for file in digests:
            if not (folder / file).resolve().is_relative_to(folder.resolve()):
                raise IntegrityError(
                    "a list of files points outside of its folder",
                    expected="paths within the folder",
                    found=file,
                    where=self._path(name),
                    hint="the registry may have been tampered with; restore it from a backup",
                )
        outdated = [file for file, sha256 in digests.items() if not _has_digest(folder / file, sha256)]
        with suppress(FileNotFoundError):
            for file in (*outdated, last):
                (folder / file).unlink(missing_ok=True)
            self.fs.get(
                [self._path(f"{name}/{file}") for file in (*outdated, last)],
                [str(folder / file) for file in (*outdated, last)],
            )

    def _repair_files(self, folder: Path, name: str, digests: Mapping[str, str]) -> None:
        """Restore, from ``folder``, the stored files (path -> sha256) that have changed."""
        for file, sha256 in digests.items():
            if self._sha256(f"{name}/{file}") == sha256:
                continue
            path = Path(self._path(f"{name}/{file}"))
            if not self.local:
                self.fs.put_file(str(folder / file), str(path))
                continue
            with _explain_write_errors(str(path)):
                files.write_bytes(path, (folder / file).read_bytes(), durable=True)

    def _sha256(self, name: str) -> str:
        """The digest of a stored file; empty if there is none."""
        try:
            with self.fs.open(self._path(name), "rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        except FileNotFoundError:
            return ""


def _has_digest(path: Path, sha256: str) -> bool:
    return path.is_file() and digest.file_digest(path) == sha256


@contextmanager
def _explain_write_errors(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RegistryError(
            "the model registry cannot be written",
            expected="free space, permission, and a file system with hard links",
            found=str(error),
            where=path,
            hint="free some space, or use a registry on another disk or in a bucket (storage.repository)",
        ) from error


def _missing_bucket_error(path: str) -> RegistryError:
    return RegistryError(
        "the model registry cannot be written",
        expected="a bucket that exists",
        found="no such bucket",
        where=path,
        hint="create the bucket, or set storage.repository to another one",
    )


def _supports_exclusive_create(fs: Any) -> bool:
    """Whether a file system has an exclusive creation of its own: fsspec's checks first and writes later."""
    if getattr(fs, "async_impl", False):
        return "mode" in inspect.signature(fs._pipe_file).parameters
    return type(fs).pipe_file is not fsspec.AbstractFileSystem.pipe_file
