"""The event log of a model registry.

    events/<n>.json   append-only, numbered from 1 without a gap
    champion.json     a cache of what the events add up to, polled by servers

Creating ``events/<n>.json`` exclusively is the commit: of two writers only one creates number n; the other reads that
event and decides again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Required, TypedDict

from pydantic import ValidationError

from rankline.errors import IntegrityError, StorageError
from rankline.io.blob_store import BlobStore
from rankline.io.files import first_line
from rankline.registry import registry_state
from rankline.registry.registry_state import TAKEDOWNS, Champion, Event, Kind


class EventFields(TypedDict, total=False):
    """What a caller says of an event besides its kind, its model and the files that it makes serve."""

    who: Required[str]
    why: Required[str]
    run_id: str
    details: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class EventDraft:
    """An event before it has a number."""

    kind: Kind
    model_id: str
    who: str
    why: str
    run_id: str = ""
    digests: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def after(self, history: list[Event]) -> Event:
        """The event that follows this history."""
        champion = registry_state.champion(history)
        event = Event(
            n=len(history) + 1,
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            champion_before=champion.model_id if champion else "",
            **vars(self),
        )
        if self.kind not in TAKEDOWNS:
            return event
        # lets `registry_state.is_consistent` check all hidden items against this one event
        hidden_digest = registry_state.hidden_digest(registry_state.hidden([*history, event]))
        return event.model_copy(update={"digests": {**self.digests, "hidden": hidden_digest}})


class EventLog(BlobStore):
    """The events of a registry. Reading takes no lock; writing takes only the number of the next event."""

    def __init__(self, url: str | Path, *, repair_cache: bool = True) -> None:
        """``repair_cache``: rewrite champion.json when it does not match the events."""
        super().__init__(url)
        self.repair_cache = repair_cache
        self._events: dict[int, Event] = {}

    def history(self) -> list[Event]:
        """Every event, oldest first.

        Raises:
            IntegrityError: an event is missing or cannot be read.
        """
        self.fs.invalidate_cache()
        return [self.event(n) for n in range(1, max(self._event_numbers(), default=0) + 1)]

    def write_event(self, draft: EventDraft, allowed: Callable[[list[Event]], bool]) -> Event | None:
        """Write the next event; None if it is not ``allowed``.

        ``allowed`` gets the history that the event would follow, and again a longer one after a concurrent write.

        Raises:
            RegistryError: the registry cannot be written.
        """
        while True:
            history = self.history()
            if not allowed(history):
                return None
            event = draft.after(history)
            if self._create(f"events/{event.n}.json", event.model_dump_json(indent=2).encode() + b"\n"):
                self.champion_record()  # repairs champion.json
                return event

    def champion(self) -> str:
        """The id of the model that serves; empty without one."""
        champion = self.champion_record()
        return champion.model_id if champion else ""

    def champion_record(self) -> Champion | None:
        """The champion, from champion.json if it matches the events (a few small reads), else from all events."""
        self.fs.invalidate_cache()
        cached = self._cached_champion()
        if cached is not None:
            return cached
        champion = registry_state.champion(self.history())
        if champion is not None and self.repair_cache:
            with suppress(OSError, StorageError):  # a reader without write permission still gets the champion
                self._replace("champion.json", champion.model_dump_json(indent=2).encode() + b"\n")
        return champion

    def _cached_champion(self) -> Champion | None:
        """champion.json; None if it is missing, unreadable, outdated or contradicts the events."""
        try:
            cached = Champion.model_validate_json(self._read("champion.json"))
            is_consistent = registry_state.is_consistent(cached, self.event)
        except (FileNotFoundError, ValidationError, IntegrityError):
            return None
        exists = self.fs.exists
        is_current = exists(self._path(f"events/{cached.read_to}.json")) and not exists(
            self._path(f"events/{cached.read_to + 1}.json")
        )
        return cached if is_consistent and is_current else None

    def _event_numbers(self) -> list[int]:
        folder = self._path("events")
        try:  # fsspec asks the size of each file in a folder
            names = os.listdir(folder) if self.local else self.fs.ls(folder, detail=False)
        except FileNotFoundError:
            return []
        stems = (name.rsplit("/", 1)[-1].removesuffix(".json") for name in names)
        return [int(stem) for stem in stems if stem.isdigit()]

    def event(self, n: int) -> Event:
        """The event of a number.

        Raises:
            IntegrityError: it is missing or cannot be read.
        """
        if n in self._events:  # events never change
            return self._events[n]
        path = f"events/{n}.json"
        try:
            event = Event.model_validate_json(self._read(path))
            problem = registry_state.missing_content(event) if event.n == n else f"event {event.n}"
            if not problem:
                self._events[n] = event
                return event
        except FileNotFoundError:
            problem = "no such file"
        except ValidationError as error:
            problem = first_line(error)
        raise IntegrityError(
            "the history of the model registry is damaged",
            expected=f"a complete event {n}",
            found=problem,
            where=self._path(path),
            hint="restore the file from a backup; events are never removed",
        )
