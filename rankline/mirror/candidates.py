"""What MLflow should show, as a function of the registry's history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rankline.registry import registry_state
from rankline.registry.anchor import BREAK_GLASS
from rankline.registry.registry_state import CONFIRMED, PROMOTING, Event
from rankline.registry.removal import removal_event

CHAMPION_ALIAS, CANDIDATE_ALIAS = "champion", "candidate"
_VERDICTS = ("pending", "approved", "rejected", "promoted")


@dataclass(frozen=True)
class CandidateRecord:
    """A model that was evaluated: its events in one place."""

    model_id: str
    first: Event
    evaluated: Event  # the newest evaluation
    verdict: Event | None  # the newest verdict; None while there is none
    removed: Event | None
    began_from: str = ""
    break_glass: str = ""  # "yes", or "confirmed" once a gate has passed it
    manifest: str = ""
    catalogue: str = ""
    digests: dict[str, str] = field(default_factory=dict)  # of the newest evidence

    @property
    def newest(self) -> Event:
        """The event that says how it stands."""
        return self.verdict or self.evaluated

    @property
    def outcome(self) -> str:
        """promoted, pending, approved, refused, insufficient_data, rejected (by a reviewer), or evaluated."""
        if self.verdict is None:
            return "evaluated"
        if self.verdict.kind == "rejected":  # by the gates, whose outcome is in the details, or by a reviewer
            return str(self.verdict.details.get("outcome") or "rejected")
        return self.verdict.kind


def candidate_records(history: Sequence[Event]) -> dict[str, CandidateRecord]:
    """Model id -> record of every model that was evaluated or has served, oldest first."""
    events_of: dict[str, list[Event]] = {}
    for event in history:
        if event.model_id and event.kind in ("registered", "evaluated", "rolled_back", *_VERDICTS, CONFIRMED):
            events_of.setdefault(event.model_id, []).append(event)
    whole = list(history)
    return {
        model_id: _record(model_id, events, removal_event(whole, model_id))
        for model_id, events in events_of.items()
        if any(event.kind == "evaluated" or event.kind in PROMOTING for event in events)
    }


def _record(model_id: str, events: list[Event], removed: Event | None) -> CandidateRecord:
    digests: dict[str, str] = {}
    for event in events:
        if event.kind == "evaluated":  # newer evidence: an earlier verdict is on other figures
            digests.pop("verdict", None)
        digests |= event.digests
    registered = next((event for event in events if event.kind == "registered"), events[0])
    verdicts = [event for event in events if event.kind in _VERDICTS]
    promotions = [event for event in events if event.kind == "promoted"]
    return CandidateRecord(
        model_id,
        first=events[0],
        evaluated=next((event for event in reversed(events) if event.kind == "evaluated"), events[0]),
        verdict=verdicts[-1] if verdicts else None,
        removed=removed,
        began_from=str(registered.details.get("began_from", "")),
        break_glass=_break_glass(promotions[-1], events) if promotions else "",
        manifest=digests.get("manifest", ""),
        catalogue=digests.get("catalogue", ""),
        digests={name: digests[name] for name in ("evaluation", "verdict") if name in digests},
    )


def _break_glass(promotion: Event, events: list[Event]) -> str:
    if not promotion.details.get(BREAK_GLASS):
        return ""
    return "confirmed" if any(each.kind == CONFIRMED and each.n > promotion.n for each in events) else "yes"


def aliases(history: Sequence[Event]) -> dict[str, str]:
    """Alias -> the model it names: the one that serves, and the newest one that waits for a reviewer."""
    named: dict[str, str] = {}
    champion = registry_state.champion(history)
    if champion is not None:
        named[CHAMPION_ALIAS] = champion.model_id
    waiting = [
        record
        for record in candidate_records(history).values()
        if record.outcome in ("pending", "approved") and not record.removed
    ]
    if waiting:
        named[CANDIDATE_ALIAS] = max(waiting, key=lambda record: record.newest.n).model_id
    return named
