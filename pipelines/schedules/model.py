"""What a schedule is: which recipe runs when, on which window of the data.

A fire time belongs to the revision that is in force at that time, so an update never changes earlier ones. A schedule
that is paused or deleted at a time has no fire time there.
"""

from __future__ import annotations

import re
import urllib.parse
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationError, field_validator, model_validator

from pipelines.retention.policy import Keep
from pipelines.schedules import cron as crons
from pipelines.schedules.cursor import FAR_AHEAD
from pipelines.schedules.firing import Firing, Kind
from pipelines.schedules.triggers.budget import Budget
from pipelines.schedules.triggers.spec import KINDS, STATISTICAL, Trigger, parse
from rankline.contracts import FrozenModel
from rankline.errors import UsageError
from rankline.runtime.steps import Flow
from rankline.schedules.data_window import SPAN, Window, data_window, parse_span
from rankline.schedules.fire_times import Cron

_MAX_SPAN_DAYS = 36_500
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EVERY_SECOND = "* * * * * *"
_SECRET_FIELDS = ("webhook", "webhook_headers")  # a value given here by mistake may be a secret: never repeat it
_WINDOW_SETTINGS = ("ingest.window_start", "ingest.window_end")


class Schedule(FrozenModel):
    """One revision of a schedule."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,62}$", description="Name of the schedule.")
    recipe: str = Field(description="Name of the recipe, or module:function.")
    source: str | None = Field(None, description="Where the data is, for a recipe that reads any source.")
    map: str | None = Field(None, description="File that maps the columns of the source.")
    flow: Flow = Field(
        "train", description="Flow of the recipe: training, a refresh of the catalogue, or features alone."
    )
    settings: tuple[str, ...] = Field((), description="Changed settings, each section.setting=value.")
    runner: Literal["local", "docker"] = Field("local", description="Where the steps run: processes, or containers.")
    directory: str = Field("", description="Working directory of the runs; relative paths and modules are found there.")
    cron: str = Field(
        "",
        description="Six fields: second, minute, hour, day of the month, month, day of the week; empty for a schedule "
        "that fires by need alone.",
    )
    zone: str = Field("UTC", description="IANA time zone of the cron expression and of the window's days.")
    window: str = Field(
        "", description="Length of the data window, such as 30d, 8w, 1mo or 12h; empty for everything up to its end."
    )
    lag: str = Field("0s", description="How long before the scheduled time the data window ends, such as 6h.")
    catch_up: Literal["coalesce", "all"] = Field(
        "coalesce", description="Which missed fire times run: the latest only, or all of them, oldest first."
    )
    catch_up_limit: int = Field(
        10, ge=1, le=1000, description="With all: how many missed fire times run; older ones are skipped."
    )
    max_runs: int = Field(1, ge=1, le=64, description="Largest number of concurrent runs of this schedule.")
    when: tuple[str, ...] = Field((), description="Triggers by need, each such as events>=10000 or drift:price>=0.2.")
    check_every: str = Field("1h", description="How often the triggers are checked, such as 30m.")
    cooldown: str = Field("1d", description="Shortest time between two firings by need.")
    budget: Budget = Field(Budget(), description="What firings by need may use within 24 hours.")
    false_alarms: float = Field(
        0.05,
        gt=0,
        lt=0.5,
        description="Probability that drift, scores or decay fire at all in a year in which nothing changes.",
    )
    jitter_s: float = Field(
        0.0, ge=0, description="Largest delay of a start; the delay of a fire time is always the same."
    )
    scratch_every: int = Field(
        0,
        ge=0,
        description="With finetune.warm_start: train every N-th finished run from scratch; 0 is never.",
    )
    keep: Keep | None = Field(None, description="What `rankline gc` keeps after each run; None removes nothing.")
    paused: bool = Field(False, description="Whether it starts no runs.")
    webhook: str = Field("", description="URL that receives a POST for each failed run.")
    webhook_headers: str = Field("", description="Environment variable with more headers as JSON, such as a secret.")
    webhook_on_refusal: bool = Field(False, description="Whether refused models are posted, too.")
    revision: int = Field(1, ge=1, description="Number of the revision.")
    created_at: str = Field("", description="ISO time, UTC.")
    updated_at: str = Field("", description="ISO time, UTC, from which this revision is in force.")
    deleted: bool = Field(False, description="Whether it has been deleted.")

    @field_validator("window", "lag", "check_every", "cooldown")
    @classmethod
    def _check_span(cls, text: str) -> str:
        if text and not SPAN.fullmatch(text):
            raise ValueError("write a number and a unit: 90s, 30m, 12h, 30d, 8w or 1mo")
        if len(text) > 15 or parse_span(text).elapsed_s > _MAX_SPAN_DAYS * 86_400:
            raise ValueError(f"the longest is {_MAX_SPAN_DAYS}d, a hundred years")
        return text

    @field_validator("window")
    @classmethod
    def _check_window_length(cls, text: str) -> str:
        if text and parse_span(text).count == 0:
            raise ValueError("a window of zero length holds nothing")
        return text

    @field_validator("lag")
    @classmethod
    def _check_lag(cls, text: str) -> str:
        if parse_span(text).unit == "mo":
            raise ValueError("months differ in length, and a lag should not: write it in days or weeks")
        return text or "0s"

    @field_validator("check_every")
    @classmethod
    def _check_pause(cls, text: str) -> str:
        if parse_span(text).elapsed_s < 60:
            raise ValueError("a check reads the source: the shortest is 1m")
        return text

    @field_validator("when")
    @classmethod
    def _check_triggers(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        triggers = [parse(text) for text in texts]
        if len({(each.kind, each.subject, each.path) for each in triggers}) < len(triggers):
            raise ValueError("each trigger is there once")
        return tuple(map(str, triggers))

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
            raise ValueError("a webhook URL starts with http:// or https://")
        if parts.password is not None:
            raise ValueError("leave the password out of the URL: webhook_headers names the variable that holds secrets")
        return url

    @model_validator(mode="after")
    def _check_flow(self) -> Schedule:
        for each in self.triggers:
            if self.flow not in KINDS[each.kind].flows:
                flows = " or ".join(KINDS[each.kind].flows)
                raise ValueError(f"{each} starts a run of the flow {flows}, and this schedule's is {self.flow}")
        return self

    @model_validator(mode="after")
    def _check_cron(self) -> Schedule:
        if not self.cron and self.when:
            return self
        try:
            cron_rule, _ = crons.parse(self.cron, self.zone, seconds_first=True)
        except UsageError as error:
            raise ValueError(str(error)) from error
        effective_from = (
            datetime.fromisoformat(self.updated_at) if self.updated_at else datetime(2026, 1, 1, tzinfo=UTC)
        )
        if self.jitter_s and self.jitter_s >= (gap := crons.shortest_gap_s(cron_rule, effective_from)):
            raise ValueError(f"a jitter of {self.jitter_s:g} s reaches the next fire time, {gap:g} s later")
        day = self.cron.split()[3]
        if day in ("29", "30", "31") and parse_span(self.window).unit == "mo":
            raise ValueError(f"not every month has a day {day}, so its windows would not meet: name a day from 1 to 28")
        return self

    @property
    def rule(self) -> Cron:
        """When it fires by the clock; without a cron expression, the clock alone."""
        return Cron(self.cron or _EVERY_SECOND, self.zone)

    @property
    def triggers(self) -> list[Trigger]:
        """Its triggers by need."""
        return [parse(text) for text in self.when]

    @property
    def alpha(self) -> float:
        """The probability per year with which each of its statistical triggers may fire by chance."""
        return self.false_alarms / max(sum(each.kind in STATISTICAL for each in self.triggers), 1)

    @property
    def effective_from(self) -> datetime:
        """The time from which this revision is in force."""
        return datetime.fromisoformat(self.updated_at)

    def window_of(self, scheduled_at: datetime) -> Window:
        """The data window of a fire time, however late its run starts."""
        return data_window(self.rule, scheduled_at, window=self.window, lag=self.lag)

    def earliest_start(self, scheduled_at: datetime) -> datetime:
        """When the run of a fire time may start: the scheduled time plus its jitter."""
        if not self.jitter_s:
            return scheduled_at
        share = zlib.crc32(f"{self.name} {scheduled_at.astimezone(UTC).isoformat()}".encode()) / 2**32
        return scheduled_at + timedelta(seconds=share * self.jitter_s)

    def run_settings(self, scheduled_at: datetime, *, allow_older_window: bool = False) -> list[str]:
        """The settings of the run of a fire time."""
        window = self.window_of(scheduled_at)
        settings = [*self.settings, f"ingest.window_end={window.end.isoformat()}"]
        if window.start:
            settings.append(f"ingest.window_start={window.start.isoformat()}")
        return [*settings, "decide.allow_older_window=true"] if allow_older_window else settings

    def firing(
        self, scheduled_at: datetime, kind: Kind, *, now: datetime, allow_older_window: bool = False, why: str = ""
    ) -> Firing:
        """The record of a fire time by this revision; `Firings.create` takes the fire time with it."""
        window = self.window_of(scheduled_at)
        return Firing(
            schedule=self.name,
            scheduled_at=scheduled_at.isoformat(),
            window_start=window.start.isoformat() if window.start else None,
            window_end=window.end.isoformat(),
            kind=kind,
            revision=self.revision,
            claimed_at=now.isoformat(),
            allow_older_window=allow_older_window,
            why=why,
        )


def in_force(history: Sequence[Schedule], now: datetime) -> list[Schedule]:
    """The revisions as they count at ``now``.

    One whose time is far ahead was made by a clock that was wrong: it counts from the one before on.
    """
    limit = now + FAR_AHEAD
    past = [each.updated_at for each in history if each.effective_from <= limit]
    earliest = {"updated_at": past[-1] if past else datetime.fromtimestamp(0, UTC).isoformat()}
    return [each if each.effective_from <= limit else each.model_copy(update=earliest) for each in history]


class Due(NamedTuple):
    """A fire time and the revision that it belongs to."""

    scheduled_at: datetime
    schedule: Schedule


def due(history: Sequence[Schedule], *, after: datetime, until: datetime | None = None) -> Iterator[Due]:
    """The fire times after ``after``, up to and including ``until``, each by the revision in force at that time."""
    for index, revision in enumerate(history):
        superseded_at = history[index + 1].effective_from if index + 1 < len(history) else None
        last = min((each for each in (superseded_at, until) if each is not None), default=None)
        if not revision.cron or revision.paused or revision.deleted or (last is not None and last <= after):
            continue
        for scheduled_at in revision.rule.after(max(after, revision.effective_from)):
            if last is not None and scheduled_at > last:
                break
            yield Due(scheduled_at, revision)


def validate_schedule(values: dict[str, Any]) -> Schedule:
    """A schedule with these values.

    Raises:
        UsageError: a value is not valid.
    """
    try:
        schedule = Schedule(**values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"the {field} of the schedule is not valid" if field else "the schedule is not valid",
            expected=first["msg"].removeprefix("Value error, "),
            found=repr(first["input"]) if field and field not in _SECRET_FIELDS else "",
            hint="`rankline schedule create --help` explains each setting",
        ) from error
    if not schedule.deleted:  # not a validator: a schedule of an earlier version can still be read and corrected
        _refuse_secrets(schedule)
    return schedule


def _refuse_secrets(schedule: Schedule) -> None:
    """Refuse a secret where the name of a variable or a plain URL belongs; the message does not repeat it.

    Raises:
        UsageError: the headers are not the name of a variable, or the webhook's URL names a user.
    """
    if schedule.webhook_headers and not _VARIABLE.fullmatch(schedule.webhook_headers):
        raise UsageError(
            "the webhook_headers of the schedule are not valid",
            expected="the name of an environment variable, such as HOOK_HEADERS: letters, digits and _",
            found="something else, which is not stored",
            hint="set a variable to the headers, as JSON, where you start the scheduler",
        )
    if "@" in urllib.parse.urlsplit(schedule.webhook).netloc:
        raise UsageError(
            "the webhook of the schedule is not valid",
            expected="a URL without a user or a password",
            found="a URL with a user, which is not stored",
            hint="webhook_headers names the variable that holds secrets",
        )
