"""Schedules: which recipe is to run when, on which window of the data; kept in the workspace with all their revisions.

    schedules/NAME/revisions/0001.json …   creating the next one exclusively is the change
    schedules/NAME.json                    the latest of them, for people
    schedules/NAME/claims/, handled.json   what has been run (pipelines/schedules/firings.py)

A fire time belongs to the revision that was in force at that moment, however late it is looked at: an update never
touches what came before it. A schedule that was paused or deleted at a moment has no fire time there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import urllib.parse
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

from pydantic import Field, ValidationError, field_validator, model_validator

from pipelines.retention.policy import Keep
from pipelines.schedules import cron as crons
from pipelines.schedules.firings import Firings
from rankline.contracts import FrozenModel
from rankline.errors import RanklineError, UsageError
from rankline.io.files import write_json

FOLDER = "schedules"
GRACE_S = 60.0  # a run that begins later than this is catching up
_SPAN = re.compile(r"(\d+)([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_DAYS = {"d": 1, "w": 7}
_TICK = timedelta(microseconds=1)
_LONGEST_DAYS = 36_500
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_FIELDS = ("webhook", "webhook_headers")  # what stands there by mistake may be a secret: it is not said again
_WINDOW_SETTINGS = ("ingest.window_start", "ingest.window_end")


class Window(NamedTuple):
    """The data a run is made of: from ``start`` (none: from the beginning) up to, not including, ``end``; UTC."""

    start: datetime | None
    end: datetime


class Schedule(FrozenModel):
    """One revision of a schedule."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,62}$", description="Name of the schedule.")
    recipe: str = Field(description="Name of the recipe, or module:function.")
    source: str | None = Field(None, description="Where the data is, for a recipe of anybody's.")
    map: str | None = Field(None, description="File that says how to read the source.")
    flow: Literal["train", "refresh", "features"] = Field(
        "train", description="What of the recipe is run: the whole line, a catalogue's refresh, or features alone."
    )
    settings: tuple[str, ...] = Field((), description="Changed knobs, each section.knob=value.")
    runner: Literal["local", "docker"] = Field("local", description="Where the steps run: processes, or containers.")
    directory: str = Field(
        "", description="Folder the runs are started in: relative paths and modules are found there."
    )
    cron: str = Field(description="Six fields: second, minute, hour, day of the month, month, day of the week.")
    zone: str = Field("UTC", description="IANA time zone of the cron expression and of the window's days.")
    window: str = Field(
        "", description="Length of the data window, such as 30d, 8w or 12h; empty for everything up to its end."
    )
    lag: str = Field("0s", description="How long before the scheduled time the data window ends, such as 6h.")
    catch_up: Literal["coalesce", "all"] = Field(
        "coalesce", description="What becomes of missed fire times: the latest runs, or all of them, oldest first."
    )
    catch_up_limit: int = Field(
        10, ge=1, le=1000, description="With all: how many missed fire times may wait; older ones are passed over."
    )
    max_runs: int = Field(1, ge=1, le=64, description="Runs of this schedule that may be under way at once.")
    jitter_s: float = Field(
        0.0, ge=0, description="Largest delay of a start; each fire time has its own, the same every time."
    )
    scratch_every: int = Field(
        0,
        ge=0,
        description="With finetune.warm_start: every how many finished runs one trains from scratch; 0 is never.",
    )
    keep: Keep | None = Field(None, description="What is kept when old things are removed after each run; none: all.")
    paused: bool = Field(False, description="Whether nothing is started.")
    webhook: str = Field("", description="URL that is told of a run that failed.")
    webhook_headers: str = Field(
        "", description="Environment variable that holds further headers as JSON, such as a secret."
    )
    webhook_on_refusal: bool = Field(False, description="Whether it is told of a model that a gate refused, too.")
    revision: int = Field(1, ge=1, description="How often it was written.")
    created_at: str = Field("", description="ISO time, UTC.")
    updated_at: str = Field("", description="ISO time, UTC: from here on this revision's rule holds.")
    deleted: bool = Field(False, description="Whether it has been deleted.")

    @field_validator("window", "lag")
    @classmethod
    def _check_span(cls, text: str) -> str:
        if text and not _SPAN.fullmatch(text):
            raise ValueError("write a number and a unit: 90s, 30m, 12h, 30d or 8w")
        if text and (len(text) > 15 or _span_days(text) > _LONGEST_DAYS):
            raise ValueError(f"the longest is {_LONGEST_DAYS}d, a hundred years")
        return text

    @field_validator("window")
    @classmethod
    def _check_window_length(cls, text: str) -> str:
        if text and int(text[:-1]) == 0:
            raise ValueError("a window of no length holds nothing")
        return text

    @field_validator("lag")
    @classmethod
    def _default_lag(cls, text: str) -> str:
        return text or "0s"

    @field_validator("settings")
    @classmethod
    def _refuse_window_settings(cls, settings: tuple[str, ...]) -> tuple[str, ...]:
        for setting in settings:
            if setting.partition("=")[0].strip() in _WINDOW_SETTINGS:
                raise ValueError("the data window comes from the scheduled time: set window and lag instead")
        return settings

    @field_validator("webhook")
    @classmethod
    def _check_webhook_url(cls, url: str) -> str:
        parts = urllib.parse.urlsplit(url)
        if url and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError("a webhook is a URL that begins with http:// or https://")
        if parts.password is not None:
            raise ValueError("a password is no part of a URL: webhook_headers names the variable that holds secrets")
        return url

    @model_validator(mode="after")
    def _check_cron(self) -> Schedule:
        try:
            cron_rule, _ = crons.parse(self.cron, self.zone, seconds_first=True)
        except UsageError as error:
            raise ValueError(str(error)) from error
        effective_from = (
            datetime.fromisoformat(self.updated_at) if self.updated_at else datetime(2026, 1, 1, tzinfo=UTC)
        )
        if self.jitter_s and self.jitter_s >= (gap := crons.shortest_gap_s(cron_rule, effective_from)):
            raise ValueError(f"a jitter of {self.jitter_s:g} s reaches the next fire time, {gap:g} s later")
        return self

    @property
    def rule(self) -> crons.Cron:
        """When it fires."""
        return crons.Cron(self.cron, self.zone)

    @property
    def effective_from(self) -> datetime:
        """The moment from which this revision holds."""
        return datetime.fromisoformat(self.updated_at)

    def window_of(self, scheduled_at: datetime) -> Window:
        """The data of the run that was to begin at this time, whenever it does begin.

        Days and weeks are the calendar's in the schedule's zone, so the windows of a daily schedule meet without
        a gap when the clocks change; hours and less are time that passes.
        """
        end = self._subtract(scheduled_at.astimezone(UTC), self.lag)
        return Window(self._subtract(end, self.window) if self.window else None, end)

    def _subtract(self, instant: datetime, span: str) -> datetime:
        number, unit = int(span[:-1]), span[-1]
        if unit in _SECONDS:
            return instant - timedelta(seconds=number * _SECONDS[unit])
        zone = ZoneInfo(self.zone)
        # at a jump of the clocks it is the time before it: windows rather overlap than leave something out
        wall_times = (instant.astimezone(zone), (instant - _TICK).astimezone(zone) + _TICK)
        wall_time = min(each.replace(tzinfo=None, fold=0) for each in wall_times) - timedelta(days=number * _DAYS[unit])
        return crons.wall_to_utc(wall_time, zone) if number else instant

    def earliest_start(self, scheduled_at: datetime) -> datetime:
        """When its run may begin: the scheduled time and that time's own jitter."""
        if not self.jitter_s:
            return scheduled_at
        share = zlib.crc32(f"{self.name} {scheduled_at.astimezone(UTC).isoformat()}".encode()) / 2**32
        return scheduled_at + timedelta(seconds=share * self.jitter_s)

    def run_settings(self, scheduled_at: datetime, *, allow_older_window: bool = False) -> list[str]:
        """The settings of the run of this time."""
        window = self.window_of(scheduled_at)
        settings = [*self.settings, f"ingest.window_end={window.end.isoformat()}"]
        if window.start:
            settings.append(f"ingest.window_start={window.start.isoformat()}")
        return [*settings, "decide.allow_older_window=true"] if allow_older_window else settings


