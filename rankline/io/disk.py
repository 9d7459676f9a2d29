"""Full disks: whether an error means that the disk is full, and one message that says where and what to do."""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeGuard

from rankline.errors import DiskFull, RanklineError
from rankline.pod import advice

# no free blocks, the quota is used up, and the file is larger than the user's limit
_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# what DuckDB, Arrow, SQLite, torch and ONNX say in exceptions of their own
_PHRASES = (
    "no space left on device", "disk is full", "disk quota exceeded", "file too large", "out of disk space",
    "unexpected pos", "file write failed",
)  # fmt: skip


def no_space_message(error: BaseException) -> str:
    """The line of an error, or of one that caused it, that reports a full disk; empty if none does."""
    for each in _error_chain(error):
        message = (getattr(each, "strerror", "") or str(each).strip() or type(each).__name__).splitlines()[0]
        if _is_no_space(each) or any(phrase in str(each).lower() for phrase in _PHRASES):
            return message
    return ""


def no_space_error(error: BaseException, folders: Iterable[Path]) -> DiskFull:
    """The error for a full disk: the fullest of the places that ``error`` names, or else of ``folders``."""
    # a failed copy names two files
    named = [
        Path(str(name)) for e in _error_chain(error) if _is_no_space(e) for name in (e.filename, e.filename2) if name
    ]
    paths = named or [*folders, Path(tempfile.gettempdir())]
    usages = {folder: shutil.disk_usage(folder) for folder in map(_existing_folder, paths)}
    fullest = min(usages, key=lambda folder: usages[folder].free)
    usage = usages[fullest]
    return DiskFull(
        "the disk is full",
        expected="free space for the output",
        found=f"{no_space_message(error) or error}; {usage.free / 1e6:.1f} of {usage.total / 1e6:.0f} MB free",
        where=str(fullest),
        hint="free some space (old folders below runs/ and cache/ of the workspace can be deleted), or use "
        + advice(
            on_one_machine="a --workspace or TMPDIR on another disk", on_a_cluster="a larger claim (cluster.volume)"
        )
        + "; then run again: finished steps are reused",
    )


def explain_no_space(error: BaseException, folders: Iterable[Path]) -> BaseException:
    """The error for a full disk; ``error`` itself if it states the free space already."""
    is_complete = isinstance(error, RanklineError) and " free" in str(error)
    return error if is_complete else no_space_error(error, folders)


def _is_no_space(error: BaseException) -> TypeGuard[OSError]:
    return isinstance(error, OSError) and error.errno in _ERRNOS


def _error_chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _existing_folder(path: Path) -> Path:
    """The nearest folder that exists."""
    for each in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):
            if each.is_dir():
                return each.absolute()
    return Path("/")
