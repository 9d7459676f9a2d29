"""Settings of baselines that the validation requests choose."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from components.evaluate.baselines.items import Scorer, TrainingItems
from rankline.contracts import FrozenState, History
from rankline.evaluation import metrics
from rankline.evaluation.snapshot_requests import REQUESTS

Setting = TypeVar("Setting")


@dataclass(frozen=True)
class ValidationRequests:
    """Requests of the validation split, without the features of items: no baseline that is tuned reads them."""

    states: list[FrozenState]
    queries: list[str]
    targets: list[list[str]]

    def __len__(self) -> int:
        return len(self.targets)


def read_validation(features: Path, *, count: int, seed: int) -> ValidationRequests:
    """At most ``count`` validation requests, drawn by ``seed``."""
    import pyarrow.parquet as parquet

    columns = ["request_id", "history_items", "seen", "query", "targets"]
    known = parquet.read_schema(features / REQUESTS).names
    if not set(columns) <= set(known):
        return ValidationRequests([], [], [])
    table = parquet.read_table(features / REQUESTS, columns=columns, filters=[("split", "=", "valid")])
    table = table.sort_by("request_id")
    if len(table) > count:
        table = table.take(np.sort(np.random.default_rng(seed).choice(len(table), count, replace=False)))
    rows = table.to_pylist()
    states = [
        FrozenState(at=0.0, history=History(item_ids=row["history_items"] or []), seen=row["seen"] or [])
        for row in rows
    ]
    return ValidationRequests(states, [row["query"] or "" for row in rows], [row["targets"] for row in rows])


def choose(
    options: Iterable[tuple[Setting, Scorer]], requests: ValidationRequests, items: TrainingItems, *, metric: str
) -> tuple[Setting, Scorer]:
    """The option with the best ``metric`` on the requests; the first of equal ones, and without requests the first.

    An option is made when its turn comes, and forgotten unless it is the best so far.
    """
    name, _, k = metric.partition("@")
    best: tuple[Setting, Scorer] | None = None
    reached = -np.inf
    for setting, scorer in options:
        if not len(requests):
            return setting, scorer
        lists = [
            items.best(scorer(state, query), seen=state.seen, count=int(k))
            for state, query in zip(requests.states, requests.queries)
        ]
        judged = metrics.judge(lists, requests.targets, depth=int(k))
        value = float(metrics.RANKING[name](judged, int(k)).mean())
        if value > reached:
            best, reached = (setting, scorer), value
    assert best is not None  # there is an option
    return best
