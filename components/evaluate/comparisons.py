"""The requests on which the candidate wins or loses most against the champion, or the strongest baseline.

Shapes: R requests.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from components.evaluate.baselines.items import TrainingItems
from components.evaluate.replay import ReplayRequest
from components.evaluate.scores import Floats, Scores, length_suffix
from rankline.contracts import FeatureNames
from rankline.evaluation.report import CANDIDATE, CHAMPION, is_baseline
from rankline.evidence.comparisons import Compared, Comparisons, ListedItem, one_line
from rankline.evidence.subject import UNKNOWN_LANGUAGE
from rankline.model.bundle import Bundle
from rankline.model.catalogue_files import read_item_ids

COUNT = 20  # of wins, and of losses
SHOWN = 20  # most items of a history, of targets, and of a list
WITH_FEATURES = 5
MAX_TEXT = 160
TRAINING_EVENTS = "training events"


@dataclass(frozen=True)
class CatalogueFacts:
    """What is known of the items: titles and categories, the training events, the features that the scorer reads."""

    items: Mapping[str, Mapping[str, Any]]
    training: TrainingItems
    features: FeatureNames

    def title(self, item: str) -> str:
        """The item's title in one line; the id of one without."""
        return one_line(str(self.items.get(item, {}).get("title") or item), MAX_TEXT)

    def categories(self, item: str) -> list[str]:
        """The item's categories."""
        return list(self.items.get(item, {}).get("category") or [])


def compare(
    requests: Sequence[ReplayRequest],
    ranked: Mapping[str, Sequence[Sequence[str]]],
    scores: Scores,
    facts: CatalogueFacts,
    *,
    metric: str,
) -> Comparisons | None:
    """The candidate beside the champion, or the strongest baseline; None where there is neither."""
    other = _other_system(scores, metric)
    if other is None:
        return None
    candidate_R, other_R = scores[CANDIDATE][metric], scores[other][metric]
    gain_R = candidate_R - other_R
    ids = [each.request_id for each in requests]
    length = min(int(length_suffix(metric)[1:]), SHOWN)

    def compared(row: int) -> Compared:
        describe = functools.partial(_listed, requests[row], facts)
        request = requests[row].request
        return Compared(
            request_id=request.request_id,
            user_id=request.user_id,
            query=one_line(request.query, 2 * MAX_TEXT) if request.query else None,
            at=request.state.at,
            history=[facts.title(item) for item in request.state.history.item_ids[-SHOWN:]],
            history_length=len(request.state.history.item_ids),
            targets=[facts.title(item) for item in request.targets[:SHOWN]],
            candidate_score=float(candidate_R[row]),
            other_score=float(other_R[row]),
            candidate=describe(ranked[CANDIDATE][row][:length], with_features=WITH_FEATURES),
            other=describe(ranked[other][row][:length], with_features=0),
        )

    return Comparisons(
        metric=metric,
        other=other,
        requests=len(requests),
        better=int((gain_R > 0).sum()),
        worse=int((gain_R < 0).sum()),
        wins=[compared(row) for row in _largest(gain_R, ids)],
        losses=[compared(row) for row in _largest(-gain_R, ids)],
    )


def item_changes(
    items: Mapping[str, Mapping[str, Any]], training: TrainingItems, champion: Bundle | None
) -> dict[str, Any]:
    """The numbers of items and of their languages, and against the champion's catalogue those that came and went."""
    languages = Counter(row.get("language") or UNKNOWN_LANGUAGE for row in items.values())
    changes: dict[str, Any] = {
        "count": len(items),
        "languages": dict(sorted(languages.items(), key=lambda entry: (-entry[1], entry[0]))[:SHOWN]),
        "training_events": int(training.counts_I.sum()),
    }
    if champion is None:
        return changes
    before = set(read_item_ids(champion.catalogue))
    new, gone = sorted(items.keys() - before), sorted(before - items.keys())
    return changes | {
        "new": len(new),
        "gone": len(gone),
        "new_titles": [one_line(str(items[item].get("title") or item), MAX_TEXT) for item in new[:SHOWN]],
        "gone_ids": [one_line(item, MAX_TEXT) for item in gone[:SHOWN]],
    }


def _other_system(scores: Scores, metric: str) -> str | None:
    if CHAMPION in scores:
        return CHAMPION
    baselines = [name for name in scores if is_baseline(name)]
    return max(baselines, key=lambda name: (float(scores[name][metric].mean()), name), default=None)


def _largest(gain_R: Floats, ids: Sequence[str]) -> list[int]:
    """The rows with the largest gains above zero; equal ones in the order of their ids."""
    order = sorted(range(len(ids)), key=lambda row: (-gain_R[row], ids[row]))
    return [row for row in order[:COUNT] if gain_R[row] > 0]


def _listed(
    request: ReplayRequest, facts: CatalogueFacts, items: Sequence[str], *, with_features: int
) -> list[ListedItem]:
    targets = set(request.request.targets)
    features = _features(request, facts, items[:with_features])
    return [
        ListedItem(
            item_id=item,
            title=facts.title(item),
            hit=item in targets,
            categories=facts.categories(item),
            features=features.get(item, {}),
        )
        for item in items
    ]


def _features(request: ReplayRequest, facts: CatalogueFacts, items: Sequence[str]) -> dict[str, dict[str, float]]:
    """Item -> what the scorer read of it at the request's time (zeros left out), and its training events."""
    columns = _columns(request.item_features) if items else {}
    row_of = {item: row for row, item in enumerate(columns.get("item_id", ()))}
    affinity = request.request.state.affinity
    features: dict[str, dict[str, float]] = {}
    for item in items:
        values = {
            name: columns[name][row_of[item]] for name in facts.features.item if name in columns and item in row_of
        }
        shares = [affinity.get(name, 0.0) for name in facts.categories(item)]
        known = {"affinity_sum": sum(shares), "affinity_max": max(shares, default=0.0)}
        values |= {name: known[name] for name in facts.features.cross if name in known}
        if item in facts.training.index:
            values[TRAINING_EVENTS] = facts.training.counts_I[facts.training.index[item]]
        features[item] = {name: round(float(value), 4) for name, value in values.items() if _is_number(value) and value}
    return features


@functools.lru_cache(maxsize=2)
def _columns(encoded: bytes) -> dict[str, list[Any]]:
    """The features of all items on a day."""
    columns: dict[str, list[Any]] = orjson.loads(encoded)
    return columns


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and bool(np.isfinite(float(value)))
