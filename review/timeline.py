"""The history of a registry as its readers ask: what happened, what served at a time, where a model comes from."""

from __future__ import annotations

from collections.abc import Container, Sequence
from datetime import datetime
from typing import Any

from rankline.contracts import FrozenModel
from rankline.registry import anchor, registry_state
from rankline.registry.anchor import BREAK_GLASS
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import ANCHORED, PROMOTING, PUBLISHING, TAKEDOWNS, Event
from rankline.utc import parse_utc


class Entry(FrozenModel):
    """An event with what it changed: ``before`` and ``after`` are models, catalogue revisions, or empty."""

    n: int
    kind: str
    at: str
    who: str
    why: str
    model_id: str
    run_id: str
    before: str = ""
    after: str = ""
    items: tuple[str, ...] = ()  # that were hidden or shown
    break_glass: bool = False


class Serving(FrozenModel):
    """What served at a time, and the event that made it serve."""

    model_id: str
    revision: str  # of the catalogue; empty for the bundle's own
    hidden: tuple[str, ...]
    event: int
    kind: str
    at: str
    who: str
    why: str
    warning: str = ""  # it was promoted past the gates


class Lineage(FrozenModel):
    """Where a model comes from."""

    model_id: str
    recipe: str
    run_id: str
    data_digest: str
    code_digest: str
    train_end: str
    data_end: str
    registered_at: str
    parents: tuple[str, ...] = ()  # the models that training started from, the nearest first
    evaluation: str = ""
    verdict: str = ""
    events: tuple[Entry, ...] = ()


def timeline(history: Sequence[Event], numbers: Container[int] | None = None) -> list[Entry]:
    """Every event, oldest first; with ``numbers`` only the events that have them."""
    entries: list[Entry] = []
    published: dict[str, str] = {}
    anchored = ""
    for event in history:
        before, after = "", ""
        if event.kind in PROMOTING:
            before, after = event.champion_before, event.model_id
        elif event.kind == PUBLISHING:
            before, after = published.get(event.model_id, ""), event.digests["catalogue"]
            published[event.model_id] = after
        elif event.kind == ANCHORED:
            before, after = anchored, event.model_id
            anchored = event.model_id
        if event.kind == "registered":
            published[event.model_id] = event.digests.get("catalogue", "")
        if event.kind in PROMOTING and not anchored and not event.details.get(BREAK_GLASS):
            anchored = event.model_id
        if numbers is None or event.n in numbers:
            entries.append(_entry(event, before, after))
    return entries


def _entry(event: Event, before: str, after: str) -> Entry:
    return Entry(
        n=event.n,
        kind=event.kind,
        at=event.at,
        who=event.who,
        why=event.why,
        model_id=event.model_id,
        run_id=event.run_id,
        before=before,
        after=after,
        items=tuple(event.details["items"]) if event.kind in TAKEDOWNS else (),
        break_glass=bool(event.details.get(BREAK_GLASS)),
    )


def serving_at(history: Sequence[Event], instant: datetime) -> Serving | None:
    """What served at an instant; None before the first promotion.

    Events count in their order: those up to the last one that was written by then.
    """
    return serving(history[: max((event.n for event in history if parse_utc(event.at) <= instant), default=0)])


def serving(history: Sequence[Event]) -> Serving | None:
    """What serves after these events; None before the first promotion."""
    past = list(history)
    champion = registry_state.champion(past)
    if champion is None:
        return None
    event = past[champion.event - 1]
    return Serving(
        model_id=champion.model_id,
        revision=champion.revision,
        hidden=champion.hidden,
        event=event.n,
        kind=event.kind,
        at=event.at,
        who=event.who,
        why=event.why,
        warning=anchor.warning(past),
    )


def lineage(models: ModelRegistry, model_id: str) -> Lineage:
    """Where a model comes from: its data, code, recipe, run, the models it was started from, and its evidence.

    Raises:
        RegistryError: the model is not in the registry.
    """
    manifest, history = models.manifest(model_id), models.history()
    own = [event for event in history if event.model_id == model_id]
    registered = next((event for event in reversed(own) if event.kind == "registered"), None)
    digests: dict[str, Any] = {}
    for event in own:
        digests |= {name: event.digests[name] for name in ("evaluation", "verdict") if name in event.digests}
    return Lineage(
        model_id=model_id,
        recipe=manifest.recipe,
        run_id=registered.run_id if registered else "",
        data_digest=manifest.data_digest,
        code_digest=manifest.code_digest,
        train_end=manifest.train_end,
        data_end=manifest.data_end,
        registered_at=registered.at if registered else "",
        parents=_parents(history, model_id),
        events=tuple(timeline(history, {event.n for event in events_of(history, model_id)})),
        **digests,
    )


def events_of(history: Sequence[Event], model_id: str) -> list[Event]:
    """The events of a model, and the rollbacks that ended its time as the champion."""
    return [
        event
        for event in history
        if event.model_id == model_id or (event.kind == "rolled_back" and event.champion_before == model_id)
    ]


def _parents(history: Sequence[Event], model_id: str) -> tuple[str, ...]:
    """The models whose weights a model was started from, the nearest first."""
    began_from = {
        event.model_id: str(event.details.get("began_from", "")) for event in history if event.kind == "registered"
    }
    parents: list[str] = []
    parent = began_from.get(model_id, "")
    while parent not in ("", "scratch", model_id, *parents):
        parents.append(parent)
        parent = began_from.get(parent, "")
    return tuple(parents)
