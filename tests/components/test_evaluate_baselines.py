"""Baselines: what they compute, what they are chosen by, and what they leave out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from components.evaluate.baselines import co_occurrence, labels, words
from components.evaluate.baselines.controls import TEXT_VECTORS
from components.evaluate.baselines.fusion import fuse, fusion
from components.evaluate.baselines.items import TrainingItems, best_rows, load_interactions
from components.evaluate.baselines.ranking import Baselines, learn
from components.evaluate.baselines.sources import ModelSources
from components.evaluate.baselines.tuning import ValidationRequests, choose, read_validation
from components.evaluate.config import EvaluateConfig
from rankline.contracts import FrozenState, History
from rankline.model.bundle import open_bundle
from serving.engine import BundleEngine, EngineRequest
from tests.serving.tiny_bundle import item_id, make_bundle

IDS = ["a", "b", "c", "d"]
HISTORIES = [["a", "b"], ["a", "b", "c"], ["c", "d"], ["a"]]
CONFIG = EvaluateConfig(ks=(1, 2), primary="ndcg@1", top_k=4)


def items() -> TrainingItems:
    return TrainingItems(IDS, {item: row for row, item in enumerate(IDS)}, np.array([3, 2, 2, 1], np.float32))


def had(*item_ids: str) -> FrozenState:
    return FrozenState(at=0.0, history=History(item_ids=list(item_ids)), seen=list(item_ids))


def write(folder: Path, *, titles: list[str], histories: list[list[str]], requests: list[dict[str, Any]]) -> Path:
    """A features artifact of what the baselines read."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = [f"i{row}" for row in range(len(titles))] if len(titles) != 4 else IDS
    parquet.write_table(pa.table({"item_id": ids, "title": titles}), folder / "items.parquet")
    parquet.write_table(
        pa.table({"item_ids": pa.array(histories, pa.list_(pa.string()))}), folder / "sequences.parquet"
    )
    row: dict[str, Any] = {
        "user_id": None,
        "query": None,
        "history_items": [],
        "seen": [],
        "targets": [],
        "split": "test",
    }
    rows = [{**row, "request_id": f"r{n}", **each} for n, each in enumerate(requests)]
    schema = pa.schema(
        [(name, pa.string()) for name in ("request_id", "user_id", "query", "split")]
        + [(name, pa.list_(pa.string())) for name in ("history_items", "seen", "targets")]
    )
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "requests.parquet")
    return folder


@pytest.fixture
def interactions(tmp_path: Path) -> Any:
    return load_interactions(write(tmp_path, titles=["", "", "", ""], histories=HISTORIES, requests=[]))


