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
_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# what DuckDB, Arrow, SQLite, torch and ONNX say in errors of their own
_PHRASES = (
    "no space left on device", "disk is full", "disk quota exceeded", "file too large", "out of disk space",
    "unexpected pos", "file write failed",
)  # fmt: skip


def lacking(error: BaseException) -> str:
    """The line of an error, or of one behind it, that says the disk is full; empty where none does."""
    for each in _behind(error):
        told = (getattr(each, "strerror", "") or str(each).strip() or type(each).__name__).splitlines()[0]
        if _says(each) or any(p in str(each).lower() for p in _PHRASES):
            return told
    return ""


def full(error: BaseException, folders: Iterable[Path]) -> DiskFull:
    """The message of a full disk: of the places the error names the fullest, else the fullest of ``folders``."""
    named = [Path(str(n)) for e in _behind(error) if _says(e) for n in (e.filename, e.filename2) if n]  # a copy: two
    asked = named or [*folders, Path(tempfile.gettempdir())]
    places = {place: shutil.disk_usage(place) for place in map(_standing, asked)}
    place = min(places, key=lambda each: places[each].free)
    usage = places[place]
    return DiskFull(
        "there is no room left on the disk",
        expected="room for what is written",
        found=f"{lacking(error) or error}; {usage.free / 1e6:.1f} of {usage.total / 1e6:.0f} MB free",
        where=str(place),
        hint="make room there (old folders of runs/ and cache/ in the workspace may go), or take a --workspace or a "
        "TMPDIR on another disk; then run again: what is finished is kept",
    )


def _says(error: BaseException) -> TypeGuard[OSError]:
    return isinstance(error, OSError) and error.errno in _NUMBERS


def _behind(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _standing(path: Path) -> Path:
    """The nearest folder that is there."""
    for each in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):
            if each.is_dir():
                return each.absolute()
    return Path("/")
