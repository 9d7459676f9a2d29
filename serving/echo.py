"""An engine without a model: it answers with what it was given, so that routes can be tested alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from serving.engine import About, Answer, Ask, Ranked, UnknownItem


class EchoEngine:
    """The three verbs over a fixed list of items: candidates come back in the order they were given."""

    def __init__(self, items: int = 20) -> None:
        self.item_ids: Sequence[str] = [f"echo-{n}" for n in range(items)]
        self._hidden: frozenset[str] = frozenset()
        self.about = About("echo", "echo", "fp32", "cpu", ["click"], {"recipe": "echo"})

    def hide(self, items: Collection[str]) -> None:
        """These are in no answer."""
        self._hidden = frozenset(items)

    def prepare(self, ask: Ask) -> Ask:
        """Nothing to turn into tensors."""
        if ask.verb == "similar" and ask.item_id not in self.item_ids:
            raise UnknownItem("no such item in the catalogue", found=ask.item_id)
        return ask

    def run(self, batch: Sequence[Ask]) -> list[list[str]]:
        """The given candidates, or all items without those seen."""
        left_out = [{*self._hidden, *(() if ask.candidates else (*ask.state.seen, ask.item_id))} for ask in batch]
        return [
            [item for item in ask.candidates or self.item_ids if item not in gone] for ask, gone in zip(batch, left_out)
        ]

    def finish(self, prepared: Ask, result: list[str]) -> Answer:
        """The first ``k``, with scores that fall by one."""
        items = [
            Ranked(item, item.title(), -float(place), {"click": 0.5}, {"click": -float(place)}, ["echo"])
            for place, item in enumerate(result[: prepared.k])
        ]
        return Answer(items, [], hidden=[item for item in prepared.candidates if item in self._hidden])
