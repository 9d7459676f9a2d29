"""What the events of a source say about items, in sentences: printed by `rankline init`, and comments of its map."""

from __future__ import annotations

from collections.abc import Iterator

from onboarding.inference.event_words import event_label
from onboarding.inference.labels import EventLabels, event_labels
from onboarding.inference.schema import SchemaMapping
from rankline.labels import IMPRESSION, Label

MAX_VALUES = 12


def label_sentences(mapping: SchemaMapping) -> dict[str, str]:
    """Declared label -> what it is read from, and what it makes of an event; the strongest positive first."""
    events = event_labels(mapping)
    ordered = sorted(events.labels.items(), key=lambda each: -_best_weight(each[1]))
    return {name: f"{_origin(events, name, label)}; {_effect(label)}" for name, label in ordered}


def other_sentences(mapping: SchemaMapping) -> Iterator[str]:
    """What becomes of the events that have no label, and which events are of one request."""
    events = event_labels(mapping)
    if not events.labels:
        return
    known = [value for value in events.values("") if event_label(value) is not None]
    if shown := events.values(IMPRESSION):
        yield f"{events.event_type} = {_listed(shown)}: only shown; a negative unless a label makes it a positive"
    elif events.shown:
        yield f"{events.shown}: only shown; a negative unless a label makes it a positive"
    elif set(events.labels) & set(events.columns):
        yield "an event of which no label counts is a negative"
    if known:
        yield f"{events.event_type} = {_listed(known)}: says nothing of an item; kept out of learning"
    if unknown := [value for value in events.values("") if value not in known]:
        yield f"{events.event_type} = {_listed(unknown)}: not known; kept out of learning until you name a label for it"
    if events.event_types and mapping.stats("events", events.event_type).filled < 1:
        yield f"an event without {events.event_type}: says nothing of an item; kept out of learning"
    if request := mapping.column("events", "request_id"):
        yield f"events with the same {request} are of one request"
    if position := mapping.column("events", "position"):
        yield f"{position} is the place of an item in its request"


def _best_weight(label: Label) -> float:
    return label.weight * (label.scale[1] if label.scale else 1)


def _origin(events: EventLabels, name: str, label: Label) -> str:
    """What a label is read from."""
    if column := events.columns.get(name):
        kind = {"binary": "yes or no", "count": "a count", "continuous": "an amount", "graded": "a scale"}[label.type]
        scale = f" from {label.scale[0]:g} to {label.scale[1]:g}" if label.scale else ""
        return f"{kind}{scale} in {column}"
    return f"{events.event_type} = {_listed(events.values(name))}"


def _effect(label: Label) -> str:
    """What a label makes of an event."""
    if label.weight == 0:
        return "predicted, but it makes no positive"
    if label.weight < 0:
        return "a negative"
    limit = ""
    if label.at_least is not None:
        limit = f" from {label.at_least:g}"
    elif label.at_quantile is not None:
        limit = f" in the largest {1 - label.at_quantile:.0%}"
    elif label.type != "binary":
        limit = " above 0"
    weight = f"{label.weight:g} for each point" if label.type == "graded" else f"{label.weight:g}"
    return f"a positive{limit}, weight {weight}" + (f"; only after {label.after}" if label.after else "")


def _listed(values: list[str]) -> str:
    more = len(values) - MAX_VALUES
    return ", ".join(" ".join(value.split()) for value in values[:MAX_VALUES]) + (
        f" and {more} more" if more > 0 else ""
    )