class Due(NamedTuple):
    """A fire time and the revision that made it."""

    scheduled_at: datetime
    schedule: Schedule


def due(history: Sequence[Schedule], *, after: datetime, until: datetime | None = None) -> Iterator[Due]:
    """The fire times later than ``after`` (to ``until``, included), each by the revision in force at that time."""
    for index, revision in enumerate(history):
        superseded_at = history[index + 1].effective_from if index + 1 < len(history) else None
        last = min((each for each in (superseded_at, until) if each is not None), default=None)
        if revision.paused or revision.deleted or (last is not None and last <= after):
            continue
        for scheduled_at in revision.rule.after(max(after, revision.effective_from)):
            if last is not None and scheduled_at > last:
                break
            yield Due(scheduled_at, revision)


class LocalSchedules:
    """The schedules of a workspace."""

    def __init__(self, workspace: Path) -> None:
        self.workspace, self.folder = workspace, workspace / FOLDER
        self._revision_cache: dict[Path, Schedule] = {}  # a revision never changes

    def names(self, *, deleted: bool = False) -> list[str]:
        """Their names, in alphabetical order; those that were deleted only where asked for."""
        names = sorted({path.parents[1].name for path in self.folder.glob("*/revisions/[0-9]*.json")})
        return [name for name in names if deleted or not self._is_deleted(name)]

    def history(self, name: str) -> list[Schedule]:
        """Every revision, oldest first; empty where there never was such a schedule."""
        paths = sorted(self._revisions_folder(name).glob("[0-9]*.json"))
        self._revision_cache |= {path: self._read_revision(path) for path in paths if path not in self._revision_cache}
        return [self._revision_cache[path] for path in paths]

    def _is_deleted(self, name: str) -> bool:
        """Whether it is known to be; one that cannot be read is there, so that it hides no other."""
        try:
            return self.history(name)[-1].deleted
        except RanklineError:
            return False

    def get(self, name: str) -> Schedule:
        """The schedule as it is now.

        Raises:
            UsageError: there is none.
        """
        history = self.history(name)
        if not history or history[-1].deleted:
            raise UsageError(
                f"there is no schedule {name!r}",
                expected=", ".join(self.names()) or "a schedule; there are none yet",
                found=name + (", which was deleted" if history else ""),
                where=str(self.folder),
                hint="`rankline schedule list` shows them, `rankline schedule create` makes one",
            )
        return history[-1]

    def firings(self, name: str) -> Firings:
        """What was run of a schedule."""
        return Firings(self.folder / name)

    def create(self, values: dict[str, Any], *, now: datetime) -> Schedule:
        """A new schedule; its first fire time is the first one later than ``now``.

        Raises:
            UsageError: there is one of this name, or a value is none.
        """
        name = str(values.get("name", ""))
        history = self.history(name) if re.fullmatch(r"[a-z0-9-]+", name) else []
        if history and not history[-1].deleted:
            raise UsageError(
                f"there is a schedule {name!r} already",
                expected="another name",
                where=str(self.folder),
                hint=f"`rankline schedule update {name}` changes it",
            )
        return self._commit(values | {"created_at": _utc_isoformat(now)}, history, now=now)

    def update(self, name: str, changes: dict[str, Any], *, now: datetime) -> Schedule:
        """Change a schedule: what was claimed stays, and fire times later than ``now`` follow the new rule.

        Raises:
            UsageError: there is no such schedule, a value is none, or somebody else changed it at the same time.
        """
        self.get(name)  # a name that is none leaves nothing behind
        with self.lock(name):
            before = self.get(name)
            if all(getattr(before, key) == value for key, value in changes.items()):
                return before
            return self._commit(before.model_dump() | changes, self.history(name), now=now)

    def delete(self, name: str, *, now: datetime) -> Schedule:
        """Nothing of it fires any more; runs under way go on, and what it did stays known."""
        return self.update(name, {"deleted": True}, now=now)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Nobody else changes the schedule or claims a fire time of it while the block runs."""
        place = self.folder / name
        place.mkdir(parents=True, exist_ok=True)
        with (place / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _commit(self, values: dict[str, Any], history: list[Schedule], *, now: datetime) -> Schedule:
        latest = history[-1] if history else None
        effective_from = max(now, latest.effective_from) if latest else now  # a clock may have been set back
        number = latest.revision + 1 if latest else 1
        schedule = validate_schedule(values | {"revision": number, "updated_at": _utc_isoformat(effective_from)})
        path = self._revisions_folder(schedule.name) / f"{number:04}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        write_json(partial, schedule.model_dump())
        try:
            os.link(partial, path)
        except FileExistsError as error:
            raise UsageError(
                f"somebody else changed schedule {schedule.name!r} at the same time",
                expected=f"revision {number} to be the next",
                where=str(path),
                hint="look at it, and say it again",
            ) from error
        finally:
            partial.unlink()
        latest_path = self.folder / f"{schedule.name}.json"
        if schedule.deleted:
            latest_path.unlink(missing_ok=True)
        else:
            write_json(latest_path, schedule.model_dump())
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
                found=str(error).splitlines()[0],
                where=str(path),
                hint="put the file back as it was; the other revisions lie beside it",
            ) from error


def validate_schedule(values: dict[str, Any]) -> Schedule:
    """The schedule of these values.

    Raises:
        UsageError: one of them is none.
    """
    try:
        schedule = Schedule(**values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"the schedule refuses its {field}" if field else "this schedule cannot be",
            expected=first["msg"].removeprefix("Value error, "),
            found=repr(first["input"]) if field and field not in _SECRET_FIELDS else "",
            hint="`rankline schedule create --help` says what each is",
        ) from error
    if not schedule.deleted:  # here and not where it is read: one that an earlier version took can be read, and mended
        _refuse_secrets(schedule)
    return schedule


def _refuse_secrets(schedule: Schedule) -> None:
    """Stop where what would be kept is a secret itself; what was given is not said again.

    Raises:
        UsageError: the headers are no variable's name, or the webhook's URL names a user.
    """
    if schedule.webhook_headers and not _VARIABLE.fullmatch(schedule.webhook_headers):
        raise UsageError(
            "the schedule refuses its webhook_headers",
            expected="the name of an environment variable, such as HOOK_HEADERS: letters, digits and _",
            found="something else, which is not kept",
            hint="put the headers, as JSON, into a variable where the scheduler is started",
        )
    if "@" in urllib.parse.urlsplit(schedule.webhook).netloc:
        raise UsageError(
            "the schedule refuses its webhook",
            expected="a URL without a user or a password",
            found="one with a user, which is not kept",
            hint="webhook_headers names the variable that holds secrets",
        )


def _span_days(span: str) -> float:
    number, unit = int(span[:-1]), span[-1]
    return number * _DAYS[unit] if unit in _DAYS else number * _SECONDS[unit] / 86_400


def _utc_isoformat(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat()
