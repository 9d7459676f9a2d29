"""Features from a real Feast store: in the process and through a feature server; late, broken and absent."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from rankline.errors import ServerError, StorageError
from rankline.features import transforms as names
from rankline.features.profile import ProfileFields
from rankline.model.bundle import Bundle
from rankline.runtime.bucket_workspace import BucketWorkspace
from rankline.runtime.lazy_imports import import_feast
from serving.features.lookup import FeatureLookup
from serving.features.online_store import FeastBucket, FeastLibrary, FeastServer, FeatureSource, UserState
from serving.metrics import Metrics
from tests.servers.proxy import DROP, PASS, flaky
from tests.servers.s3 import Bucket
from tests.serving.conftest import Server, running
from tests.serving.tiny_store import DAY, HISTORY, NOON, feature_server, make_store

POPULAR = {"i20": 9.0, "i21": 8.0, "i22": 7.0}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("online"), popular=POPULAR)


@pytest.fixture(scope="module")
def feast_server(store: Path) -> Iterator[str]:
    """Feast's own feature server over the store."""
    with feature_server(store) as url:
        yield url


@pytest.fixture(params=["library", "server"])
def source(request: pytest.FixtureRequest, store: Path) -> FeatureSource:
    opened: FeatureSource
    library = request.param == "library"
    opened = FeastLibrary(store) if library else FeastServer(request.getfixturevalue("feast_server"))
    opened.open()
    return opened


@pytest.mark.integration
def test_a_user_s_state_comes_from_the_store(source: FeatureSource) -> None:
    user = source.user_state("u1", DAY.timestamp())
    assert user.known
    assert user.history.item_ids == HISTORY["history_items"]
    assert user.history.times == HISTORY["history_times"]
    assert user.history.ratings == HISTORY["history_ratings"]
    assert list(user.seen) == HISTORY["seen_items"]
    assert user.user_features == dict.fromkeys(names.USER, 3.0)
    assert user.affinity == {"Comedy": 0.75, "Drama": 0.25}


def test_only_the_past_part_of_a_history_is_returned(source: FeatureSource) -> None:
    user = source.user_state("u1", NOON)
    assert user.history.item_ids == ["i1", "i2"]
    assert user.history.ratings == [5.0, 0.0]


def test_a_stranger_has_defaults(source: FeatureSource) -> None:
    user = source.user_state("nobody", NOON)
    assert not user.known
    assert user.history.item_ids == []
    assert set(user.user_features.values()) == {0.0}


def test_item_features_are_those_of_known_items(source: FeatureSource) -> None:
    columns = source.item_features([f"i{n}" for n in range(450)])  # more than one read
    assert columns["item_id"] == list(POPULAR)
    np.testing.assert_array_equal(columns["item_events_7d"], list(POPULAR.values()))
    np.testing.assert_array_equal(columns["item_text_length"], [20.0] * 3)
    assert set(columns) == {"item_id", *names.ITEM}
    assert source.item_features(["i1"]) == {}


@pytest.mark.integration
def test_a_refresh_by_promotion_is_noticed(tmp_path: Path) -> None:
    """Features are materialized again into the same folder."""
    source = FeastLibrary(make_store(tmp_path / "online", popular={"i1": 1.0}))
    source.open()
    assert source.watermark() == DAY.timestamp()
    assert source.item_features(["i1", "i2"])["item_id"] == ["i1"]
    make_store(tmp_path / "online", popular={"i2": 5.0})
    source.open()
    assert "i2" in source.item_features(["i1", "i2"])["item_id"]


