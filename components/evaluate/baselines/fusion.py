"""Reciprocal-rank fusion of lists (Cormack, Clarke & Buettcher 2009)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SMOOTHING = 60  # of the paper
OF_HISTORIES = ("item_knn_decay", "tfidf", "fresh_popularity")
OF_QUERIES = ("bm25", "untuned_encoder")
# where a request has a query and a history, what a query says and what occurs together
OF_BOTH = (*OF_QUERIES, "item_knn_decay")


def fuse(lists: Sequence[Sequence[str]], *, count: int) -> list[str]:
    """The ``count`` items with the highest sums of 1 / (60 + position); ties go to the item that came first."""
    scores: dict[str, float] = {}
    for items in lists:
        for position, item in enumerate(items, start=1):
            scores[item] = scores.get(item, 0.0) + 1.0 / (SMOOTHING + position)
    return sorted(scores, key=lambda item: -scores[item])[:count]


def fusion(
    lists: Mapping[str, Mapping[str, Sequence[str]]], requests: Mapping[str, tuple[bool, bool]], *, count: int
) -> dict[str, list[str]]:
    """Request id -> the fused list; ``requests`` has for each whether it has a query, and a history.

    Empty where two of the systems are not there for every request.
    """
    fused = {}
    for request_id, (query, history) in requests.items():
        wanted = (OF_BOTH if history else OF_QUERIES) if query else OF_HISTORIES
        parts = [lists[name][request_id] for name in wanted if name in lists]
        if len(parts) < 2:
            return {}
        fused[request_id] = fuse(parts, count=count)
    return fused
