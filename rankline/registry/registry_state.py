"""What the events of a model repository add up to: who serves, over which catalogue, and what is hidden.

Pure functions over the history. ``champion.json`` is a kept copy of the sum, believed only where the few events
that it names say the same, so that a reader need not go through all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal

from pydantic import Field

from rankline.contracts import FrozenModel
from rankline.io import digest

Kind = Literal[
    "registered",
    "evaluated",
    "pending",
    "approved",
    "rejected",
    "promoted",
    "rolled_back",
    "catalogue_published",
    "items_hidden",
    "items_shown",
    "removed",
]
# the kinds after which another model serves
PROMOTING = ("promoted", "rolled_back")
# the kind after which a model serves over another revision of its catalogue
PUBLISHING: Final = "catalogue_published"
# the kinds after which other items are left out of every answer
HIDING: Final = "items_hidden"
SHOWING: Final = "items_shown"
TAKEDOWNS = (HIDING, SHOWING)
# the kind after which a model, or one revision of its catalogue, is not kept any more
REMOVED: Final = "removed"


class Event(FrozenModel):
    """One thing that happened to a model, or to items; never changed once written."""

    n: int = Field(ge=1)
    kind: Kind
    model_id: str = Field(description="empty where it is about items, whichever model serves")
    at: str = Field(description="ISO time, UTC")
    who: str
    why: str
    run_id: str = ""
    digests: dict[str, str] = Field(default={}, description="what it stands on: manifest, evidence, verdict…")
    details: dict[str, Any] = Field(default={}, description="the numbers behind it")
    champion_before: str = Field(default="", description="who served when it was written; empty for nobody")


def missing_content(event: Event) -> str:
    """What an event of its kind has to say and this one does not; empty where it is sound."""
    if event.kind == PUBLISHING and "catalogue" not in event.digests:
        return "no catalogue in its digests"
    if event.kind in TAKEDOWNS:
        items = event.details.get("items")
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            return "no list of items in its details"
    return ""


class Champion(FrozenModel):
    """The model that serves, over which catalogue, without which items, and the events that made it so."""

    model_id: str
    run_id: str
    at: str
    event: int = Field(description="the number of the event that made it champion")
    read_to: int = Field(description="the number of the last event this was drawn from")
    revision: str = Field(default="", description="the published catalogue; empty for the bundle's own")
    published: int = Field(default=0, description="the number of the event that published it; 0 for none")
    hidden: tuple[str, ...] = Field(default=(), description="items left out of every answer, sorted")
    hidden_by: int = Field(default=0, description="the number of the last event that hid or showed items; 0 for none")


def champion(history: Sequence[Event]) -> Champion | None:
    """Who serves after these events; None for nobody."""
    promotions = [event for event in history if event.kind in PROMOTING]
    if not promotions:
        return None
    takedowns = [event for event in history if event.kind in TAKEDOWNS]
    return _champion_from_events(
        promotions[-1],
        last_publication(history, promotions[-1].model_id),
        takedowns[-1] if takedowns else None,
        hidden=sorted(hidden(history)),
        read_to=history[-1].n,
    )


def is_consistent(cached: Champion, event_of: Callable[[int], Event]) -> bool:
    """Whether a kept champion is what the events that it names say; whether later ones exist is not looked at."""
    if "revision" not in cached.model_fields_set:  # written by a version that did not heed publications and takedowns
        return False
    promotion = event_of(cached.event)
    published = event_of(cached.published) if cached.published else None
    takedown = event_of(cached.hidden_by) if cached.hidden_by else None
    if promotion.kind not in PROMOTING:
        return False
    if published and (published.kind != PUBLISHING or published.model_id != promotion.model_id):
        return False
    if takedown and (takedown.kind not in TAKEDOWNS or takedown.digests.get("hidden") != hidden_digest(cached.hidden)):
        return False
    names = cached.hidden if takedown else ()
    return cached == _champion_from_events(promotion, published, takedown, hidden=names, read_to=cached.read_to)


def last_publication(history: Iterable[Event], model_id: str) -> Event | None:
    """The last event that published a catalogue of a model; None where it never left the bundle's own.

    A model that was removed, and is registered anew, begins with its own again.
    """
    last = None
    for event in history:
        if event.model_id == model_id and event.kind == PUBLISHING:
            last = event
        elif event.model_id == model_id and event.kind == REMOVED and "catalogue" not in event.digests:
            last = None
    return last


def revision(history: Iterable[Event], model_id: str) -> str:
    """The revision of the catalogue that a model serves with; empty for the bundle's own."""
    event = last_publication(history, model_id)
    return event.digests["catalogue"] if event else ""


def hidden(history: Iterable[Event]) -> dict[str, Event]:
    """Every item that is left out of all answers, and the event that hid it."""
    out: dict[str, Event] = {}
    for event in history:
        if event.kind == HIDING:
            out |= dict.fromkeys(event.details["items"], event)
        elif event.kind == SHOWING:
            for item in event.details["items"]:
                out.pop(item, None)
    return out


def hidden_digest(hidden: Iterable[str]) -> str:
    """What an event that hides or shows items says of all that are hidden after it."""
    return digest.json_digest(sorted(hidden))


def _champion_from_events(
    promotion: Event, published: Event | None, takedown: Event | None, *, hidden: Iterable[str], read_to: int
) -> Champion:
    revision = published.digests["catalogue"] if published else ""
    return Champion(
        model_id=promotion.model_id,
        run_id=promotion.run_id,
        at=promotion.at,
        event=promotion.n,
        read_to=read_to,
        # who went back to the bundle's own catalogue serves what was there before any publication
        revision="" if revision == promotion.digests.get("catalogue") else revision,
        published=published.n if published else 0,
        hidden=tuple(hidden),
        hidden_by=takedown.n if takedown else 0,
    )
