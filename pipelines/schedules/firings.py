"""Claims of fire times: who has begun what a schedule asked for, and how it ended.

    schedules/NAME/claims/20261122T030000Z.json   one fire time; creating it exclusively is the claim
    schedules/NAME/claims/20261122T030000Z.lock   held by the process that is at work on it, freed by its end
    schedules/NAME/ended.jsonl                    old claims that came to their end, a line each (`rankline gc`)
    schedules/NAME/handled.json                   up to when every fire time was claimed or passed over

A claim that cannot be read is one that ended as `unreadable`: its fire time stays taken, whatever ran of it, and nobody
writes into the file.

It stands on the standard library alone: every run of a schedule begins with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rankline.runtime.outcomes import VERDICT_EXIT_CODES, Outcome

Kind = Literal["scheduled", "catch-up", "backfill"]
Status = Literal["claimed", "running", "ended"]
TIMESTAMP_FORMAT = "%Y%m%dT%H%M%SZ"
MAX_SKIPPED = 200
UNREADABLE = Outcome.UNREADABLE.value  # the outcome of a claim whose file cannot be read


@dataclass(frozen=True)
class Firing:
    """One fire time of one schedule, taken; times are ISO, UTC."""

    schedule: str
    scheduled_at: str
    window_start: str | None
    window_end: str
    kind: Kind
    revision: int  # of the schedule, whose rule it fired by
    claimed_at: str
    allow_older_window: bool = False
    status: Status = "claimed"
    attempts: int = 0  # how often it was begun
    deaths: int = 0  # how often its process ended without a word while somebody watched
    run: str = ""  # the latest run's id
    outcome: str = ""  # of the run: promoted, refused, failed…
    exit_code: int | None = None
    error: str = ""
    started_at: str = ""
    ended_at: str = ""
    notified: str = ""  # what became of the notification
    scratch: bool | None = None  # whether it trains from scratch by the schedule's turn; none: not said

    @property
    def instant(self) -> datetime:
        """When it was to fire."""
        return datetime.fromisoformat(self.scheduled_at)

    @property
    def failed(self) -> bool:
        """Whether it ended, and not with a verdict on a model."""
        return self.status == "ended" and self.exit_code not in VERDICT_EXIT_CODES and self.outcome != UNREADABLE

    @property
    def trigger(self) -> dict[str, Any]:
        """What the run's folder is told of it (trigger.json)."""
        names = ("schedule", "scheduled_at", "window_start", "window_end", "kind")
        return {name: getattr(self, name) for name in names}

    def replace(self, **changes: Any) -> Firing:
        """The same with some of it changed."""
        return dataclasses.replace(self, **changes)


