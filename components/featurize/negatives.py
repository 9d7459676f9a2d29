"""Negatives: sampled items that a request was not answered with."""

from __future__ import annotations

import numpy as np

from components.featurize.split import Bools, Ints, Lists, Log, Requests

MAX_CELLS = 1 << 22  # of the table (requests x items) in which a block of requests marks its items


class Sampler:
    """Samples up to ``count`` distinct item codes per request, none of them seen by then or a target.

    ``weights`` [I] are the items' train events: ``popular_share`` of the draws goes by their power of 0.75, the others
    are uniform. A request with fewer items left than ``count`` gets all of them.

    Shapes: b requests of a block, I items.
    """

    def __init__(self, log: Log, *, weights: Ints, count: int, popular_share: float, seed: int) -> None:
        self._log, self._count, self._items = log, count, len(weights)
        self._total = np.cumsum(weights**0.75)
        self._popular = round(count * popular_share) if self._items and self._total[-1] > 0 else 0
        self._random = np.random.default_rng(seed)
        self._rows = max(1, MAX_CELLS // max(self._items, 1))
        self._taken = np.zeros(self._rows * self._items, bool)
        self._first = np.empty(self._rows * self._items, np.int32)

    def draw(self, requests: Requests) -> Lists:
        """Negatives of some requests, in their order."""
        values, lengths = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for start in range(0, len(requests.position), self._rows):
            drawn, chosen = self._block(requests.part(start, start + self._rows))
            values.append(drawn[chosen])
            lengths.append(chosen.sum(1))
        owners = np.repeat(np.arange(len(requests.position)), np.concatenate(lengths))
        return Lists.from_owners(np.concatenate(values), owners, len(requests.position))

    def _block(self, requests: Requests) -> tuple[Ints, Bools]:
        """[b, draws] items, and which of them are chosen."""
        rows = len(requests.position)
        marked = [
            lists.owners * self._items + self._log.items[lists.values] for lists in (requests.seen, requests.targets)
        ]
        for cells in marked:
            self._taken[cells] = True
        wanted = np.full(rows, self._popular)
        popular = np.searchsorted(
            self._total, self._random.random((rows, 2 * self._popular)) * self._total[-1:], "right"
        )
        from_popular = self._choose(popular, wanted)
        wanted = self._count - from_popular.sum(1)
        uniform = self._random.integers(0, max(self._items, 1), (rows, 2 * self._count))
        from_uniform = self._choose(uniform, wanted)
        for row in np.flatnonzero(from_uniform.sum(1) < wanted):
            # few items are left to draw from: enumerate them
            chosen_before = uniform[row, from_uniform[row]]
            free = ~self._taken[row * self._items : (row + 1) * self._items]
            more = self._random.permutation(np.flatnonzero(free))[: wanted[row] - len(chosen_before)]
            uniform[row, : len(chosen_before) + len(more)] = np.concatenate([chosen_before, more])
            from_uniform[row] = np.arange(uniform.shape[1]) < len(chosen_before) + len(more)
        drawn, chosen = np.hstack([popular, uniform]), np.hstack([from_popular, from_uniform])
        for cells in (*marked, self._cells(drawn)[chosen]):
            self._taken[cells] = False
        return drawn, chosen

    def _choose(self, drawn: Ints, wanted: Ints) -> Bools:
        """[b, draws] the first ``wanted`` [b] draws of each row that are distinct and not taken; takes them."""
        if not drawn.size or not self._items:
            return np.zeros(drawn.shape, bool)
        cells = self._cells(drawn).ravel()
        numbers = np.arange(len(cells), dtype=np.int32)
        self._first[cells[::-1]] = numbers[::-1]  # written backwards, so that an item's first draw stays
        chosen: Bools = (~self._taken[cells] & (self._first[cells] == numbers)).reshape(drawn.shape)
        chosen &= np.cumsum(chosen, axis=1) <= wanted[:, None]
        self._taken[cells[chosen.ravel()]] = True
        return chosen

    def _cells(self, drawn: Ints) -> Ints:
        return drawn + (np.arange(len(drawn)) * self._items)[:, None]
