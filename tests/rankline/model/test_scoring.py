"""Candidates and scorer features of a request."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rankline.contracts import FrozenState, History
from rankline.features import transforms
from rankline.features.bm25 import Bm25
from rankline.features.candidate_sources import covisitation
from rankline.features.words import word_vectors
from rankline.model import scoring
from rankline.model.scoring import CandidateSettings, Catalogue

SETTINGS = CandidateSettings(candidates_per_source=3, covisit_decay=0.5, max_history=2)
TEXTS = ["red hat", "blue scarf", "green hat", "white mug", "red hat", "blue hat", "steel pan", "oak chair"]
CATEGORIES = [["a"], ["b"], ["a", "b"], [], ["a"], ["b"], ["c"], []]


@pytest.fixture
def catalogue() -> Catalogue:
    """Eight items in two dimensions; items 0, 1, 2 are visited together, and 5 is the most popular."""
    vocabulary = ["a", "b", "c"]
    angles = np.linspace(0, np.pi, 8)
    return Catalogue(
        item_ids=[f"i{n}" for n in range(8)],
        index={f"i{n}": n for n in range(8)},
        vectors_ID=np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32),
        categories_IC=transforms.category_matrix(CATEGORIES, vocabulary),
        vocabulary=vocabulary,
        covisit=covisitation([np.array([0, 1, 2])], 8, window=3, step_decay=0.1, max_neighbours=5),
        popularity_I=np.array([0, 1, 0, 2, 0, 9, 3, 0], np.float32),
        words_IV=word_vectors(TEXTS, stemmer=""),
    )


def state(*items: str, **more: object) -> FrozenState:
    times = [100.0 * n for n in range(1, len(items) + 1)]
    history = History(item_ids=list(items), times=times, ratings=[4.0] * len(items))
    return FrozenState(at=4000.0, history=history, **more)  # type: ignore[arg-type]


def test_the_names_are_the_features_in_the_scorers_order() -> None:
    names = scoring.feature_names()
    assert (names.service, names.user, names.item) == ("ranking_v1", list(transforms.USER), list(transforms.ITEM))
    assert (names.cross, names.context) == (list(transforms.CROSS), list(transforms.CONTEXT))
    assert names.sources == [
        "towers_behind_best", "covisit_share", "covisit_log", "words_share", "popular_share", "popular_behind_best",
    ]  # fmt: skip


def test_every_source_has_a_feature_that_orders_as_it_does(catalogue: Catalogue) -> None:
    """A mix of one weight is then that source alone."""
    names = scoring.feature_names(users=True, queries=True)
    assert set(scoring.SOURCE_ORDER.values()) <= set(names.sources)
    with_bm25 = replace(catalogue, bm25=Bm25.from_texts(TEXTS, stemmer="", k1=0.9, b=0.4))
    request_state, rows_N = state("i3", "i0"), np.arange(8)
    scores = scoring.source_scores(request_state, np.array([1, 2], np.float32), with_bm25, SETTINGS, query="blue hat")
    assert set(scores) == set(scoring.SOURCE_ORDER)
    actual = scoring.candidate_features(request_state, {}, rows_N, scores, with_bm25, names)
    for source, feature in scoring.SOURCE_ORDER.items():
        column_N = actual[:, names.columns.index(feature)]
        assert np.argsort(-column_N, kind="stable").tolist() == np.argsort(-scores[source], kind="stable").tolist()
        assert column_N.max() == (0 if source == "towers" else 1)


def test_words_propose_what_nobody_has_chosen_yet(catalogue: Catalogue) -> None:
    """Item 4 has no event, and the title of item 0."""
    scores = scoring.source_scores(state("i0"), np.zeros(2, np.float32), catalogue, SETTINGS)
    assert catalogue.covisit[:, [4]].nnz == catalogue.popularity_I[4] == 0
    assert 4 in scoring.draw_candidates({"words": scores["words"]}, np.array([0]), per_source=1)


def test_labels_do_not_read_what_depends_on_the_other_candidates() -> None:
    assert set(scoring.SOURCE_ORDER.values()) <= scoring.NOT_FOR_LABELS


def test_each_source_scores_every_item(catalogue: Catalogue) -> None:
    scores = scoring.source_scores(state("i7", "i0"), np.array([1, 0], np.float32), catalogue, SETTINGS)
    assert tuple(scores) == ("towers", "covisit", "popular", "words")
    np.testing.assert_allclose(scores["towers"], np.cos(np.linspace(0, np.pi, 8)), atol=1e-6)
    np.testing.assert_allclose(scores["covisit"], catalogue.covisit[0].toarray()[0])
    assert scores["popular"] is catalogue.popularity_I


def test_fresh_counts_replace_the_stale_ones(catalogue: Catalogue) -> None:
    fresh = state("i0", item_features={"item_id": ["i2", "gone"], "item_events_7d": [4.0, 99.0]})
    scores = scoring.source_scores(fresh, np.zeros(2, np.float32), catalogue, SETTINGS)
    assert scores["popular"].tolist() == [0, 0, 4, 0, 0, 0, 0, 0]


def test_similar_to_stands_in_for_the_history(catalogue: Catalogue) -> None:
    scores = scoring.source_scores(state("i7"), np.zeros(2, np.float32), catalogue, SETTINGS, similar_to=np.array([1]))
    np.testing.assert_allclose(scores["covisit"], catalogue.covisit[1].toarray()[0])


def test_candidates_are_the_best_of_each_source_without_the_excluded(catalogue: Catalogue) -> None:
    scores = scoring.source_scores(state("i0"), np.array([1, 0], np.float32), catalogue, SETTINGS)
    drawn = scoring.draw_candidates(scores, np.array([0, 5]), per_source=3)
    # towers 1 2 3, co-visitation 1 2, popularity 6 3 1, words 4 2
    assert drawn.tolist() == [1, 2, 3, 4, 6]
    assert scores["towers"].max() < 2  # the scores are unchanged
    assert np.isfinite(scores["towers"]).all()


def test_a_source_proposes_only_what_it_has_a_reason_for(catalogue: Catalogue) -> None:
    scores = scoring.source_scores(state("i7"), np.array([1, 0], np.float32), catalogue, SETTINGS)
    nothing = np.array([], np.int64)
    assert scoring.draw_candidates({"covisit": scores["covisit"]}, nothing, per_source=3).tolist() == []
    assert scoring.draw_candidates({"popular": scores["popular"]}, nothing, per_source=8).tolist() == [1, 3, 5, 6]
    assert len(scoring.draw_candidates({"towers": -scores["towers"]}, nothing, per_source=100)) == 8


def test_where_everything_is_excluded_there_is_nothing(catalogue: Catalogue) -> None:
    scores = scoring.source_scores(state("i0"), np.array([1, 0], np.float32), catalogue, SETTINGS)
    assert scoring.draw_candidates(scores, np.arange(8), per_source=3).tolist() == []


def test_the_features_of_candidates_by_hand(catalogue: Catalogue) -> None:
    request_state = state(
        "i0",
        user_features={"user_events_7d": 3.0, "user_rating_mean": 4.5, "not_a_feature": 7.0},
        affinity={"a": 0.75, "b": 0.25},
        item_features={"item_id": ["i2", "i5"], "item_events_7d": [1.0, 7.0], "item_trend": [0.5, None]},
    )
    scores = scoring.source_scores(request_state, np.array([0, 1], np.float32), catalogue, SETTINGS)
    names = scoring.feature_names()
    rows_N = np.array([2, 5, 7])
    context = scoring.context_features(request_state)
    actual = scoring.candidate_features(request_state, context, rows_N, scores, catalogue, names)
    columns = names.columns
    assert actual.shape == (3, len(columns))
    assert actual.dtype == np.float32
    by_name = {name: actual[:, f] for f, name in enumerate(columns)}
    near = catalogue.covisit[0].toarray()[0][[2, 5, 7]]
    expected = {
        "user_events_7d": [np.log1p(3)] * 3,
        "user_rating_mean": [4.5] * 3,
        "user_events_1d": [0] * 3,
        "item_events_7d": [np.log1p(1), np.log1p(7), 0],
        "item_trend": [0.5, 0, 0],
        "affinity_sum": [1.0, 0.25, 0],
        "affinity_max": [0.75, 0.25, 0],
        "ctx_log_history": [np.log(2)] * 3,
        "ctx_log_hours_since_last": [np.log1p(3900 / 3600)] * 3,
        "towers_behind_best": catalogue.vectors_ID[rows_N, 1] - catalogue.vectors_ID[2, 1],
        "covisit_share": [1, 0, 0],
        "covisit_log": np.log(near + 1e-4),
        "popular_behind_best": np.log1p([1, 7, 0]) - np.log1p(7),
        "popular_share": [1 / 7, 1, 0],
        "words_share": scores["words"][rows_N] / scores["words"][rows_N].max(),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(by_name[name], values, atol=1e-6, err_msg=name)


def test_no_candidates_have_no_features(catalogue: Catalogue) -> None:
    request_state, names = state(), scoring.feature_names()
    scores = scoring.source_scores(request_state, np.zeros(2, np.float32), catalogue, SETTINGS)
    actual = scoring.candidate_features(request_state, {}, np.array([], np.int64), scores, catalogue, names)
    assert actual.shape[0] == 0


def test_a_user_without_events_has_a_request_time_only() -> None:
    context = scoring.context_features(state())
    assert context["ctx_log_hours_since_last"] == context["ctx_log_history"] == 0
    assert context["ctx_hour_sin"] == pytest.approx(np.sin(2 * np.pi * 4000 / 86400))


def test_the_recent_part_of_a_state_is_all_that_is_read() -> None:
    request_state = state("i0", "i1", "i2", seen=["i0", "i1", "i2"])
    last = scoring.truncate_history(request_state, 2)
    assert last.history == History(item_ids=["i1", "i2"], times=[200.0, 300.0], ratings=[4.0, 4.0])
    assert last.seen == request_state.seen  # seen items are not truncated
    assert scoring.truncate_history(request_state, 3) is request_state
    bare = FrozenState(at=1.0, history=History(item_ids=["a", "b"]))
    assert scoring.truncate_history(bare, 1).history == History(item_ids=["b"])


def test_items_the_catalogue_does_not_know_are_left_out(catalogue: Catalogue) -> None:
    assert catalogue.rows(["i3", "gone", "i1"]).tolist() == [3, 1]
    a = scoring.source_scores(state("i0", "gone"), np.zeros(2, np.float32), catalogue, SETTINGS)
    b = scoring.source_scores(state("i0"), np.zeros(2, np.float32), catalogue, SETTINGS)
    np.testing.assert_array_equal(a["covisit"], b["covisit"])
