"""The lock of an online store: one writer at a time, and who it is.

online/.ranking_v1.lock, .holder.json     held by the writer, and who the writer is
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from rankline.errors import RegistryError
from rankline.io.files import locked, read_json_object, write_json
from rankline.io.lease import describe_holder
from rankline.runtime.bucket_workspace import BucketWorkspace


@contextmanager
def store_lock(
    folder: Path, *, timeout_s: float, who: str = "", run: str = "", bucket: BucketWorkspace | None = None
) -> Iterator[Callable[[], None]]:
    """Hold the lock of the store in ``folder``; a second writer waits; its error names ``who`` and ``run``.

    Yields a function that makes what was written the state that others see, where the workspace is in a ``bucket``.

    Raises:
        RegistryError: another process holds it for longer than ``timeout_s``.
    """
    lock, holder = _paths(folder)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(lock, timeout_s=timeout_s))
        except TimeoutError as error:
            raise _busy_error(folder, _describe(holder), timeout_s) from error
        stack.callback(_remove, holder)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(holder, {"who": who, "run": run, "pid": os.getpid(), "host": socket.gethostname(), "since": since})
        if bucket is None:
            yield lambda: None
            return
        name = folder.resolve().relative_to(bucket.folder.resolve()).as_posix()
        try:
            publish = stack.enter_context(bucket.writing(name, owner={"who": who, "run": run}, timeout_s=timeout_s))
        except TimeoutError as error:
            raise _busy_error(folder, str(error), timeout_s) from error
        yield publish


def _busy_error(folder: Path, holder: str, timeout_s: float) -> RegistryError:
    return RegistryError(
        "another process is writing the online store",
        expected=f"it to finish within {timeout_s:g} s",
        found=holder,
        where=str(folder.resolve()),
        hint="run again when it has finished; nothing has changed",
    )


def lock_holder(folder: Path) -> str:
    """Who writes the store in ``folder`` right now; empty for nobody, or if the workspace is read-only."""
    lock, holder = _paths(folder)
    if not lock.is_file():
        return ""
    try:
        with locked(lock, timeout_s=0):
            return ""
    except TimeoutError:
        return _describe(holder)
    except OSError:
        return ""


def _paths(folder: Path) -> tuple[Path, Path]:
    folder = folder.resolve()
    return folder.with_name(f".{folder.name}.lock"), folder.with_name(f".{folder.name}.holder.json")


def _describe(path: Path) -> str:
    return describe_holder(read_json_object(path))


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