def test_item_knn_by_hand(interactions: Any) -> None:
    catalogue, matrix_UI = interactions
    np.testing.assert_allclose(catalogue.counts_I, [3, 2, 2, 1])

    def scores(state: FrozenState, *, keep: int, shrink: float = 0.0, **how: Any) -> Any:
        neighbours = co_occurrence.item_neighbours(matrix_UI, keep=keep, shrink=shrink)
        return co_occurrence.of_history(catalogue, neighbours, **how)(state, "")

    state = had("d", "a")
    ab, ac, cd = 2 / np.sqrt(3 * 2), 1 / np.sqrt(3 * 2), 1 / np.sqrt(2 * 1)
    np.testing.assert_allclose(scores(state, keep=4, decay=1.0, last=1), [0, ab, ac, 0], rtol=1e-6)
    np.testing.assert_allclose(scores(state, keep=4, decay=0.5), [0, ab, ac + 0.5 * cd, 0], rtol=1e-6)
    np.testing.assert_allclose(scores(state, keep=1, decay=1.0, last=1), [0, ab, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(scores(state, keep=4, shrink=1.0, decay=1.0, last=1)[1], 2 / (np.sqrt(6) + 1), rtol=1e-6)


def test_ease_predicts_each_item_from_the_others_as_a_ridge_regression_does(interactions: Any) -> None:
    catalogue, matrix_UI = interactions
    weights_II = co_occurrence.ease_weights(matrix_UI, penalty=0.5)
    dense_UI = matrix_UI.toarray().astype(np.float64)
    for item in range(4):
        others = [row for row in range(4) if row != item]
        gram = dense_UI[:, others].T @ dense_UI[:, others] + 0.5 * np.eye(3)
        expected = np.linalg.solve(gram, dense_UI[:, others].T @ dense_UI[:, item])
        np.testing.assert_allclose(weights_II[others, item], expected, atol=1e-5)
        assert weights_II[item, item] == 0
    scored = co_occurrence.of_history(catalogue, weights_II, decay=0.5)(had("d", "a"), "")
    np.testing.assert_allclose(scored, weights_II[0] + 0.5 * weights_II[3], atol=1e-6)


def test_a_baseline_with_nothing_to_say_gives_the_most_popular_items(interactions: Any) -> None:
    catalogue, matrix_UI = interactions
    neighbours = co_occurrence.item_neighbours(matrix_UI, keep=4, shrink=0.0)
    scores = co_occurrence.of_history(catalogue, neighbours, decay=1.0)(had(), "")
    fresh = np.array([0, 1, 3, 2], np.float32)
    assert catalogue.best(scores, seen=["c"], count=3, ties_I=fresh) == ["d", "b", "a"]
    assert catalogue.best(scores, seen=["c"], count=3) == ["a", "b", "d"]


def test_the_best_rows_are_those_of_a_full_sort() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 30, 500).astype(np.float32)
    ties = rng.integers(0, 3, 500).astype(np.float32)
    excluded = rng.integers(0, 500, 40)
    expected = [row for row in np.lexsort((-ties, -scores)) if row not in set(excluded)]
    for count in (1, 7, 50, 499):
        actual = best_rows(scores, excluded=excluded, count=count, ties_I=ties)
        assert actual.tolist() == expected[:count]


def test_reciprocal_rank_fusion_by_hand() -> None:
    assert fuse([["a", "b"], ["b", "c"]], count=3) == ["b", "a", "c"]
    lists = {"bm25": {"r": ["a", "b"]}, "untuned_encoder": {"r": ["b", "c"]}, "item_knn_decay": {"r": ["c", "a"]}}
    assert fusion(lists, {"r": (True, False)}, count=1) == {"r": ["b"]}
    assert fusion(lists, {"r": (True, True)}, count=3) == {"r": ["a", "b", "c"]}  # equal sums
    assert fusion(lists, {"r": (False, True)}, count=1) == {}  # one list is nothing to fuse


def test_words_are_compared_with_what_the_user_had() -> None:
    vectors_IW = words.tfidf_vectors(["red chair", "red table", "blue lamp", "lamp"], stemmer="")
    assert vectors_IW is not None
    np.testing.assert_allclose(vectors_IW.multiply(vectors_IW).sum(1), 1.0, rtol=1e-5)
    score = words.mean_of_history(items(), vectors_IW, decay=0.5)
    scored = score(had("d", "a"), "")
    assert items().best(scored, seen=["a", "d"], count=2) == ["b", "c"]
    assert not score(had(), "").any()
    assert words.tfidf_vectors(["", "?!"], stemmer="") is None


def test_validation_requests_choose_a_setting_and_the_first_of_equal_ones(tmp_path: Path) -> None:
    asked = [{"split": "valid", "history_items": ["a"], "seen": ["a"], "targets": ["c"]} for _ in range(5)]
    folder = write(tmp_path, titles=["", "", "", ""], histories=HISTORIES, requests=[*asked, {"targets": ["b"]}])
    requests = read_validation(folder, count=3, seed=0)
    assert len(requests) == 3
    assert requests.targets == [["c"]] * 3

    def constant(best: str) -> Any:
        return lambda state, query: np.array([item == best for item in IDS], np.float32)

    options = [("wrong", constant("b")), ("right", constant("c")), ("also right", constant("c"))]
    assert choose(iter(options), requests, items(), metric="ndcg@1")[0] == "right"
    none = ValidationRequests([], [], [])
    assert choose(iter(options), none, items(), metric="ndcg@1")[0] == "wrong"


def test_bm25_is_tuned_on_validation_requests(tmp_path: Path) -> None:
    """Where the long text is the right one, length is not held against it."""
    titles = ["oak oak " + "desk lamp chair " * 40, "oak plank"]
    asked = [{"split": "valid", "query": "oak", "targets": ["i0"]}]
    folder = write(tmp_path / "long", titles=titles, histories=[], requests=asked)
    preferred = learn(folder, tmp_path, None, config=CONFIG).settings["bm25"]
    asked = [{"split": "valid", "query": "oak", "targets": ["i1"]}]
    folder = write(tmp_path / "short", titles=titles, histories=[], requests=asked)
    other = learn(folder, tmp_path, None, config=CONFIG).settings["bm25"]
    assert (preferred, other) == ({"k1": 0.6, "b": 0.25}, {"k1": 0.9, "b": 0.4})
    untuned = learn(folder, tmp_path, None, config=CONFIG.model_copy(update={"tuned_items": 1})).settings["bm25"]
    assert untuned == {"k1": 0.9, "b": 0.4}


def reviews(folder: Path, *, users: bool = False, each: int = 6) -> Path:
    """Two labels; what tells them apart is part of words, so that characters are needed."""
    rows = []
    for n in range(2 * each):
        good = n % 2
        text = f"it{n} {'unlike' if good else 'dislike'}{'able' * (n % 3)} thing"
        rows.append({"split": "train", "query": text, "targets": ["i1" if good else "i0"]})
    rows += [{"split": "valid", "query": "dislikely", "targets": ["i0"]}]
    rows += [{"split": "test", "query": "unlikely", "targets": ["i1"]}]
    rows = [{**row, "user_id": f"u{n}"} for n, row in enumerate(rows)] if users else rows
    return write(folder, titles=["bad", "good"], histories=[], requests=rows)


def test_labels_have_a_logistic_regression_of_words_and_characters(tmp_path: Path) -> None:
    learnt = learn(reviews(tmp_path), tmp_path, None, config=CONFIG)
    assert learnt.settings["tfidf_logistic"]["C"] in labels.PENALTIES
    for text, best in (("unlikely", "i1"), ("dislikely", "i0"), ("", "i0")):
        scores = learnt.scorers["tfidf_logistic"](had(), text)
        assert learnt.items.best(scores, seen=[], count=1) == [best]


@pytest.mark.parametrize(("users", "each", "most"), [(True, 6, 200), (False, 1, 200), (False, 6, 1)])
def test_what_is_asked_by_users_or_seldom_is_no_label(tmp_path: Path, users: bool, each: int, most: int) -> None:
    folder = reviews(tmp_path, users=users, each=each)
    learnt = learn(folder, tmp_path, None, config=CONFIG.model_copy(update={"classifier_labels": most}))
    assert "tfidf_logistic" not in learnt.scorers
    assert "bm25" in learnt.scorers


def learnt_of_users(tmp_path: Path, **changes: Any) -> Baselines:
    titles = ["red chair", "red table", "blue lamp", "lamp"]
    folder = write(tmp_path, titles=titles, histories=HISTORIES, requests=[])
    return learn(folder, tmp_path, None, config=CONFIG.model_copy(update=changes))


def test_a_catalogue_above_the_limit_has_no_ease_and_the_report_says_so(tmp_path: Path) -> None:
    assert "ease" in learnt_of_users(tmp_path / "small").scorers
    large = learnt_of_users(tmp_path / "large", ease_items=3)
    assert "ease" not in large.scorers
    assert large.left_out == {"ease": "4 items, more than evaluate.ease_items=3"}


def test_controls_of_the_words_are_rankings_by_other_vectors(tmp_path: Path) -> None:
    vectors = np.eye(4, 3, dtype=np.float32)
    np.save(tmp_path / TEXT_VECTORS, vectors)
    learnt = learnt_of_users(tmp_path, word_controls=True)
    controls = {name: score(had("a"), "") for name, score in learnt.scorers.items() if name.startswith("control_")}
    assert set(controls) == {
        "control_words", "control_titles_shuffled", "control_random_vectors", "control_tfidf_svd",
    }  # fmt: skip
    np.testing.assert_allclose(controls["control_words"], vectors @ vectors[0])
    assert sorted(controls["control_titles_shuffled"].tolist()) in ([0, 0, 0, 0], [0, 0, 0, 1])
    assert controls["control_tfidf_svd"][1] > controls["control_tfidf_svd"][2]
    assert not any(name.startswith("control_") for name in learnt_of_users(tmp_path).scorers)


def test_single_sources_are_those_that_the_engine_draws_from(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", items=30)
    bundle = open_bundle(tmp_path / "bundle")
    engine = BundleEngine.load(bundle, precision="fp32", provider="cpu", threads=1)
    sources = ModelSources(bundle, precision="fp32")
    state = FrozenState(at=5.0, history=History(item_ids=["i3", "unknown", "i7"], ratings=[5, 1, 4]), seen=["i3", "i7"])
    alone = sources.best(state, "", count=10)
    assert set(alone) == {"towers", "covisit", "popular"}
    prepared = engine.prepare(EngineRequest("recommend", state, k=10))
    scores_I = engine._catalogue.vectors_ID @ engine._query_vectors([prepared])[0]
    scores_I[[3, 7]] = -np.inf
    assert alone["towers"] == [item_id(row) for row in np.argsort(-scores_I, kind="stable")[:10]]
    for best in alone.values():
        assert len(set(best)) == 10
        assert not {"i3", "i7"} & set(best)
