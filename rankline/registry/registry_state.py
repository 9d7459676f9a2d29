"""The state of a model registry, computed from its events: the champion, its catalogue, the hidden items.

Pure functions of the history. ``champion.json`` caches the result; it is trusted only if the few events that it names
agree with it, so that a reader need not read all events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from rankline.contracts import FrozenModel
from rankline.io import digest
from rankline.registry.event_text import one_line

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
    "anchored",
    "confirmed",
]
# kinds that change the champion
PROMOTING = ("promoted", "rolled_back")
# changes the catalogue revision of a model
PUBLISHING: Final = "catalogue_published"
# change which items are left out of every response
HIDING: Final = "items_hidden"
SHOWING: Final = "items_shown"
TAKEDOWNS = (HIDING, SHOWING)
# a model, or one catalogue revision of it, is removed
REMOVED: Final = "removed"
# a model becomes the one that losses are measured against
ANCHORED: Final = "anchored"
# the gates pass a champion that was promoted past them
CONFIRMED: Final = "confirmed"


OneLine = Annotated[str, AfterValidator(one_line)]  # earlier versions stored any text


class Event(FrozenModel):
    """An event of a model or of items; immutable once written."""

    n: int = Field(ge=1)
    kind: Kind
    model_id: str = Field(description="empty for an event about items")
    at: str = Field(description="ISO time, UTC")
    who: OneLine
    why: OneLine
    run_id: str = ""
    digests: dict[str, str] = Field(default={}, description="digests of its manifest, evidence, verdict…")
    details: dict[str, Any] = Field(default={}, description="the numbers behind the decision")
    champion_before: str = Field(default="", description="the champion when it was written; empty for none")


BESIDE: Final = "beside"  # in the details of a verdict: `judged_beside`
FOUR_EYES: Final = "four_eyes"  # in the details of a verdict by which more than one person has to be involved


def judged_beside(history: Sequence[Event], model_id: str) -> dict[str, Any]:
    """What a verdict on a model depends on beside its evidence: the champion, the catalogues, the registration."""
    current = champion(history)
    serving = current.model_id if current else ""
    registered = next((e.n for e in reversed(history) if (e.kind, e.model_id) == ("registered", model_id)), 0)
    return {
        "champion": serving,
        "champion_catalogue": _catalogue(history, serving),
        "catalogue": _catalogue(history, model_id),
        "registered": registered,
    }


def four_eyes(history: Iterable[Event], model_id: str) -> bool:
    """Whether any verdict on a model asked for four eyes: no later one by the same person ends that."""
    return any(event.model_id == model_id and event.details.get(FOUR_EYES) is True for event in history)


def _catalogue(history: Sequence[Event], model_id: str) -> str:
    """The catalogue revision of a model, the bundle's own included."""
    registered = (e for e in reversed(history) if (e.kind, e.model_id) == ("registered", model_id))
    return revision(history, model_id) or next((e.digests.get("catalogue", "") for e in registered), "")


def approval_command(model_id: str, verdict: str) -> str:
    """The command with which a reviewer approves a candidate, by the digest of its verdict."""
    return f"rankline review approve {model_id} --evidence {verdict[:12]}"


def missing_content(event: Event) -> str:
    """What this event lacks for its kind; empty if it is complete."""
    if event.kind == PUBLISHING and "catalogue" not in event.digests:
        return "no catalogue in its digests"
    if event.kind in TAKEDOWNS:
        items = event.details.get("items")
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            return "no list of items in its details"
    return ""


class Champion(FrozenModel):
    """The model that serves, its catalogue, the hidden items, and the events behind them (champion.json)."""

    model_id: str
    run_id: str
    at: str
    event: int = Field(description="the number of the event that made it champion")
    read_to: int = Field(description="the number of the last event that was read")
    revision: str = Field(default="", description="the published catalogue; empty for the bundle's own")
    published: int = Field(default=0, description="the number of the event that published it; 0 for none")
    hidden: tuple[str, ...] = Field(default=(), description="items left out of every response, sorted")
    hidden_by: int = Field(default=0, description="the number of the last event that hid or showed items; 0 for none")


def champion(history: Sequence[Event]) -> Champion | None:
    """The champion after these events; None without one."""
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
    """Whether a cached champion agrees with the events it names; later events are not considered."""
    if "revision" not in cached.model_fields_set:  # from a version without publications and takedowns
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
    """The last event that published a catalogue of a model; None for the bundle's own.

    A model that was removed and registered again starts with its own catalogue.
    """
    last = None
    for event in history:
        if event.model_id == model_id and event.kind == PUBLISHING:
            last = event
        elif event.model_id == model_id and event.kind == REMOVED and "catalogue" not in event.digests:
            last = None
    return last


def revision(history: Iterable[Event], model_id: str) -> str:
    """The published catalogue revision of a model; empty for the bundle's own."""
    event = last_publication(history, model_id)
    return event.digests["catalogue"] if event else ""


def hidden(history: Iterable[Event]) -> dict[str, Event]:
    """Every hidden item, and the event that hid it."""
    out: dict[str, Event] = {}
    for event in history:
        if event.kind == HIDING:
            out |= dict.fromkeys(event.details["items"], event)
        elif event.kind == SHOWING:
            for item in event.details["items"]:
                out.pop(item, None)
    return out


def hidden_digest(hidden: Iterable[str]) -> str:
    """The digest of all hidden items that a takedown event records."""
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
        # publishing the bundle's own catalogue equals no publication
        revision="" if revision == promotion.digests.get("catalogue") else revision,
        published=published.n if published else 0,
        hidden=tuple(hidden),
        hidden_by=takedown.n if takedown else 0,
    )