@pytest.mark.integration
def test_a_store_in_a_bucket_is_followed(
    tmp_path: Path, bucket: Bucket, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that has nothing but the URL; while the bucket does not respond it answers from its copy."""

    def write(popular: dict[str, float]) -> None:
        make_store(tmp_path / "online", popular=popular)
        BucketWorkspace(url, tmp_path).upload("online")

    away = False
    with flaky(bucket.port, lambda n: DROP if away else PASS) as network:
        monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.environment(port=network.port)["AWS_ENDPOINT_URL"])
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        write({"i1": 1.0})
        source = FeastBucket(f"{url}/online", poll_s=0)
        source.open()
        assert source.item_features(["i1", "i2"])["item_id"] == ["i1"]
        assert source.watermark() == DAY.timestamp()
        assert not source.changed()
        write({"i2": 5.0})
        assert source.changed()
        source.open()
        away = True
        assert not source.changed()
        source.open()
        assert "i2" in source.item_features(["i1", "i2"])["item_id"]
        with pytest.raises(StorageError):
            FeastBucket(f"{url}/online", poll_s=0).open()
        away = False
        with pytest.raises(ServerError, match="there is no feature store"):
            FeastBucket(f"{url}/nothing", poll_s=0).open()


class Switchable(FeatureSource):
    """A source that can be turned off."""

    def __init__(self) -> None:
        self.broken, self.reads = False, 0

    def for_fields(self, fields: ProfileFields) -> FeatureSource:
        return self

    def open(self) -> None:
        if self.broken:
            raise OSError("the disk is on fire")

    def read(self, service: str, entities: dict[str, list[str]]) -> dict[str, list[object]]:  # type: ignore[override]
        self.reads += 1
        self.open()
        count = len(next(iter(entities.values())))
        return {name: [1.0] * count for name in (*names.USER, *names.ITEM)}


def test_a_store_that_fails_degrades_and_comes_back() -> None:
    source, metrics = Switchable(), Metrics()
    lookup = FeatureLookup(source, metrics, item_ids=lambda: ["i1"], refresh_s=3600)

    def degraded() -> list[str]:
        return lookup.look_up("u", at=NOON, history=None, seen=None)[2]

    assert lookup.state == "opening"
    assert degraded() == ["features"]
    lookup.refresh()
    assert (lookup.state, degraded()) == ("ready", [])
    source.broken = True
    state, known, parts = lookup.look_up("u", at=NOON, history=None, seen=None)
    assert (known, parts, lookup.state) == (None, ["features"], "ready")
    lookup.refresh()
    assert (lookup.state, lookup.reason) == ("down", "the disk is on fire")
    assert state.user_features == {}
    assert state.item_features["item_id"] == ["i1"], "what is known of items is kept"
    reads = source.reads
    assert degraded() == ["features"]
    assert source.reads == reads, "a store that is down is not asked by requests"
    lookup.refresh()
    assert lookup.state == "down"
    source.broken = False
    lookup.refresh()
    assert (lookup.state, degraded()) == ("ready", [])
    assert metrics.registry.get_sample_value("rankline_degraded_total", {"part": "features"}) == 3
    assert metrics.registry.get_sample_value("rankline_features_ready") == 1


@pytest.mark.parametrize("error", [ValueError("embedded null"), OSError("key too long"), KeyError("u")])
def test_an_id_that_the_store_refuses_takes_nobody_elses_features_away(error: Exception) -> None:
    class Choosy(Switchable):
        def user_state(self, user_id: str, at: float) -> UserState:
            if user_id == "bad":
                raise error
            return UserState(known=True)

    lookup = FeatureLookup(Choosy(), Metrics(), item_ids=lambda: ["i1"], refresh_s=3600)
    lookup.refresh()
    for _ in range(3):
        assert lookup.look_up("bad", at=NOON, history=None, seen=None)[1:] == (None, ["features"])
        assert lookup.look_up("u", at=NOON, history=None, seen=None)[1:] == (True, [])
        lookup.refresh()
        assert lookup.state == "ready"


def test_a_store_that_hangs_is_down_for_all_but_one(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = FeastLibrary(store)
    lookup = FeatureLookup(source, Metrics(), item_ids=lambda: ["i1"], refresh_s=3600)
    lookup.refresh()
    assert lookup.state == "ready"
    resume, entered = threading.Event(), threading.Event()
    feast_store = source._reader._store  # type: ignore[union-attr]
    answer = feast_store.get_online_features

    def hang(*arguments: Any) -> Any:
        entered.set()
        resume.wait(60)
        return answer(*arguments)

    monkeypatch.setattr(feast_store, "get_online_features", hang)
    monkeypatch.setattr("serving.features.online_store.MAX_WAIT_S", 0.1)
    ask = functools.partial(lookup.look_up, "u1", at=NOON, history=None, seen=None)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(ask)
        entered.wait(60)
        try:
            assert [pool.submit(ask).result(timeout=30)[2] for _ in range(3)] == [["features"]] * 3
            assert lookup.state == "down"
        finally:
            resume.set()
        assert first.result(timeout=30)[2] == ["features"], "it was answered when the store had long counted as down"
    lookup.refresh()
    assert (lookup.state, ask()[2]) == ("ready", [])


def test_features_of_a_new_catalogue_are_read_at_once() -> None:
    items = [["i1"]]
    lookup = FeatureLookup(Switchable(), Metrics(), item_ids=lambda: items[0], refresh_s=3600)
    lookup.refresh()
    items[0] = ["i1", "i2"]
    lookup.refresh()
    state, _, _ = lookup.look_up(None, at=NOON, history=None, seen=None)
    assert state.item_features["item_id"] == ["i1", "i2"]


@pytest.mark.integration
def test_the_server_reads_the_store_once_it_can(bundle: Bundle, store: Path, tmp_path: Path) -> None:
    """Its responses have the store's features as soon as the server says that it is ready to read them."""
    with running(tmp_path, "--bundle", str(bundle.folder), "--features", str(store)) as server:

        def recommend(**reads: object) -> dict[str, object]:
            return server.client.post("/v1/recommend", json={"k": 100, **reads}).json()  # type: ignore[no-any-return]

        ready = server.until("/readyz", lambda r: r.json()["features"]["state"] == "ready").json()
        assert ready["features"]["watermark"] == DAY.timestamp()

        known = recommend(user_id="u1")
        assert (known["degraded"], known["known_user"]) == ([], True)
        items = known["items"]
        assert isinstance(items, list)
        assert not set(HISTORY["seen_items"]) & {item["item_id"] for item in items}
        assert {item["item_id"] for item in items if "popular" in item["sources"]} == set(POPULAR)
        everything = recommend(user_id="u1", exclude_seen=False)["items"]
        assert isinstance(everything, list)
        assert {"i1", "i2"} <= {item["item_id"] for item in everything}

        stranger = recommend(user_id="nobody", k=3)
        assert (stranger["degraded"], stranger["known_user"]) == ([], False)
        items = stranger["items"]
        assert isinstance(items, list)
        assert {item["item_id"] for item in items} == set(POPULAR), "popularity leads"
        assert gauge(server, "rankline_features_watermark_seconds") == DAY.timestamp()
        assert gauge(server, "rankline_features_lag_seconds") == pytest.approx(time.time() - DAY.timestamp(), abs=5)
        assert ready["features"]["lag_s"] == pytest.approx(time.time() - DAY.timestamp(), abs=60)


def gauge(server: Server, name: str) -> float:
    """A metric of the features that the server reads."""
    line = f'\n{name}{{service="{names.SERVICE}"}} '
    return float(server.client.get("/metrics").text.split(line)[1].split()[0])


@pytest.mark.integration
def test_what_is_materialized_is_read_without_a_restart(bundle: Bundle, tmp_path: Path) -> None:
    """Metrics, readiness and responses change within seconds."""
    store, later = make_store(tmp_path / "store", popular=POPULAR), DAY + timedelta(hours=5)
    with running(tmp_path, "--bundle", str(bundle.folder), "--features", str(store)) as server:
        server.until("/readyz", lambda r: r.json()["features"]["state"] == "ready")
        lag = gauge(server, "rankline_features_lag_seconds")
        answers: list[list[str]] = []
        over = threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=server.url) as client:
                while not over.is_set():
                    answers.append(client.post("/v1/recommend", json={"user_id": "u1", "k": 1}).json()["degraded"])

        asker = threading.Thread(target=ask)
        asker.start()
        make_store(store, popular={"i7": 500.0}, until=later)
        moved = server.until("/readyz", lambda r: r.json()["features"]["watermark"] == later.timestamp(), timeout_s=10)
        over.set()
        asker.join()
        assert len(answers) > 10
        assert not any(answers), "nobody was answered without features meanwhile"
        assert moved.json()["features"]["service"] == names.SERVICE
        assert gauge(server, "rankline_features_watermark_seconds") == later.timestamp()
        assert lag - gauge(server, "rankline_features_lag_seconds") == pytest.approx(5 * 3600, abs=60)
        answer = server.client.post("/v1/recommend", json={"user_id": "nobody", "k": 1}).json()
        assert (answer["items"][0]["item_id"], answer["degraded"]) == ("i7", [])


def test_importing_feast_leaves_the_counters_alone() -> None:
    """Feast would make the counters of this process and its children share files in a temporary folder."""
    import_feast()
    assert not [name for name in os.environ if name.startswith("PROMETHEUS_MULTIPROC")]
    one, other = Metrics(), Metrics()
    one.swaps.labels("swapped").inc()
    assert other.registry.get_sample_value("rankline_swaps_total", {"outcome": "swapped"}) == 0


@pytest.mark.integration
def test_a_missing_feature_store_does_not_stop_the_server(bundle: Bundle, tmp_path: Path) -> None:
    with running(tmp_path, "--bundle", str(bundle.folder), "--features", str(tmp_path / "nowhere")) as server:
        ready = server.until("/readyz", lambda r: r.json()["features"]["state"] == "down").json()
        assert ready["ready"] is True
        assert "no feature store" in ready["features"]["why"]
        answer = server.client.post("/v1/recommend", json={"user_id": "u1"})
        assert (answer.status_code, answer.json()["degraded"]) == (200, ["features"])
