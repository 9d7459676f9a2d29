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

Kind = Literal["scheduled", "catch-up", "backfill"]
Status = Literal["claimed", "running", "ended"]
STAMP = "%Y%m%dT%H%M%SZ"
SKIPS_KEPT = 200
UNREADABLE = "unreadable"  # the outcome of a claim whose file cannot be read


@dataclass(frozen=True)
class Claim:
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
    def moment(self) -> datetime:
        """When it was to fire."""
        return datetime.fromisoformat(self.scheduled_at)

    @property
    def failed(self) -> bool:
        """Whether it ended, and not with a verdict on a model."""
        return self.status == "ended" and self.exit_code not in (0, 3) and self.outcome != UNREADABLE

    @property
    def trigger(self) -> dict[str, Any]:
        """What the run's folder is told of it (trigger.json)."""
        names = ("schedule", "scheduled_at", "window_start", "window_end", "kind")
        return {name: getattr(self, name) for name in names}

    def but(self, **changes: Any) -> Claim:
        """The same with some of it changed."""
        return dataclasses.replace(self, **changes)


class Claims:
    """The claims of one schedule."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._handled, self._ended = folder / "claims", folder / "handled.json", folder / "ended.jsonl"
        self._lines: dict[datetime, Claim] = {}
        self._read_to: tuple[int, int] = (0, 0)  # of the file of ended claims: which file it is, and how far

    def path(self, moment: datetime, ending: str = "json") -> Path:
        """Where the claim of a fire time lies, or what belongs to it."""
        return self.folder / f"{moment.astimezone(UTC).strftime(STAMP)}.{ending}"

    def make(self, claim: Claim) -> bool:
        """Claim a fire time; False where somebody has. Others see the whole of it or nothing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(claim.moment)
        if self.filed_away(claim.moment) is not None:
            return False
        partial = _written(path, dataclasses.asdict(claim))
        try:
            os.link(partial, path)
        except FileExistsError:
            return False
        finally:
            partial.unlink()
        if self.filed_away(claim.moment) is not None:  # its file made room for its line a moment ago
            path.unlink()
            return False
        return True

    def write(self, claim: Claim) -> None:
        """Put a claim in the place of what was known of it."""
        path = self.path(claim.moment)
        os.replace(_written(path, dataclasses.asdict(claim)), path)

    def read(self, moment: datetime) -> Claim | None:
        """What is known of a fire time; None where nobody has claimed it."""
        return _read(self.path(moment)) or self.filed_away(moment)

    def all(self) -> list[Claim]:
        """Every claim, oldest fire time first."""
        filed = {claim.moment: claim for claim in self.filed()}
        return [claim for _, claim in sorted({**self._away(), **filed}.items())]

    def filed(self) -> list[Claim]:
        """The claims that are files of their own, oldest fire time first."""
        found = (_read(path) for path in sorted(self.folder.glob("*.json")))
        return [claim for claim in found if claim is not None]

    def unreadable(self) -> list[str]:
        """What of it is there and cannot be read, each with its place."""
        found = [f"{self.path(each.moment)}: {each.error}" for each in self.filed() if each.outcome == UNREADABLE]
        _, trouble = self._handled_so_far()
        return [*found, *([f"{self._handled}: {trouble}"] if trouble else [])]

    # -- old claims -------------------------------------------------------------------------------------

    def filed_away(self, moment: datetime) -> Claim | None:
        """What is known of a fire time whose claim is a line by now."""
        return self._away().get(moment)

    def file_away(self, stamp: str) -> str:
        """Turn the claim of this name into a line; why that was not done, empty where it was.

        The line comes first: killed in between, there are both, and they say the same.
        """
        path = self.folder / f"{stamp}.json"
        claim = _read(path)
        if claim is None:
            return ""
        if claim.outcome == UNREADABLE:
            return claim.error
        if claim.status != "ended" or claim.failed:
            return "it is run again"
        if self.filed_away(claim.moment) != claim:
            before = self._ended.read_bytes() if self._ended.is_file() else b""
            line = json.dumps(dataclasses.asdict(claim), separators=(",", ":")).encode() + b"\n"
            with self._ended.open("ab") as file:
                # a line that a kill cut short is no line: the next one begins anew
                file.write((b"" if before.endswith(b"\n") or not before else b"\n") + line)
                file.flush()
                os.fsync(file.fileno())
        for ending in ("json", "log", "lock"):
            self.path(claim.moment, ending).unlink(missing_ok=True)
        return ""

    def _away(self) -> dict[datetime, Claim]:
        try:
            told = self._ended.stat()
        except FileNotFoundError:
            return {}
        if (told.st_ino, told.st_size) != self._read_to:
            self._lines = {}
            for line in self._ended.read_bytes().splitlines():
                with contextlib.suppress(ValueError, TypeError):  # one that a kill cut short
                    claim = Claim(**json.loads(line))
                    self._lines[claim.moment] = claim
            self._read_to = (told.st_ino, told.st_size)
        return self._lines

    @contextlib.contextmanager
    def alone(self, moment: datetime, *, patience_s: float = 60.0) -> Iterator[None]:
        """Nobody else is at work on this fire time while the block runs; a process that dies gives it up.

        Raises:
            TimeoutError: somebody else is, and does not end.
        """
        with (self.folder / self.path(moment, "lock").name).open("a") as file:
            deadline = time.monotonic() + patience_s
            while not _locked(file):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{file.name} is held by another process")
                time.sleep(0.02)
            yield

    def under_way(self, moment: datetime) -> bool:
        """Whether a process is at work on it at this moment."""
        try:
            with self.path(moment, "lock").open("a") as file:
                return not _locked(file)
        except FileNotFoundError:
            return False

    # -- what lies behind -------------------------------------------------------------------------------

    def handled(self) -> dict[str, Any]:
        """``until`` (ISO, UTC; empty for never), and ``skipped``: the fire times that were passed over, newest last.

        Where the file cannot be read, it is up to the newest claim, and ``skipped`` says so.
        """
        value, trouble = self._handled_so_far()
        if not trouble:
            return value
        try:
            written = datetime.fromtimestamp(self._handled.stat().st_mtime, UTC)
        except OSError:
            written = datetime.now(UTC)
        claims = self.all()
        until = (claims[-1].moment if claims else written).astimezone(UTC).isoformat()
        told = {"first": until, "last": until, "count": "unknown", "why": trouble, "at": written.isoformat()}
        return {"until": until, "skipped": [told]}

    def _handled_so_far(self) -> tuple[dict[str, Any], str]:
        """What the file says, or what is wrong with it."""
        try:
            value = json.loads(self._handled.read_text())
            if value["until"]:
                _aware(value["until"])
            if not all(isinstance(each, dict) for each in value["skipped"]):
                raise ValueError("skipped is no list of objects")
        except FileNotFoundError:
            return {"until": "", "skipped": []}, ""
        except (OSError, ValueError, KeyError, TypeError) as error:
            return {}, f"handled.json cannot be read ({_first_line(error)})"
        return value, ""

    def handle(self, until: datetime, *, skipped: dict[str, Any] | None = None) -> None:
        """Every fire time to ``until`` is claimed, or is passed over as ``skipped`` says."""
        before = self.handled()
        passed = [*before["skipped"], *([skipped] if skipped else [])][-SKIPS_KEPT:]
        value = {"until": max(until.astimezone(UTC).isoformat(), before["until"]), "skipped": passed}
        os.replace(_written(self._handled, value), self._handled)


def _written(path: Path, value: Any) -> Path:
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


def _read(path: Path) -> Claim | None:
    try:
        at = datetime.strptime(path.stem, STAMP).replace(tzinfo=UTC).isoformat()
    except ValueError:  # no claim has such a name
        return None
    try:
        claim = Claim(**json.loads(path.read_text()))
        for moment in filter(None, (claim.scheduled_at, claim.window_end, claim.claimed_at, claim.ended_at)):
            _aware(moment)
        return claim
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        # by a version with other fields, or damaged: whether it ran is not known, so nobody runs it again
        return Claim(
            schedule=path.parents[1].name, scheduled_at=at, window_start=None, window_end=at, kind="scheduled",
            revision=1, claimed_at=at, status="ended", outcome=UNREADABLE, ended_at=at, notified="it cannot be read",
            error=f"its claim cannot be read ({_first_line(error)})",
        )  # fmt: skip


def _aware(moment: str) -> None:
    if datetime.fromisoformat(moment).tzinfo is None:
        raise ValueError(f"{moment} names no zone")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _locked(file: Any) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