class Firings:
    """The claims of one schedule."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._handled_path, self._archive_path = (
            folder / "claims",
            folder / "handled.json",
            folder / "ended.jsonl",
        )
        self._archived: dict[datetime, Firing] = {}
        self._archive_position: tuple[int, int] = (0, 0)  # of the file of ended claims: which file it is, and how far

    def path(self, instant: datetime, suffix: str = "json") -> Path:
        """Where the claim of a fire time lies, or what belongs to it."""
        return self.folder / f"{instant.astimezone(UTC).strftime(TIMESTAMP_FORMAT)}.{suffix}"

    def create(self, firing: Firing) -> bool:
        """Claim a fire time; False where somebody has. Others see the whole of it or nothing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(firing.instant)
        if self.get_archived(firing.instant) is not None:
            return False
        partial = _write_partial(path, dataclasses.asdict(firing))
        try:
            os.link(partial, path)
        except FileExistsError:
            return False
        finally:
            partial.unlink()
        if self.get_archived(firing.instant) is not None:  # its file made room for its line a moment ago
            path.unlink()
            return False
        return True

    def write(self, firing: Firing) -> None:
        """Put a claim in the place of what was known of it."""
        path = self.path(firing.instant)
        os.replace(_write_partial(path, dataclasses.asdict(firing)), path)

    def read(self, instant: datetime) -> Firing | None:
        """What is known of a fire time; None where nobody has claimed it."""
        return _read_firing(self.path(instant)) or self.get_archived(instant)

    def all(self) -> list[Firing]:
        """Every claim, oldest fire time first."""
        unarchived = {firing.instant: firing for firing in self.unarchived()}
        return [firing for _, firing in sorted({**self._read_archive(), **unarchived}.items())]

    def unarchived(self) -> list[Firing]:
        """The claims that are files of their own, oldest fire time first."""
        firings = (_read_firing(path) for path in sorted(self.folder.glob("*.json")))
        return [firing for firing in firings if firing is not None]

    def unreadable(self) -> list[str]:
        """What of it is there and cannot be read, each with its place."""
        problems = [
            f"{self.path(each.instant)}: {each.error}" for each in self.unarchived() if each.outcome == UNREADABLE
        ]
        _, problem = self._read_handled()
        return [*problems, *([f"{self._handled_path}: {problem}"] if problem else [])]

    # -- old claims -------------------------------------------------------------------------------------

    def get_archived(self, instant: datetime) -> Firing | None:
        """What is known of a fire time whose claim is a line by now."""
        return self._read_archive().get(instant)

    def archive(self, stamp: str) -> str:
        """Turn the claim of this name into a line; why that was not done, empty where it was.

        The line comes first: killed in between, there are both, and they say the same.
        """
        path = self.folder / f"{stamp}.json"
        firing = _read_firing(path)
        if firing is None:
            return ""
        if firing.outcome == UNREADABLE:
            return firing.error
        if firing.status != "ended" or firing.failed:
            return "it is run again"
        if self.get_archived(firing.instant) != firing:
            before = self._archive_path.read_bytes() if self._archive_path.is_file() else b""
            line = json.dumps(dataclasses.asdict(firing), separators=(",", ":")).encode() + b"\n"
            with self._archive_path.open("ab") as file:
                # a line that a kill cut short is no line: the next one begins anew
                file.write((b"" if before.endswith(b"\n") or not before else b"\n") + line)
                file.flush()
                os.fsync(file.fileno())
        for suffix in ("json", "log", "lock"):
            self.path(firing.instant, suffix).unlink(missing_ok=True)
        return ""

    def _read_archive(self) -> dict[datetime, Firing]:
        try:
            status = self._archive_path.stat()
        except FileNotFoundError:
            return {}
        if (status.st_ino, status.st_size) != self._archive_position:
            self._archived = {}
            for line in self._archive_path.read_bytes().splitlines():
                with contextlib.suppress(ValueError, TypeError):  # one that a kill cut short
                    firing = Firing(**json.loads(line))
                    self._archived[firing.instant] = firing
            self._archive_position = (status.st_ino, status.st_size)
        return self._archived

    @contextlib.contextmanager
    def lock(self, instant: datetime, *, timeout_s: float = 60.0) -> Iterator[None]:
        """Nobody else is at work on this fire time while the block runs; a process that dies gives it up.

        Raises:
            TimeoutError: somebody else is, and does not end.
        """
        with (self.folder / self.path(instant, "lock").name).open("a") as file:
            deadline = time.monotonic() + timeout_s
            while not _try_lock(file):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{file.name} is held by another process")
                time.sleep(0.02)
            yield

    def is_running(self, instant: datetime) -> bool:
        """Whether a process is at work on it at this moment."""
        try:
            with self.path(instant, "lock").open("a") as file:
                return not _try_lock(file)
        except FileNotFoundError:
            return False

    # -- what lies behind -------------------------------------------------------------------------------

    def handled(self) -> dict[str, Any]:
        """``until`` (ISO, UTC; empty for never), and ``skipped``: the fire times that were passed over, newest last.

        Where the file cannot be read, it is up to the newest claim, and ``skipped`` says so.
        """
        value, problem = self._read_handled()
        if not problem:
            return value
        try:
            written_at = datetime.fromtimestamp(self._handled_path.stat().st_mtime, UTC)
        except OSError:
            written_at = datetime.now(UTC)
        claims = self.all()
        until = (claims[-1].instant if claims else written_at).astimezone(UTC).isoformat()
        skip = {"first": until, "last": until, "count": "unknown", "why": problem, "at": written_at.isoformat()}
        return {"until": until, "skipped": [skip]}

    def _read_handled(self) -> tuple[dict[str, Any], str]:
        """What the file says, or what is wrong with it."""
        try:
            value = json.loads(self._handled_path.read_text())
            if value["until"]:
                _require_timezone(value["until"])
            if not all(isinstance(each, dict) for each in value["skipped"]):
                raise ValueError("skipped is no list of objects")
        except FileNotFoundError:
            return {"until": "", "skipped": []}, ""
        except (OSError, ValueError, KeyError, TypeError) as error:
            return {}, f"handled.json cannot be read ({_first_line(error)})"
        return value, ""

    def mark_handled(self, until: datetime, *, skipped: dict[str, Any] | None = None) -> None:
        """Every fire time to ``until`` is claimed, or is passed over as ``skipped`` says."""
        before = self.handled()
        passed = [*before["skipped"], *([skipped] if skipped else [])][-MAX_SKIPPED:]
        value = {"until": max(until.astimezone(UTC).isoformat(), before["until"]), "skipped": passed}
        os.replace(_write_partial(self._handled_path, value), self._handled_path)


def _write_partial(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with partial.open("w") as file:
            json.dump(value, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())  # a claim outlives the machine's power, too
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    return partial


def _read_firing(path: Path) -> Firing | None:
    try:
        at = datetime.strptime(path.stem, TIMESTAMP_FORMAT).replace(tzinfo=UTC).isoformat()
    except ValueError:  # no claim has such a name
        return None
    try:
        firing = Firing(**json.loads(path.read_text()))
        for instant in filter(None, (firing.scheduled_at, firing.window_end, firing.claimed_at, firing.ended_at)):
            _require_timezone(instant)
        return firing
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        # by a version with other fields, or damaged: whether it ran is not known, so nobody runs it again
        return Firing(
            schedule=path.parents[1].name, scheduled_at=at, window_start=None, window_end=at, kind="scheduled",
            revision=1, claimed_at=at, status="ended", outcome=UNREADABLE, ended_at=at, notified="it cannot be read",
            error=f"its claim cannot be read ({_first_line(error)})",
        )  # fmt: skip


def _require_timezone(instant: str) -> None:
    if datetime.fromisoformat(instant).tzinfo is None:
        raise ValueError(f"{instant} names no zone")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _try_lock(file: Any) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
