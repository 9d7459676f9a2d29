"""An engine without a model, for tests of the routes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rankline.features.profile import ProfileFields
from serving.engine.protocol import EngineInfo, EngineRequest, EngineResponse, RankedItem, UnknownItem


class EchoEngine:
    """Returns the candidates, or a fixed list of items, in the order they were given."""

    def __init__(self, items: int = 20) -> None:
        self.item_ids: Sequence[str] = [f"echo-{n}" for n in range(items)]
        self.fields = ProfileFields()
        self.rating_scale: tuple[float, float] | None = None
        self._hidden: frozenset[str] = frozenset()
        self.info = EngineInfo("echo", "echo", "fp32", "cpu", ["click"], {"recipe": "echo"})

    def hide(self, items: Collection[str]) -> None:
        """Leave these items out of every response."""
        self._hidden = frozenset(items)

    def prepare(self, request: EngineRequest) -> EngineRequest:
        """Return the request unchanged."""
        if request.verb == "similar" and request.item_id not in self.item_ids:
            raise UnknownItem("no such item in the catalogue", found=request.item_id)
        return request

    def run(self, batch: Sequence[EngineRequest]) -> list[list[str]]:
        """Return the candidates of each request, or all items that are not seen."""
        exclusions = [
            {*self._hidden, *(() if request.candidates else (*request.state.seen, request.item_id))}
            for request in batch
        ]
        return [
            [item for item in request.candidates or self.item_ids if item not in excluded]
            for request, excluded in zip(batch, exclusions)
        ]

    def finish(self, prepared: EngineRequest, result: list[str]) -> EngineResponse:
        """Return the first ``k`` items, with scores that fall by one."""
        items = [
            RankedItem(item, item.title(), -float(rank), {"click": 0.5}, {"click": -float(rank)}, ["echo"])
            for rank, item in enumerate(result[: prepared.k])
        ]
        return EngineResponse(items, [], hidden=[item for item in prepared.candidates if item in self._hidden])
