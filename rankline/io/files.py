"""Files that others read while they are written: replaced whole, created once, locked, read as a model."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rankline.errors import RanklineError
from rankline.io import digest

if TYPE_CHECKING:
    from pydantic import BaseModel

Model = TypeVar("Model", bound="BaseModel")

_STALE_PARTIAL_S = 86_400
PRIVATE, GROUP_SHARED, WRITABLE_BY_ALL = 0o077, 0o007, 0o002  # umasks, and what a safe one contains


def restrict_permissions(*, group_shared: bool = False) -> None:
    """Let nobody but the user, or the group, write the files of this process, however it was started.

    Kubeflow starts a step with a umask of 0. One that a user has chosen stays as it is, unless files are shared.
    """
    inherited = os.umask(GROUP_SHARED if group_shared else PRIVATE)
    if not group_shared and inherited & WRITABLE_BY_ALL:
        os.umask(inherited)


def partial_path(path: Path) -> Path:
    """A hidden name beside ``path`` that nobody else uses, for what is not whole yet."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}")


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A path to write a file or a folder at, which takes the place of ``path`` when the block ends without an error.

    A reader sees the old one or the new one, never half of it. A folder only takes the place of none or an empty one.
    ``durable`` writes survive a power failure.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    try:
        yield partial
        if durable:
            fsync(partial)
        os.replace(partial, path)
        if durable:
            fsync(path.parent)
    except OSError as error:
        error.filename = error.filename or str(path)  # a failed write does not name its file
        raise
    finally:
        _remove(partial)


def write_bytes(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Replace a file whole."""
    with replacing(path, durable=durable) as partial:
        partial.write_bytes(content)


def write_json(path: Path, value: Any, *, durable: bool = False) -> None:
    """Replace a file with JSON, whole."""
    write_bytes(path, (json.dumps(value, indent=2, default=str) + "\n").encode(), durable=durable)


def write_by_digest(folder: Path, suffix: str, write: Callable[[Path], object]) -> Path:
    """Let ``write`` write a file, whole, in ``folder``; its name is its digest and ``suffix``. Its path."""
    partial = partial_path(folder / f"new{suffix}")
    try:
        write(partial)
        path = folder / f"{digest.file_digest(partial)}{suffix}"
        os.replace(partial, path)
    finally:
        _remove(partial)
    return path


def create_exclusively(path: Path, content: bytes, *, durable: bool = False) -> bool:
    """Create a file that is not there yet, whole; False, and nothing changed, where it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    try:
        partial.write_bytes(content)
        if durable:
            fsync(partial)
        os.link(partial, path)
        if durable:
            fsync(path.parent)
    except FileExistsError:
        return False
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        _remove(partial)
    return True


def publish_folder(partial: Path, folder: Path) -> bool:
    """Give a finished folder its name; where another process was first, remove it and return False."""
    try:
        partial.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(partial)
        return False
    return True


def fsync(path: Path) -> None:
    """Wait until a file, or the list of names of a folder, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def link_or_copy(source: Path, target: Path) -> None:
    """Let a file have a second name where the file system can, else copy it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@contextlib.contextmanager
def locked(path: Path, *, timeout_s: float = -1) -> Iterator[None]:
    """Hold the lock file ``path`` while the block runs; a process that dies lets go of it.

    A negative ``timeout_s`` waits for as long as it takes, zero does not wait.

    Raises:
        TimeoutError: another process, or another lock of this one, held it all the time.
    """
    from filelock import FileLock, Timeout  # here, as a run of a schedule starts faster without it

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=timeout_s):
            yield
    except Timeout as error:
        raise TimeoutError(f"{path} is locked by another process") from error


def read_model(
    path: Path, model: type[Model], *, what: str, error: type[RanklineError], missing: str, damaged: str
) -> Model:
    """A JSON file as a model.

    Args:
        what: what the file is, as the message names it: "the manifest of the bundle".
        missing: what to try where there is no such file.
        damaged: what to try where it cannot be read as a ``model``.

    Raises:
        error: the file is missing or damaged.
    """
    try:
        return model.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as cause:
        raise error(
            f"{what} is missing", expected=f"the file {path.name}", found="no such file", where=str(path), hint=missing
        ) from cause
    except (ValueError, OSError) as cause:  # pydantic's ValidationError is a ValueError
        raise error(
            f"{what} cannot be read",
            expected=f"a {model.__name__} of this version of Rankline",
            found=first_line(cause),
            where=str(path),
            hint=damaged,
        ) from cause


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none that can be read."""
    try:
        return json_object(path.read_bytes())
    except OSError:
        return {}


def json_object(text: str | bytes) -> dict[str, Any]:
    """A text as a JSON object; empty where it is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def remove_stale_partials(folder: Path) -> None:
    """Remove what processes that were killed more than a day ago have left at a `partial_path` in a folder."""
    for partial in folder.glob(".*.*"):
        with contextlib.suppress(OSError):  # another process has removed or renamed it
            if time.time() - partial.stat().st_mtime > _STALE_PARTIAL_S:
                _remove(partial)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class where it has none."""
    return (str(error) or type(error).__name__).splitlines()[0]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
