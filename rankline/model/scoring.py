"""Candidates and scorer features of a request, computed by the same functions in distillation and in serving.

Shapes: I items, N candidates, D vector size, F features, S sources.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from rankline.contracts import FeatureNames, FrozenState, History
from rankline.features import candidate_sources, transforms, words
from rankline.features.bm25 import Bm25

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

# Features from the candidate sources: always, with users, with queries.
_BASE_FEATURES = ("towers_behind_best", "popular_share", "popular_behind_best")
_USER_FEATURES = ("covisit_share", "covisit_log", "words_share")
_QUERY_FEATURES = ("towers_score", "bm25_share", "bm25_log")
# Source -> the feature that orders candidates exactly as the source does, on a scale that sources have in common.
SOURCE_ORDER = {
    "towers": "towers_behind_best",
    "covisit": "covisit_share",
    "popular": "popular_share",
    "words": "words_share",
    "bm25": "bm25_share",
}
# The heads of labels do not read what compares a candidate with the best one beside it, because a chance does not
# depend on what else is scored, nor what only grows with time: tomorrow it is beyond all that they learned from.
_RELATIVE_FEATURES = (*_BASE_FEATURES, *SOURCE_ORDER.values())
_GROWING_FEATURES = ("user_events_total", "item_events_total", "ctx_log_history")
NOT_FOR_LABELS = frozenset({*_RELATIVE_FEATURES, *_GROWING_FEATURES})


def feature_names(*, users: bool = True, queries: bool = False, service: str = transforms.SERVICE) -> FeatureNames:
    """The features that this version computes, in the scorer's order."""
    first, *others = _BASE_FEATURES
    return FeatureNames(
        service=service,
        user=list(transforms.USER),
        item=list(transforms.ITEM),
        cross=list(transforms.CROSS),
        context=list(transforms.CONTEXT),
        sources=[first, *(_USER_FEATURES if users else ()), *others, *(_QUERY_FEATURES if queries else ())],
    )


class ItemFeatures:
    """The features of a whole catalogue from columns of some items, computed when they are first read."""

    def __init__(self, columns: Mapping[str, Any], index: Mapping[str, int]) -> None:
        self.columns, self._index = columns, index
        self._matrices: dict[tuple[str, ...], Floats] = {}

    @functools.cached_property
    def popularity_I(self) -> Floats:
        """[I] the events of the last days."""
        return transforms.fresh_popularity(self.columns, self._index)

    def matrix(self, names: Sequence[str]) -> Floats:
        """[I, F] in the order of ``names``."""
        key = tuple(names)
        if key not in self._matrices:
            self._matrices[key] = transforms.item_matrix(self.columns, names, self._index)
        return self._matrices[key]


@dataclass(frozen=True)
class Catalogue:
    """The items in the order of their vectors, with what ranking needs of them; ``withdrawn`` rows are unavailable."""

    item_ids: Sequence[str]
    index: Mapping[str, int]
    vectors_ID: Floats
    categories_IC: Floats
    vocabulary: Sequence[str]
    covisit: Any
    popularity_I: Floats
    bm25: Bm25 | None = None
    words_IV: Any = None  # the items' words, for what resembles a history; None where there are no users
    withdrawn: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    _last: list[ItemFeatures] = field(default_factory=list, compare=False, repr=False)

    def rows(self, item_ids: Sequence[str]) -> Ints:
        """The rows of the items; unknown ids are left out."""
        return np.array([self.index[item] for item in item_ids if item in self.index], np.int64)

    def item_features(self, columns: Mapping[str, Any]) -> ItemFeatures:
        """The features by these columns, which must not change: requests share those that were read last."""
        last = self._last[0] if self._last else None
        if last is None or last.columns is not columns:
            last = ItemFeatures(columns, self.index)
            self._last[:] = [last]  # threads may compute the same twice, and never see a mixture
        return last


@dataclass(frozen=True)
class CandidateSettings:
    """How candidates are drawn; the manifest records it, so that serving draws as distillation did."""

    candidates_per_source: int
    covisit_decay: float
    max_history: int


def truncate_history(state: FrozenState, max_events: int) -> FrozenState:
    """The state with only the last ``max_events`` of its history, which is what the model reads."""
    full_history = state.history
    if len(full_history.item_ids) <= max_events:
        return state
    history = History(
        item_ids=full_history.item_ids[-max_events:],
        times=full_history.times[-max_events:],
        ratings=full_history.ratings[-max_events:],
    )
    return state.model_copy(update={"history": history})


