"""What every engine does, and the requests and responses it exchanges with the routes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from rankline.contracts import FrozenState
from rankline.errors import UsageError
from rankline.features.profile import ProfileFields


class UnknownItem(UsageError):
    """The catalogue does not contain the requested item."""


@dataclass(frozen=True)
class EngineRequest:
    """A parsed request with its features.

    ``frozen`` marks a replayed snapshot request: items that have become unavailable since are ranked all the same.
    """

    verb: Literal["recommend", "search", "rank", "similar"]
    state: FrozenState
    k: int | None = None
    query: str | None = None
    candidates: Sequence[str] = ()
    item_id: str = ""
    frozen: bool = False


@dataclass(frozen=True)
class RankedItem:
    """One ranked item.

    ``score`` sorts the items; ``heads`` are the logits through a sigmoid; ``probability`` is the calibrated chance
    that the item is right, None if the model is not calibrated.
    """

    item_id: str
    title: str
    score: float
    heads: dict[str, float]
    logits: dict[str, float]
    sources: list[str]
    probability: float | None = None


@dataclass(frozen=True)
class EngineResponse:
    """The ranked items, best first, and the candidates that were left out.

    ``unknown`` candidates are not in the catalogue, ``hidden`` ones were taken down, ``withdrawn`` ones are not
    available. ``abstained``: the best item is too unlikely to be an answer.
    """

    items: list[RankedItem]
    unknown: list[str]
    abstained: bool = False
    hidden: list[str] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class EngineInfo:
    """The model, catalogue and device of an engine."""

    model_id: str
    revision: str
    precision: str
    provider: str
    heads: list[str]
    manifest: dict[str, Any]


class Engine(Protocol):
    """Ranks in three steps; what one step passes to the next is private to the engine."""

    info: EngineInfo
    item_ids: Sequence[str]
    fields: ProfileFields

    def hide(self, items: Collection[str]) -> None:
        """Leave exactly these items out of every response from now on."""

    def prepare(self, request: EngineRequest) -> Any:
        """Turn a request into tensors."""

    def run(self, batch: Sequence[Any]) -> list[Any]:
        """Run the model on a batch of prepared requests."""

    def finish(self, prepared: Any, result: Any) -> EngineResponse:
        """Rank the items of one result."""


def run_request(engine: Engine, request: EngineRequest) -> EngineResponse:
    """Run one request through the three steps, in a batch of its own."""
    prepared = engine.prepare(request)
    return engine.finish(prepared, engine.run([prepared])[0])
