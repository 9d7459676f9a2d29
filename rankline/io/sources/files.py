"""The files of a source: local or behind a URL, one by one, by pattern or by folder."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import unquote

from rankline.errors import SourceError, StorageError
from rankline.io import storage
from rankline.io.sources.settings import mask_passwords
from rankline.io.sources.table_logs import live_files

COMPRESSION_SUFFIXES = ("gz", "zst", "bz2")
_WEB = ("http://", "https://")
_PARTITION_FOLDERS = re.compile(r"(?:[^/=]+=[^/]*/)*$")  # the folders named column=value that a path ends in


class File(NamedTuple):
    """A file of a table: its path or URL, the columns that its folders name, and the split that its name states."""

    path: str
    partitions: Mapping[str, str | None] = {}
    split: str = ""

    @property
    def kind(self) -> str:
        """The suffix without that of a compression: csv, parquet, jsonl...; empty without one."""
        names = [part.lower() for part in self.path.rsplit("/", 1)[-1].split(".")[1:]]
        return next((name for name in reversed(names) if name not in COMPRESSION_SUFFIXES), "")

    def open_stored(self) -> IO[bytes]:
        """Open the file for reading, as it is stored."""
        with translate_errors(self.path):
            if "://" not in self.path:
                return Path(self.path).open("rb")
            fs, path = source_filesystem(self.path)
            return RemoteFile(fs.open(path, "rb"), self.path)  # type: ignore[return-value]

    def size(self) -> int:
        """The number of stored bytes; 0 if the server does not tell."""
        with translate_errors(self.path):
            if "://" not in self.path:
                return Path(self.path).stat().st_size
            fs, path = source_filesystem(self.path)
            return int(fs.size(path) or 0)

    def is_empty(self) -> bool:
        """Whether a local file has no bytes."""
        return "://" not in self.path and self.size() == 0

    def digest(self) -> str:
        """The sha256 of the stored bytes."""
        sha = hashlib.sha256()
        with self.open_stored() as stream, translate_errors(self.path):
            while block := stream.read(1 << 20):
                sha.update(block)
        return sha.hexdigest()


Files = dict[str, list[File]]  # table ("events", "items", "users", "queries") -> its files, in order


class RemoteFile(io.RawIOBase):
    """A file behind a network whose errors while reading become ours."""

    def __init__(self, stream: Any, path: str) -> None:
        self._stream, self._path = stream, path

    def read(self, size: int = -1) -> bytes:
        with translate_errors(self._path):
            return bytes(self._stream.read(size))

    def seek(self, offset: int, whence: int = 0) -> int:
        with translate_errors(self._path):
            return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        return int(self._stream.tell())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._stream.seekable())

    def close(self) -> None:
        self._stream.close()
        super().close()


def source_filesystem(place: str) -> tuple[Any, str]:
    """The file system of a path or a URL, and the path in it; one behind a network retries.

    Raises:
        SourceError: no installed package reads such a URL.
    """
    if "://" in place and "::" in place:
        raise SourceError(
            "chained URLs are not supported",
            expected="one path or one URL",
            found="::",
            where=mask_passwords(place),
            hint="unpack the archive, and name the folder or the files",
        )
    try:
        return storage.open_filesystem(place if "://" in place else str(Path(place).expanduser()))
    except StorageError as error:
        raise SourceError(
            "no installed package reads this kind of URL",
            expected="a path, or a URL whose package is installed (s3:// needs s3fs, gs:// needs gcsfs)",
            found=error.found,
            where=mask_passwords(place),
            hint="install the package beside rankline (on a cluster: into the data image)",
        ) from error


@contextlib.contextmanager
def translate_errors(path: str) -> Iterator[None]:
    """Turn what goes wrong while a file is opened, listed or read into a SourceError."""
    try:
        yield
    except SourceError:
        raise
    except Exception as error:  # every file system's library has exceptions of its own
        cause = error.__cause__ or error  # the HTTP client raises FileNotFoundError for every failure
        is_missing = isinstance(error, FileNotFoundError) and (
            not path.startswith(_WEB) or cause is error or getattr(cause, "status", 0) == 404
        )
        details = {
            "found": f"{type(cause).__name__}: {mask_passwords(' '.join(str(cause).split()))[:300]}",
            "where": mask_passwords(path),
        }
        if is_missing or "://" not in path:
            raise SourceError(
                "a source file cannot be opened",
                expected="a file that exists and can be read",
                hint="check that the file exists and that the user who runs this may read it; then run again",
                **details,
            ) from error
        raise SourceError(
            "the server of the source does not respond as it should",
            expected=f"a response within {storage.MAX_ATTEMPTS} attempts, and the right to read",
            hint="check the server, the address and the credentials (for s3:// AWS_ACCESS_KEY_ID, AWS_PROFILE, "
            "AWS_ENDPOINT_URL); then run again",
            **details,
        ) from error


def match_files(base: str, location: str, table: str) -> list[File]:
    """The files of one table, sorted by path; folders named column=value add columns.

    Raises:
        SourceError: there is none.
    """
    is_absolute = "://" in location or location.startswith("/")
    full_location = location if is_absolute else f"{base.rstrip('/')}/{location}"
    fs, path = source_filesystem(full_location)
    if full_location.startswith(_WEB):  # a web server lists no folders
        return [File(path)]
    with translate_errors(full_location):
        root, paths = _list_files(fs, path, "" if is_absolute else path[: len(path) - len(location.rstrip("/"))])
        files = live_files(
            fs, root, paths, is_folder=root == f"{path.rstrip('/')}/", where=mask_passwords(full_location)
        )
    if not files:
        folder = Path(full_location).parent
        raise SourceError(
            f"there are no files of {table}",
            expected="a file, a pattern, a folder or a URL that names at least one file",
            found=describe_folder(folder) if "://" not in full_location else "none",
            where=mask_passwords(full_location),
            hint=f"set ingest.tables.{table} to where they are (relative to ingest.source, or a whole path or URL)",
        )
    # `source` itself may be in such folders, which add no columns; of an absolute path the last ones do
    prefix = _PARTITION_FOLDERS.findall(root)[0] if is_absolute else root[len(path) - len(location.rstrip("/")) :]
    is_remote = "://" in full_location
    return [
        File(
            fs.unstrip_protocol(each) if is_remote else each,
            {**_partition_values(prefix + each[len(root) :]), **files[each]},
        )
        for each in sorted(files)
    ]


def _list_files(fs: Any, path: str, base: str) -> tuple[str, list[str]]:
    """The files that a path names, and the folder up to which their paths state no columns; ``base`` is no pattern."""
    pattern = re.search(r"[^/]*[*?\[]", path[len(base) :])
    if pattern and not fs.exists(path):
        root = path[: len(base) + pattern.start()]
        entries = fs.glob(re.sub(r"([*?\[])", r"[\1]", base) + path[len(base) :], detail=True)
        matches = [each for each, info in entries.items() if info["type"] != "directory"]
        return root, [each for each in matches if not is_hidden(each[len(root) :])]
    if fs.isdir(path):
        root = path.rstrip("/") + "/"
        return root, [each for each in fs.find(path) if not is_hidden(each[len(root) :])]
    return path[: path.rfind("/") + 1], [path] if fs.exists(path) else []


def is_hidden(name: str) -> bool:
    """Whether a file holds no data: hidden files, and markers such as _SUCCESS."""
    return any(part.startswith((".", "_")) for part in name.split("/"))


def _partition_values(path: str) -> dict[str, str | None]:
    """The columns of the folders named column=value."""
    pairs = [folder.split("=", 1) for folder in path.split("/")[:-1] if "=" in folder]
    return {unquote(name): None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value) for name, value in pairs}


def describe_folder(folder: Path) -> str:
    """A few names of what is in a folder."""
    if not folder.is_dir():
        return "no such folder"
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") or "an empty folder"
