"""The catalogue revisions that a champion has served over, and which of them a rollback goes to."""

from __future__ import annotations

from collections.abc import Sequence

from rankline.contracts import FrozenModel
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import PUBLISHING, REMOVED, Champion


class ServedRevision(FrozenModel):
    """One catalogue revision that a model served over; ``event`` is 0 for the bundle's own."""

    revision: str
    event: int
    at: str
    who: str
    why: str
    kept: bool


def served_revisions(registry: ModelRegistry, champion: Champion) -> list[ServedRevision]:
    """The revision of the champion's bundle and each that was published for it, in order; the last one serves.

    A model that was removed and registered again starts with its own revision.
    """
    history = registry.history()
    promotion = history[champion.event - 1]
    events = [event for event in history if event.model_id == champion.model_id]
    removals = [n for n, event in enumerate(events, 1) if event.kind == REMOVED and "catalogue" not in event.digests]
    events = events[removals[-1] if removals else 0 :]
    registration = next((event for event in events if event.kind == "registered"), promotion)
    own = registration.digests.get("catalogue") or promotion.digests.get("catalogue", "")
    served = [(own, 0, registration.at, registration.who, "as exported")]
    served += [
        (event.digests["catalogue"], event.n, event.at, event.who, event.why)
        for event in events
        if event.kind == PUBLISHING
    ]
    kept = {revision: registry.has_catalogue(champion.model_id, revision) for revision in {each[0] for each in served}}
    return [
        ServedRevision(revision=revision, event=n, at=at, who=who, why=why, kept=kept[revision])
        for revision, n, at, who, why in served
    ]


def previous_revision(served: Sequence[ServedRevision]) -> str | None:
    """The revision to roll back to, if it is not named: the last one that is kept and was not rolled back from."""
    lineage: list[str] = []
    for each in served:
        if each.revision in lineage:  # a rollback: what came after it is no place to go back to
            lineage = lineage[: lineage.index(each.revision) + 1]
        else:
            lineage.append(each.revision)
    kept = {each.revision for each in served if each.kept}
    return next((revision for revision in reversed(lineage[:-1]) if revision in kept), None)
