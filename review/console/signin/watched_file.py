"""A file that is read again when it changes, so that a revoked right ends without a restart."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

Content = TypeVar("Content")


class WatchedFile(Generic[Content]):
    """What ``read`` makes of a file, as the file is now; its errors are not hidden behind an older content."""

    def __init__(self, path: Path, read: Callable[[Path], Content]) -> None:
        self.path, self._read = path, read
        self._lock = threading.Lock()
        self._cached: tuple[tuple[int, ...] | None, Content] | None = None

    def content(self) -> Content:
        """The content of the file now; an unchanged file is not read again."""
        with self._lock:
            version = self._version()
            if self._cached is None or self._cached[0] != version:
                self._cached = None
                self._cached = version, self._read(self.path)
            return self._cached[1]

    def _version(self) -> tuple[int, ...] | None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode
