"""The firings of one schedule: which fire times were taken, and how their runs ended.

    schedules/NAME/claims/20261122T030000Z.json   one firing; creating this file exclusively takes the fire time
    schedules/NAME/claims/20261122T030000Z.lock   locked by the process that runs it
    schedules/NAME/ended.jsonl                    old firings, one per line (`rankline gc`)
    schedules/NAME/handled.json                   up to when every fire time has a firing or was skipped

A process that runs a firing imports this module first, so it keeps to what starts fast: no pydantic.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.schedules.archive import Archive
from pipelines.schedules.cursor import FAR_AHEAD, Cursor
from pipelines.schedules.firing import TIMESTAMP_FORMAT, UNREADABLE, Firing, read_firing
from rankline.io import files


class Firings:
    """The firings of one schedule."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "claims"
        self._cursor, self._archive = Cursor(folder / "handled.json"), Archive(folder / "ended.jsonl")

    def path(self, instant: datetime, suffix: str = "json") -> Path:
        """The file of a firing, or one that belongs to it."""
        return self.folder / f"{instant.astimezone(UTC).strftime(TIMESTAMP_FORMAT)}.{suffix}"

    def create(self, firing: Firing) -> bool:
        """Take a fire time; False where it is taken already."""
        path, content = self.path(firing.instant), json.dumps(firing.as_dict(), indent=2).encode() + b"\n"
        if self._archived(firing.instant) or not files.create_exclusively(path, content, durable=True):
            return False
        if self._archived(firing.instant):  # it was archived between the two lines above, which removed its file
            path.unlink()
            return False
        return True

    def write(self, firing: Firing) -> None:
        """Replace the file of a firing."""
        files.write_json(self.path(firing.instant), firing.as_dict(), durable=True)

    def read(self, instant: datetime) -> Firing | None:
        """The firing of a fire time; None where there is none."""
        return read_firing(self.path(instant)) or self._archived(instant)

    def all(self) -> list[Firing]:
        """Every firing, oldest fire time first."""
        unarchived = {firing.instant: firing for firing in self.unarchived()}
        return [firing for _, firing in sorted({**self._archive.read(), **unarchived}.items())]

    def unarchived(self) -> list[Firing]:
        """The firings that have a file of their own, oldest fire time first."""
        firings = (read_firing(path) for path in sorted(self.folder.glob("*.json")))
        return [firing for firing in firings if firing is not None]

    def unreadable(self) -> list[str]:
        """The files that cannot be read, each with the reason."""
        damaged = [
            f"{self.path(each.instant)}: {each.error}" for each in self.unarchived() if each.outcome == UNREADABLE
        ]
        problem = self._cursor.problem()
        return [*damaged, *([f"{self._cursor.path}: {problem}"] if problem else [])]

    def archive(self, stamp: str) -> str:
        """Move the firing of this name into the archive; returns why it stays, or an empty string.

        The line is written first. After a kill in between both are there and say the same.
        """
        firing = read_firing(self.folder / f"{stamp}.json")
        if firing is None:
            return ""
        if firing.outcome == UNREADABLE:
            return firing.error
        if firing.status != "ended" or firing.failed:
            return "it will run again"
        self._archive.append(firing)
        for suffix in ("json", "log", "lock"):
            self.path(firing.instant, suffix).unlink(missing_ok=True)
        return ""

    @contextmanager
    def lock(self, instant: datetime, *, timeout_s: float = 60.0) -> Iterator[None]:
        """Be the only process that runs this firing while the block runs.

        Raises:
            TimeoutError: another process runs it.
        """
        with files.locked(self.path(instant, "lock"), timeout_s=timeout_s):
            yield

    def is_running(self, instant: datetime) -> bool:
        """Whether a process runs this firing now."""
        if not self.path(instant, "lock").is_file():
            return False
        try:
            with self.lock(instant, timeout_s=0):
                return False
        except TimeoutError:
            return True

    def handled(self) -> dict[str, Any]:
        """`until` and `skipped`, see `Cursor.read`."""
        firings = self.all() if self._cursor.problem() else []
        return self._cursor.read(latest=firings[-1].instant if firings else None)

    def handled_until(self, *, since: datetime, now: datetime) -> datetime:
        """Up to when every fire time has a firing or was skipped; ``since`` where none was due yet."""
        return self._cursor.follow_clock(self.handled(), since=since, now=now)

    def handled_ahead(self, *, since: datetime, now: datetime) -> datetime | None:
        """A time later than ``now`` up to which fire times were handled, by a clock that showed another time."""
        handled = self.handled()
        marks = [each for each in (handled["until"], handled.get("ahead", {}).get("until")) if each]
        if not marks:
            return since if since > now + FAR_AHEAD else None
        latest = max(map(datetime.fromisoformat, marks))
        return latest if latest > now else None

    def mark_handled(self, until: datetime, *, skipped: dict[str, Any] | None = None) -> None:
        """Note that every fire time up to ``until`` has a firing, or is skipped as ``skipped`` says."""
        self._cursor.advance(until, self.handled(), skipped=skipped)

    def _archived(self, instant: datetime) -> Firing | None:
        return self._archive.read().get(instant)
