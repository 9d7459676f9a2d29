"""Frozen requests hold what the features artifact holds, to the last value."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from rankline.contracts import SPLITS
from rankline.evaluation import snapshot_requests
from rankline.features import transforms
from tests.components.features_world import write_features
from tests.conftest import SmokeRun


@pytest.fixture(scope="module")
def folder(smoke: SmokeRun) -> Path:
    return smoke.artifact("featurize", "features")


@pytest.mark.parametrize("split", SPLITS)
def test_every_request_of_a_split_comes_once(folder: Path, split: str) -> None:
    table = parquet.read_table(folder / "requests.parquet", filters=[("split", "=", split)])
    actual = [request.request_id for request in snapshot_requests.read_snapshot_requests(folder, split)]
    assert sorted(actual) == sorted(table["request_id"].to_pylist())
    assert len(actual) > 100


def test_a_request_says_what_the_table_says(folder: Path) -> None:
    rows = {row["request_id"]: row for row in parquet.read_table(folder / "requests.parquet").to_pylist()}
    requests = list(snapshot_requests.read_snapshot_requests(folder, "test"))
    assert len(requests) > 100
    for request in requests:
        row, state = rows[request.request_id], request.state
        assert (request.user_id, request.targets, request.target_ratings) == (
            row["user_id"],
            row["targets"],
            row["target_ratings"],
        )
        assert (state.at, state.seen) == (row["at"], row["seen"])
        assert state.history.item_ids == row["history_items"]
        assert state.history.times == row["history_times"]
        assert state.history.ratings == row["history_ratings"]
        assert state.user_features == {name: row[name] for name in transforms.USER}
        assert state.affinity == dict(zip(row["affinity_categories"], row["affinity_shares"]))


def test_item_features_are_those_of_the_requests_own_day(folder: Path) -> None:
    result = parquet.read_table(folder / "item_features.parquet").to_pylist()
    days = parquet.read_table(folder / "requests.parquet", columns=["request_id", "snapshot"]).to_pylist()
    day_of = {row["request_id"]: row["snapshot"] for row in days}
    compared = 0
    for request in snapshot_requests.read_snapshot_requests(folder, "valid"):
        expected = {r["item_id"]: r["item_events_7d"] for r in result if r["snapshot"] == day_of[request.request_id]}
        columns = request.state.item_features
        assert dict(zip(columns["item_id"], columns["item_events_7d"])) == expected
        assert set(columns) == {"item_id", *transforms.ITEM}
        compared += len(expected)
    assert compared > 1000


def test_nothing_in_a_request_is_later_than_the_request(folder: Path) -> None:
    for split in SPLITS:
        requests = list(snapshot_requests.read_snapshot_requests(folder, split))
        assert len(requests) > 100
        for request in requests:
            assert max(request.state.history.times) <= request.state.at
            assert not set(request.targets) & set(request.state.seen)


def test_a_day_of_which_nothing_is_known_is_empty(folder: Path) -> None:
    assert snapshot_requests.ItemSnapshots(folder).columns_on(0.0) == {}


def test_requests_of_a_day_share_the_features_of_the_catalogue(tmp_path: Path) -> None:
    features = write_features(tmp_path / "features")
    requests = list(snapshot_requests.read_snapshot_requests(features, "test"))
    assert len(requests) > 1
    assert len({id(request.state.item_features) for request in requests}) == 1  # a copy each: users times items
