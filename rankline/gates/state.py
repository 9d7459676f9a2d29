"""What earlier nights say: the anchor, the nights since the champion's promotion, the number of promotions."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from rankline.contracts import FrozenModel
from rankline.gates.nights import Night, Pool, disjoint
from rankline.registry.anchor import anchor_event
from rankline.registry.registry_state import ANCHORED, PROMOTING, Event

NIGHT = "night"  # in the details of an `evaluated` event


class AnchorState(FrozenModel):
    """The anchor, and the evidence of earlier nights that a decision adds to its own."""

    anchor: str = ""
    promotions: int = 0
    since: float = 0.0
    trials: int = 1
    before: Pool = Pool()
    champion_before: Pool = Pool()
    champion_since: float = 0.0


def anchor_state(
    history: Sequence[Event], *, champion: str, model_id: str, recipe: str, metric: str, until: float
) -> AnchorState:
    """The state for a decision on a candidate whose requests end at ``until``.

    ``promotions`` counts those since the anchor was set; each one begins a new bound with a smaller share of the error.
    ``trials`` counts the models, this one included, that were looked at on requests ending at the same time: the best
    of several is better by luck, so each has a smaller share as well.
    """
    origin = anchor_event(history)
    if origin is None:
        return AnchorState()
    moved = max((event.n for event in history if event.kind == ANCHORED), default=origin.n)
    promoted = [event.n for event in history if event.kind in PROMOTING]
    nights = _nights(history[max([moved, *promoted]) - 1 :])
    nights = [
        each for each in nights if (each.champion, each.anchor, each.metric) == (champion, origin.model_id, metric)
    ]
    others = [each for each in nights if each.model_id != model_id]
    earlier = disjoint(each for each in others if each.recipe == recipe and each.until < until)
    of_champion = disjoint(each for each in nights if each.until < until)
    return AnchorState(
        anchor=origin.model_id,
        promotions=sum(n > moved for n in promoted),
        since=earlier[-1].until if earlier else 0.0,
        trials=1 + len({each.model_id for each in others if each.until == until}),
        before=Pool.of(earlier),
        champion_before=Pool.of(of_champion),
        champion_since=of_champion[-1].until if of_champion else 0.0,
    )


def _nights(events: Sequence[Event]) -> list[Night]:
    """The nights of these events; those of another version are left out."""
    nights: list[Night] = []
    for event in events:
        if event.kind == "evaluated" and NIGHT in event.details:
            try:
                nights.append(Night.model_validate(event.details[NIGHT]))
            except ValidationError:
                continue
    return nights
