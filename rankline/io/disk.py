"""Room on the disk: whether an error means that there is none, and the one message that says where and what to do."""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeGuard

from rankline.errors import DiskFull

# no blocks, no quota, and no file as large as that
_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# what DuckDB, Arrow, SQLite, torch and ONNX say in errors of their own
_PHRASES = (
    "no space left on device", "disk is full", "disk quota exceeded", "file too large", "out of disk space",
    "unexpected pos", "file write failed",
)  # fmt: skip


def no_space_message(error: BaseException) -> str:
    """The line of an error, or of one behind it, that says the disk is full; empty where none does."""
    for each in _error_chain(error):
        message = (getattr(each, "strerror", "") or str(each).strip() or type(each).__name__).splitlines()[0]
        if _is_no_space(each) or any(p in str(each).lower() for p in _PHRASES):
            return message
    return ""


def no_space_error(error: BaseException, folders: Iterable[Path]) -> DiskFull:
    """The message of a full disk: of the places the error names the fullest, else the fullest of ``folders``."""
    named = [
        Path(str(n)) for e in _error_chain(error) if _is_no_space(e) for n in (e.filename, e.filename2) if n
    ]  # a copy: two
    paths = named or [*folders, Path(tempfile.gettempdir())]
    usages = {fullest: shutil.disk_usage(fullest) for fullest in map(_existing_folder, paths)}
    fullest = min(usages, key=lambda each: usages[each].free)
    usage = usages[fullest]
    return DiskFull(
        "there is no room left on the disk",
        expected="room for what is written",
        found=f"{no_space_message(error) or error}; {usage.free / 1e6:.1f} of {usage.total / 1e6:.0f} MB free",
        where=str(fullest),
        hint="make room there (old folders of runs/ and cache/ in the workspace may go), or take a --workspace or a "
        "TMPDIR on another disk; then run again: what is finished is kept",
    )


def _is_no_space(error: BaseException) -> TypeGuard[OSError]:
    return isinstance(error, OSError) and error.errno in _ERRNOS


def _error_chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _existing_folder(path: Path) -> Path:
    """The nearest folder that is there."""
    for each in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):
            if each.is_dir():
                return each.absolute()
    return Path("/")
