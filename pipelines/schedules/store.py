"""The schedules of a workspace on disk, with every revision.

schedules/NAME/revisions/0001.json …   creating the next file exclusively is the change
schedules/NAME.json                    a copy of the latest revision, for people
schedules/NAME/claims/, handled.json   what has run (pipelines/schedules/firings.py)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipelines.schedules.firings import Firings
from pipelines.schedules.model import Schedule, validate_schedule
from rankline.errors import RanklineError, UsageError
from rankline.io import files

FOLDER = "schedules"


class ScheduleStore:
    """The schedules of a workspace."""

    def __init__(self, workspace: Path) -> None:
        self.workspace, self.folder = workspace, workspace / FOLDER
        self._revision_cache: dict[Path, Schedule] = {}  # a revision never changes

    def names(self, *, deleted: bool = False) -> list[str]:
        """The names, sorted; those of deleted schedules only with ``deleted``."""
        names = sorted({path.parents[1].name for path in self.folder.glob("*/revisions/[0-9]*.json")})
        return [name for name in names if deleted or not self._is_deleted(name)]

    def history(self, name: str) -> list[Schedule]:
        """Every revision, oldest first; empty where there never was such a schedule."""
        paths = sorted(self._revisions_folder(name).glob("[0-9]*.json"))
        self._revision_cache |= {path: self._read_revision(path) for path in paths if path not in self._revision_cache}
        return [self._revision_cache[path] for path in paths]

    def _is_deleted(self, name: str) -> bool:
        """Whether it is deleted; a schedule that cannot be read counts as there."""
        try:
            return self.history(name)[-1].deleted
        except RanklineError:
            return False

    def get(self, name: str) -> Schedule:
        """The latest revision of a schedule.

        Raises:
            UsageError: there is no such schedule.
        """
        history = self.history(name)
        if not history or history[-1].deleted:
            raise UsageError(
                f"there is no schedule {name!r}",
                expected=", ".join(self.names()) or "the name of a schedule; there are none yet",
                found=name + (", which was deleted" if history else ""),
                where=str(self.folder),
                hint="`rankline schedule list` lists them, `rankline schedule create` creates one",
            )
        return history[-1]

    def firings(self, name: str) -> Firings:
        """The firings of a schedule."""
        return Firings(self.folder / name)

    def clock_note(self, name: str, *, now: datetime) -> str:
        """That fire times were handled which are still to come; empty where none were.

        Raises:
            RanklineError: the schedule cannot be read.
        """
        ahead = self.firings(name).handled_ahead(since=self.history(name)[0].effective_from, now=now)
        if ahead is None:
            return ""
        until, shown = (f"{each.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" for each in (ahead, now))
        return (
            f"fire times up to {until} count as handled, but this machine's clock shows {shown}: it was ahead then, or "
            "is behind now. Those without a firing run when they come"
        )

    def create(self, values: dict[str, Any], *, now: datetime) -> Schedule:
        """Create a schedule; its first fire time is the first one after ``now``.

        Raises:
            UsageError: the name is taken, or a value is not valid.
        """
        name = str(values.get("name", ""))
        history = self.history(name) if re.fullmatch(r"[a-z0-9-]+", name) else []
        if history and not history[-1].deleted:
            raise UsageError(
                f"there is already a schedule {name!r}",
                expected="another name",
                where=str(self.folder),
                hint=f"`rankline schedule update {name}` changes it",
            )
        return self._commit(values | {"created_at": _utc_isoformat(now)}, history, now=now)

    def update(self, name: str, changes: dict[str, Any], *, now: datetime) -> Schedule:
        """Change a schedule: firings stay as they are, and fire times after ``now`` follow the new revision.

        Raises:
            UsageError: there is no such schedule, a value is not valid, or another process changed it at the same time.
        """
        self.get(name)  # before the lock, which would create a folder for any name
        with self.lock(name):
            before = self.get(name)
            if all(getattr(before, key) == value for key, value in changes.items()):
                return before
            return self._commit(before.model_dump() | changes, self.history(name), now=now)

    def delete(self, name: str, *, now: datetime) -> Schedule:
        """Delete a schedule; its active runs go on, and its firings stay."""
        return self.update(name, {"deleted": True}, now=now)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Keep other processes from changing the schedule or creating firings of it while the block runs."""
        with files.locked(self.folder / name / "lock"):
            yield

    def _commit(self, values: dict[str, Any], history: list[Schedule], *, now: datetime) -> Schedule:
        latest = history[-1] if history else None
        effective_from = max(now, latest.effective_from) if latest else now  # the clock may have been set back
        number = latest.revision + 1 if latest else 1
        schedule = validate_schedule(values | {"revision": number, "updated_at": _utc_isoformat(effective_from)})
        path = self._revisions_folder(schedule.name) / f"{number:04}.json"
        content = json.dumps(schedule.model_dump(), indent=2).encode() + b"\n"
        if not files.create_exclusively(path, content):
            raise UsageError(
                f"another process changed schedule {schedule.name!r} at the same time",
                expected=f"revision {number} to be the next",
                where=str(path),
                hint=f"`rankline schedule show {schedule.name}`, then repeat the command",
            )
        latest_path = self.folder / f"{schedule.name}.json"
        if schedule.deleted:
            latest_path.unlink(missing_ok=True)
        else:
            files.write_bytes(latest_path, content)
        return schedule

    def _revisions_folder(self, name: str) -> Path:
        return self.folder / name / "revisions"

    def _read_revision(self, path: Path) -> Schedule:
        try:
            return Schedule(**json.loads(path.read_text()))
        except (ValidationError, ValueError, TypeError) as error:
            raise RanklineError(
                "a schedule cannot be read",
                expected="a revision as `rankline schedule` writes it",
                found=files.first_line(error),
                where=str(path),
                hint="restore the file from a backup; the other revisions are in the same folder",
            ) from error


def _utc_isoformat(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat()
