"""Old firings, one JSON object per line: `schedules/NAME/ended.jsonl`."""

from __future__ import annotations

import contextlib
import json
import os
from datetime import datetime
from pathlib import Path

from pipelines.schedules.firing import Firing


class Archive:
    """An append-only file of firings that have ended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._firings: dict[datetime, Firing] = {}
        self._version: tuple[int, int] = (0, 0)  # inode and size of the file that `_firings` was read from

    def read(self) -> dict[datetime, Firing]:
        """Every archived firing by its fire time; read again only after the file has changed."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return {}
        if (status.st_ino, status.st_size) != self._version:
            self._firings = {}
            for line in self.path.read_bytes().splitlines():
                with contextlib.suppress(ValueError, TypeError):  # a kill cut this line short
                    firing = Firing(**json.loads(line))
                    self._firings[firing.instant] = firing
            self._version = (status.st_ino, status.st_size)
        return self._firings

    def append(self, firing: Firing) -> None:
        """Add a firing, unless it is there already."""
        if self.read().get(firing.instant) == firing:
            return
        line = json.dumps(firing.as_dict(), separators=(",", ":")).encode() + b"\n"
        with self.path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a kill cut the last line short; start a new one
                    line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
