"""Training examples equal what serving computes from the same request."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

from rankline.contracts import SPLITS
from rankline.evaluation import snapshot_requests
from rankline.model import scoring
from rankline.model.scoring import Catalogue
from rankline.train import examples
from rankline.train.examples import Examples, Sequences
from tests.conftest import SmokeRun

MAX_HISTORY = 20


@pytest.fixture(scope="module")
def folder(smoke: SmokeRun) -> Path:
    return smoke.artifact("featurize", "features")


@pytest.fixture(scope="module")
def data(folder: Path) -> Examples:
    return examples.read_examples(folder, max_history=MAX_HISTORY)


@pytest.mark.integration
@pytest.mark.parametrize("split", SPLITS)
def test_training_and_serving_see_the_same_features(folder: Path, data: Examples, split: str) -> None:
    """The skew test: both compute the same features of a request and its candidates."""
    names = scoring.feature_names()
    items = len(data.item_ids)
    catalogue = Catalogue(
        item_ids=data.item_ids,
        index=data.index,
        vectors_ID=np.zeros((items, 2), np.float32),
        categories_IC=data.categories_IC,
        vocabulary=data.vocabulary,
        covisit=np.zeros(0),
        popularity_I=np.zeros(items, np.float32),
    )
    scores = dict.fromkeys(("towers", "covisit", "popular"), np.zeros(items, np.float32))
    requests = data.splits[split]
    row_of = {request: row for row, request in enumerate(requests.ids)}
    rng = np.random.default_rng(0)
    assert len(row_of) > 100
    for request in snapshot_requests.read_snapshot_requests(folder, split):
        rows_N = rng.choice(items, 12, replace=False)
        trained = data.features(requests, np.array([row_of[request.request_id]]), rows_N[None])[0]
        served = scoring.candidate_features(
            request.state, scoring.context_features(request.state), rows_N, scores, catalogue, names
        )
        np.testing.assert_allclose(trained, served[:, : -len(names.sources)], atol=2e-6, rtol=1e-6)


def test_features_are_not_all_alike(data: Examples) -> None:
    """The comparison above is not vacuous: every kind of feature varies."""
    names = scoring.feature_names()
    columns = [*names.user, *names.item, *names.cross, *names.context]
    requests = data.splits["test"]
    rows = np.arange(len(requests))
    features = data.features(requests, rows, np.tile(np.arange(len(data.item_ids)), (len(rows), 1)))
    spread = dict(zip(columns, features.reshape(-1, len(columns)).std(0)))
    # the synthetic shop has no prices and texts, one category per item, and no user who pauses for a month
    constant = {"item_price", "item_text_length", "item_category_count"}
    still = {name for name, value in spread.items() if value < 1e-6}
    assert still <= constant | {"user_events_total", "user_events_30d", "ctx_log_history"}, still


def test_requests_are_arrays_of_what_the_table_says(folder: Path, data: Examples) -> None:
    rows = {row["request_id"]: row for row in parquet.read_table(folder / "requests.parquet").to_pylist()}
    requests = data.splits["valid"]
    assert requests.ids
    for r, request in enumerate(requests.ids):
        row, length = rows[request], requests.lengths_R[r]
        assert length == len(row["history_items"])
        assert [data.item_ids[i] for i in requests.items_RL[r, :length]] == row["history_items"]
        assert requests.ratings_RL[r, :length].tolist() == row["history_ratings"]
        hours = (row["at"] - np.array(row["history_times"])) / 3600
        np.testing.assert_allclose(requests.ages_RL[r, :length], np.log1p(hours), rtol=1e-5)
        assert not requests.items_RL[r, length:].any()
        assert [data.item_ids[i] for i in requests.targets[r]] == row["targets"]
        assert {data.item_ids[i] for i in requests.seen[r]} == set(row["seen"])
        assert not set(requests.negatives[r]) & ({*requests.seen[r]} | {*requests.targets[r]})
        assert len(requests.negatives[r]) > 0


def test_a_shorter_history_is_the_last_events(folder: Path, data: Examples) -> None:
    short = examples.read_examples(folder, max_history=3).splits["test"]
    full = data.splits["test"]
    assert full.ids
    for r, length in enumerate(full.lengths_R):
        assert short.items_RL[r].tolist() == full.items_RL[r, length - 3 : length].tolist()
        assert short.ages_RL[r].tolist() == full.ages_RL[r, length - 3 : length].tolist()


def test_the_row_of_an_item_is_its_index_everywhere(folder: Path, data: Examples) -> None:
    items = parquet.read_table(folder / "items.parquet").to_pylist()
    assert data.item_ids == [item["item_id"] for item in items]
    assert [data.index[item] for item in data.item_ids] == list(range(len(items)))
    for row, item in enumerate(items):
        assert data.item_texts[row].startswith(item["title"])
        assert {data.vocabulary[c] for c in np.flatnonzero(data.categories_IC[row])} == set(item["category"])


def test_items_known_are_those_of_the_training_sequences(data: Examples) -> None:
    occurring = {int(i) for items in data.sequences.items for i in items}
    assert set(np.flatnonzero(data.known_I)) == occurring
    targets = {int(t[0]) for t in data.splits["test"].targets}
    assert len(occurring) > len(targets) / 2


# Windows ----------------------------------------------------------------------------------------------------------


def one(items: list[int], times: list[float]) -> Sequences:
    array = np.array(items, np.int64)
    return Sequences(items=[array], times=[np.array(times)], ratings=[array % 5])


def test_events_of_one_instant_have_no_order_of_their_own() -> None:
    sequences = one([0, 1, 2, 3], [1, 2, 2, 3])
    rng = np.random.default_rng(0)
    seen = {tuple(sequences.windows(rng, 10)[0][0].tolist()) for _ in range(50)}
    assert seen == {(0, 1, 2, 3), (0, 2, 1, 3)}
    items, ratings = sequences.windows(rng, 10)[0]
    assert (ratings == items % 5).all()


def test_a_long_history_gives_its_end_and_every_other_part_in_turn() -> None:
    sequences = one(list(range(35)), list(range(35)))
    rng = np.random.default_rng(0)
    windows = [sequences.windows(rng, 10)[0][0] for _ in range(2000)]
    assert all(len(window) == 11 and (np.diff(window) == 1).all() for window in windows)
    ends = np.array([window[-1] for window in windows])
    assert 0.2 < (ends == 34).mean() < 0.4  # about one of as many as the history is windows long
    assert {int(i) for window in windows for i in window} == set(range(35))


def test_a_user_with_one_event_has_no_window() -> None:
    assert one([3], [1]).windows(np.random.default_rng(0), 10) == []
    assert len(one([3, 4], [1, 2]).windows(np.random.default_rng(0), 10)) == 1
