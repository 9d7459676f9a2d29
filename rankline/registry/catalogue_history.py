"""The catalogue revisions that a champion has served with, and the one that a rollback goes to."""

from __future__ import annotations

from collections.abc import Sequence

from rankline.contracts import FrozenModel
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import PUBLISHING, Champion
from rankline.registry.removal import since_removal


class ServedRevision(FrozenModel):
    """A catalogue revision that a model served with; ``event`` is 0 for the bundle's own."""

    revision: str
    event: int
    at: str
    who: str
    why: str
    kept: bool


def served_revisions(registry: ModelRegistry, champion: Champion) -> list[ServedRevision]:
    """The bundle's own revision and each published one, in order; the last one serves.

    A model that was removed and registered again starts with its own revision.
    """
    history = registry.history()
    promotion = history[champion.event - 1]
    events = since_removal(history, champion.model_id)
    registration = next((event for event in events if event.kind == "registered"), promotion)
    own = registration.digests.get("catalogue") or promotion.digests.get("catalogue", "")
    served = [(own, 0, registration.at, registration.who, "as exported")]
    served += [
        (event.digests["catalogue"], event.n, event.at, event.who, event.why)
        for event in events
        if event.kind == PUBLISHING
    ]
    stored = {revision: registry.has_catalogue(champion.model_id, revision) for revision in {row[0] for row in served}}
    return [
        ServedRevision(revision=revision, event=n, at=at, who=who, why=why, kept=stored[revision])
        for revision, n, at, who, why in served
    ]


def previous_revision(served: Sequence[ServedRevision]) -> str | None:
    """The revision that a rollback without a name goes to: the last stored one that was not rolled back from."""
    lineage: list[str] = []
    for entry in served:
        if entry.revision in lineage:  # a rollback: later revisions are no candidates
            lineage = lineage[: lineage.index(entry.revision) + 1]
        else:
            lineage.append(entry.revision)
    stored = {entry.revision for entry in served if entry.kept}
    return next((revision for revision in reversed(lineage[:-1]) if revision in stored), None)
