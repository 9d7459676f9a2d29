"""Items that a request was not answered with, to learn against."""

from __future__ import annotations

import numpy as np

from components.featurize.split import Ints, Lists, Log, Requests


def sample(log: Log, requests: Requests, *, weights: Ints, count: int, popular_share: float, seed: int) -> Lists:
    """Up to ``count`` item codes a request, distinct, none of them seen by then or a target.

    ``weights`` [I] says how often each item occurs in train: that share of the draws goes by its power of
    0.75, the others are uniform. A request with fewer items left than ``count`` gets them all.
    """
    random = np.random.default_rng(seed)
    items = len(weights)
    total = np.cumsum(weights**0.75)
    popular = round(count * popular_share) if total[-1] > 0 else 0
    values: list[Ints] = []
    for r in range(len(requests.position)):
        taken = np.zeros(items, bool)
        for lists in (requests.seen, requests.targets):
            taken[log.items[lists.values[lists.offsets[r] : lists.offsets[r + 1]]]] = True
        by_popularity = np.searchsorted(total, random.random(2 * popular) * total[-1], side="right")
        mine = _free(by_popularity, taken, popular)
        taken[mine] = True
        rest = np.flatnonzero(~taken)
        uniform = random.permutation(rest)[: count - len(mine)]
        values.append(np.concatenate([mine, uniform]))
    owners = np.repeat(np.arange(len(values)), [len(part) for part in values])
    return Lists.kept(np.concatenate(values), owners, len(values))


def _free(drawn: Ints, taken: np.ndarray, count: int) -> Ints:
    """The first ``count`` different items of a draw that are not taken."""
    allowed: Ints = drawn[~taken[drawn]]
    first: Ints = np.sort(np.unique(allowed, return_index=True)[1])[:count]
    return allowed[first]