def source_scores(
    state: FrozenState,
    left_D: Floats,
    catalogue: Catalogue,
    candidate_settings: CandidateSettings,
    *,
    query: str = "",
    similar_to: Ints | None = None,
) -> dict[str, Floats]:
    """Source -> [I] its score of every item; ``similar_to`` replaces the rows of the history."""
    history_L = catalogue.rows(state.history.item_ids) if similar_to is None else similar_to
    known = bool(state.item_features.get("item_id"))
    scores = {
        "towers": catalogue.vectors_ID @ left_D,
        "covisit": candidate_sources.covisit_scores(
            catalogue.covisit, history_L, decay=candidate_settings.covisit_decay, last=candidate_settings.max_history
        ),
        "popular": catalogue.item_features(state.item_features).popularity_I if known else catalogue.popularity_I,
    }
    if catalogue.words_IV is not None:
        scores["words"] = words.history_scores(
            catalogue.words_IV, history_L, decay=candidate_settings.covisit_decay, last=candidate_settings.max_history
        )
    if catalogue.bm25 is not None:
        scores["bm25"] = catalogue.bm25.scores(query)
    return scores


def draw_candidates(scores: Mapping[str, Floats], excluded: Ints, *, per_source: int) -> Ints:
    """[N] the best ``per_source`` items of each source without the excluded ones, merged, in catalogue order."""
    drawn_I = np.zeros(len(next(iter(scores.values()))), bool)
    for name, values_I in scores.items():
        allowed_I = values_I.copy()
        allowed_I[excluded] = -np.inf
        count = min(per_source, len(allowed_I))
        best = np.argpartition(-allowed_I, count - 1)[:count]
        # only the towers score every item; other sources have nothing to say about items with a score of 0
        floor = -np.inf if name == "towers" else 0.0
        drawn_I[best[allowed_I[best] > floor]] = True
    return np.flatnonzero(drawn_I)


def candidate_features(
    state: FrozenState,
    context: Mapping[str, float],
    rows_N: Ints,
    scores: Mapping[str, Floats],
    catalogue: Catalogue,
    names: FeatureNames,
) -> Floats:
    """[N, F] the scorer's features of some candidates, in the order of ``names``."""
    count = len(rows_N)
    user_F = transforms.matrix({k: [v] for k, v in state.user_features.items()}, names.user, 1)
    context_F = transforms.matrix({k: [v] for k, v in context.items()}, names.context, 1)
    item_NF = catalogue.item_features(state.item_features).matrix(names.item)[rows_N]
    cross_NF = transforms.cross_matrix(state.affinity, catalogue.vocabulary, catalogue.categories_IC[rows_N])
    source_features = _source_features({name: values_I[rows_N] for name, values_I in scores.items()})
    source_NS = np.stack([source_features[name] for name in names.sources], axis=1)
    repeated = [np.repeat(user_F, count, 0), item_NF, cross_NF, np.repeat(context_F, count, 0), source_NS]
    return np.concatenate(repeated, axis=1).astype(np.float32)


def _source_features(scores: Mapping[str, Floats]) -> dict[str, Floats]:
    """Feature -> [N] the sources' scores on comparable scales."""
    towers_N, covisit_N, popular_N = scores["towers"], scores["covisit"], np.log1p(scores["popular"])
    bm25_N, words_N = (scores.get(name, np.zeros_like(towers_N)) for name in ("bm25", "words"))
    return {
        "towers_behind_best": towers_N - towers_N.max(initial=-np.inf),
        "covisit_share": _share(covisit_N),
        "covisit_log": np.log(covisit_N + 1e-4),
        "popular_behind_best": popular_N - popular_N.max(initial=-np.inf),
        "popular_share": _share(scores["popular"]),  # the counts: their logarithm makes the best ones alike
        "words_share": _share(words_N),
        "towers_score": towers_N,
        "bm25_share": _share(bm25_N),
        "bm25_log": np.log1p(bm25_N),
    }


def _share(values_N: Floats) -> Floats:
    """[N] a source's scores as shares of its best: a source that says nothing gives 0 to all."""
    return values_N / max(float(values_N.max(initial=0.0)), 1e-6)


def context_features(state: FrozenState) -> dict[str, float]:
    """The features of the on-demand view `request_context` for one request."""
    return batch_context_features([state])[0]


def batch_context_features(states: Sequence[FrozenState]) -> list[dict[str, float]]:
    """The features of the on-demand view `request_context` for each of some requests."""
    columns = transforms.request_context(
        request_time=np.array([state.at for state in states]),
        last_event_time=np.array([state.history.times[-1] if state.history.times else 0.0 for state in states]),
        history_length=np.array([len(state.history.item_ids) for state in states]),
        time_zones=[state.time_zone for state in states],
    )
    return [dict(zip(columns, values)) for values in zip(*(column.tolist() for column in columns.values()))]
