"""Every baseline of a recipe, and its list for each request."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluate.baselines import co_occurrence, labels, words
from components.evaluate.baselines.controls import word_controls
from components.evaluate.baselines.items import Floats, Scorer, TrainingItems, item_texts, load_interactions
from components.evaluate.baselines.sources import ModelSources
from components.evaluate.baselines.tuning import ValidationRequests, choose, read_validation
from components.evaluate.config import EvaluateConfig
from rankline.contracts import FrozenState
from rankline.evaluation.report import SOURCE
from rankline.features import transforms
from rankline.model.bundle import Bundle

EASE_DECAYS = (0.8, 0.6, 0.9)  # the default first


class FreshPopularity:
    """Fresh popularity, computed once for the requests of a day, which come one after another."""

    def __init__(self, items: TrainingItems) -> None:
        self._items, self._scores_I = items, np.zeros(0, np.float32)
        self._columns: dict[str, list[Any]] | None = None

    def scores(self, state: FrozenState) -> Floats:
        """[I] the events of the last week as known on the request's day."""
        if state.item_features is not self._columns:
            self._columns = state.item_features
            self._scores_I = transforms.fresh_popularity(state.item_features, self._items.index)
        return self._scores_I


@dataclass
class Baselines:
    """The baselines of a recipe, what was chosen for them, and which were left out and why."""

    items: TrainingItems
    scorers: dict[str, Scorer] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    sources: ModelSources | None = None

    def __post_init__(self) -> None:
        self.fresh = FreshPopularity(self.items)

    def lists(self, state: FrozenState, query: str, *, count: int) -> dict[str, list[str]]:
        """System -> its ``count`` best unseen items for a request."""
        ties_I = self.fresh.scores(state)
        ranked = {
            name: self.items.best(score(state, query), seen=state.seen, count=count, ties_I=ties_I)
            for name, score in self.scorers.items()
        }
        if self.sources is not None:
            ranked |= {f"{SOURCE}{name}": best for name, best in self.sources.best(state, query, count=count).items()}
        return ranked


def learn(features: Path, teacher: Path, candidate: Bundle | None, *, config: EvaluateConfig) -> Baselines:
    """Learn the baselines that fit the data: of users, of queries, of labels; and the candidate's own sources."""
    items, interactions_UI = load_interactions(features)
    baselines = Baselines(items)
    baselines.scorers |= {
        "popularity": lambda state, query: items.counts_I,
        "fresh_popularity": lambda state, query: baselines.fresh.scores(state),
    }
    validation = read_validation(features, count=config.tuning_requests, seed=config.seed)
    texts = item_texts(features)
    if _has_queries(features):
        _learn_queries(baselines, features, texts, validation, config)
    if interactions_UI.nnz:
        _learn_users(baselines, interactions_UI, texts, validation, config)
        if config.word_controls:
            baselines.scorers |= dict(word_controls(items, texts, teacher, stemmer=config.stemmer, seed=config.seed))
    if candidate is not None:
        baselines.sources = ModelSources(candidate, precision=config.precision)
    return baselines


def _learn_users(
    baselines: Baselines,
    interactions_UI: Any,
    texts: list[str],
    validation: ValidationRequests,
    config: EvaluateConfig,
) -> None:
    items, add = baselines.items, baselines.scorers
    neighbours_II = co_occurrence.item_neighbours(interactions_UI, keep=config.knn_neighbours, shrink=config.knn_shrink)
    add["item_knn"] = co_occurrence.of_history(items, neighbours_II, decay=1.0, last=config.knn_last)
    add["item_knn_decay"] = co_occurrence.of_history(items, neighbours_II, decay=config.knn_decay)
    if len(items.item_ids) <= config.ease_items:
        weights_II = co_occurrence.ease_weights(interactions_UI, penalty=config.ease_penalty)
        options = ((decay, co_occurrence.of_history(items, weights_II, decay=decay)) for decay in EASE_DECAYS)
        decay, add["ease"] = choose(options, validation, items, metric=config.primary)
        baselines.settings["ease"] = {"decay": decay}
    else:
        baselines.left_out["ease"] = f"{len(items.item_ids)} items, more than evaluate.ease_items={config.ease_items}"
    vectors_IW = words.tfidf_vectors(texts, stemmer=config.stemmer)
    if vectors_IW is not None:
        add["tfidf"] = words.mean_of_history(items, vectors_IW, decay=config.knn_decay)
    else:
        baselines.left_out["tfidf"] = "no item has a word"


def _learn_queries(
    baselines: Baselines, features: Path, texts: list[str], validation: ValidationRequests, config: EvaluateConfig
) -> None:
    items, add = baselines.items, baselines.scorers
    tuned = validation if len(items.item_ids) <= config.tuned_items else ValidationRequests([], [], [])
    options = words.bm25_options(texts, stemmer=config.stemmer)
    (k1, b), add["bm25"] = choose(options, tuned, items, metric=config.primary)
    baselines.settings["bm25"] = {"k1": k1, "b": b}
    corpus = labels.labelled_texts(features, items, largest=config.classifier_labels)
    if corpus is not None:
        classifiers = labels.logistic_options(corpus, len(items.item_ids), stemmer=config.stemmer)
        penalty, add["tfidf_logistic"] = choose(classifiers, validation, items, metric=config.primary)
        baselines.settings["tfidf_logistic"] = {"C": penalty}


def _has_queries(folder: Path) -> bool:
    import pyarrow.parquet as parquet

    queries = parquet.read_table(folder / "requests.parquet", columns=["query"])["query"]
    return bool(queries.null_count < len(queries))
