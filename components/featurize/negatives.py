"""Items that a request was not answered with, to learn against."""

from __future__ import annotations

import numpy as np

from components.featurize.split import Bools, Ints, Lists, Log, Requests

# Requests are drawn for in blocks of which each marks its items in a table of so many places (requests x items).
PLACES = 1 << 22


class Sampler:
    """Draws up to ``count`` item codes a request, distinct, none of them seen by then or a target.

    ``weights`` [I] says how often each item occurs in train: ``popular_share`` of the draws goes by its power
    of 0.75, the others are uniform. A request with fewer items left than ``count`` gets them all.

    Shapes: b requests of a block, I items.
    """

    def __init__(self, log: Log, *, weights: Ints, count: int, popular_share: float, seed: int) -> None:
        self._log, self._count, self._items = log, count, len(weights)
        self._total = np.cumsum(weights**0.75)
        self._popular = round(count * popular_share) if self._items and self._total[-1] > 0 else 0
        self._random = np.random.default_rng(seed)
        self._rows = max(1, PLACES // max(self._items, 1))
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
        """[b, draws] items, and which of them count."""
        rows = len(requests.position)
        marked = [
            lists.owners * self._items + self._log.items[lists.values] for lists in (requests.seen, requests.targets)
        ]
        for places in marked:
            self._taken[places] = True
        wanted = np.full(rows, self._popular)
        popular = np.searchsorted(
            self._total, self._random.random((rows, 2 * self._popular)) * self._total[-1:], "right"
        )
        from_popular = self._free(popular, wanted)
        wanted = self._count - from_popular.sum(1)
        uniform = self._random.integers(0, max(self._items, 1), (rows, 2 * self._count))
        from_uniform = self._free(uniform, wanted)
        for row in np.flatnonzero(from_uniform.sum(1) < wanted):
            # little is left to draw from: look at all of it
            had = uniform[row, from_uniform[row]]
            free = ~self._taken[row * self._items : (row + 1) * self._items]
            more = self._random.permutation(np.flatnonzero(free))[: wanted[row] - len(had)]
            uniform[row, : len(had) + len(more)] = np.concatenate([had, more])
            from_uniform[row] = np.arange(uniform.shape[1]) < len(had) + len(more)
        drawn, chosen = np.hstack([popular, uniform]), np.hstack([from_popular, from_uniform])
        for places in (*marked, self._places(drawn)[chosen]):
            self._taken[places] = False
        return drawn, chosen

    def _free(self, drawn: Ints, wanted: Ints) -> Bools:
        """[b, draws] which draws count: the first ``wanted`` [b] of each row, distinct and not taken; takes them."""
        if not drawn.size or not self._items:
            return np.zeros(drawn.shape, bool)
        places = self._places(drawn).ravel()
        numbers = np.arange(len(places), dtype=np.int32)
        self._first[places[::-1]] = numbers[::-1]  # of the draws of one item, the last one written stays: the first
        fine = (~self._taken[places] & (self._first[places] == numbers)).reshape(drawn.shape)
        fine &= np.cumsum(fine, axis=1) <= wanted[:, None]
        self._taken[places[fine.ravel()]] = True
        return fine

    def _places(self, drawn: Ints) -> Ints:
        return drawn + (np.arange(len(drawn)) * self._items)[:, None]
