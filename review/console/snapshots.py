"""What the pages show, computed once for each state of the registry: events never change, so their number names it."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import cached_property

from rankline.registry import anchor, registry_state, rollback
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import Champion, Event
from review.queue import WAITING, Candidate, candidates
from review.timeline import Entry, timeline


class Snapshot:
    """The registry after its first n events; every view of them is computed when it is first asked for."""

    def __init__(self, history: list[Event]) -> None:
        self.history = history

    @cached_property
    def candidates(self) -> list[Candidate]:
        return candidates(self.history)

    @cached_property
    def waiting(self) -> list[Candidate]:
        return [each for each in self.candidates if each.status in WAITING]

    @cached_property
    def decided(self) -> list[Candidate]:
        return [each for each in self.candidates if each.status not in WAITING]

    def entries(self, events: Iterable[Event]) -> list[Entry]:
        """What these events changed, the newest first."""
        return timeline(self.history, {event.n for event in events})[::-1]

    @cached_property
    def champion(self) -> Champion | None:
        return registry_state.champion(self.history)

    @cached_property
    def former_champions(self) -> list[str]:
        return rollback.former_champions(self.history)

    @cached_property
    def rollback_candidates(self) -> list[str]:
        return rollback.rollback_candidates(self.history)

    @cached_property
    def warning(self) -> str:
        return anchor.warning(self.history)

    @cached_property
    def model_ids(self) -> list[str]:
        """Every model that was registered, the newest first."""
        return list(dict.fromkeys(event.model_id for event in reversed(self.history) if event.kind == "registered"))


class Snapshots:
    """The newest snapshot of a registry. To see that nothing happened takes a few small reads, whatever its length."""

    def __init__(self, models: ModelRegistry) -> None:
        self._models, self._lock = models, threading.Lock()
        self._newest: Snapshot | None = None

    def now(self) -> Snapshot:
        """The registry as it is now.

        Raises:
            IntegrityError: an event is missing or cannot be read.
        """
        with self._lock:
            champion = self._models.champion_record()
            newest = self._newest
            if newest is None or champion is None or champion.read_to != len(newest.history):
                history = self._models.history()
                if newest is None or len(history) != len(newest.history):
                    self._newest = newest = Snapshot(history)
            return newest
