"""What left the sources leaves the online store, and so does what outlived its lifetime: in SQLite and in Redis."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.compute as compute
import pyarrow.parquet as parquet
import pytest

from components.promote.online import materialize_online
from feature_repo import removal
from feature_repo.sources import PUSH_SOURCE, TTL
from feature_repo.store import open_store
from rankline.features import transforms as names
from rankline.io.storage import FeatureStoreConfig
from serving.features.online_store import FeastLibrary
from tests.components.test_promote import END, features_of
from tests.servers.fixtures import postgres, postgres_for_all, redis, redis_for_all  # noqa: F401

LATER = END + timedelta(hours=6)


class Online:
    """An online store that holds the features of u1, u2, i1 and i2 up to END."""

    def __init__(self, root: Path, stores: FeatureStoreConfig) -> None:
        self.root, self.stores, self.folder = root, stores, root / "online" / names.SERVICE
        self.materialize(features_of(root / "first"))

    def materialize(self, features: Path, **options: Any) -> dict[str, Any]:
        return materialize_online(features, self.folder, stores=self.stores, **options)

    def history(self, user: str) -> list[str]:
        return list(self._source().user_state(user, 1e12).history.item_ids)

    def knows(self, user: str) -> bool:
        return self._source().user_state(user, 1e12).known

    def item(self, item: str) -> dict[str, Any]:
        return {name: values[0] for name, values in self._source().read(names.SERVICE, {"item_id": [item]}).items()}

    def push(self, user: str, *, at: datetime) -> None:
        from feast.data_source import PushMode

        row = {"user_id": user, "history_items": ["i2"], "history_times": [at.timestamp()], "history_ratings": [1.0]}
        frame = pd.DataFrame([{**row, "seen_items": ["i2"], "event_timestamp": at, "known_at": at}])
        open_store(self.folder).push(PUSH_SOURCE, frame, to=PushMode.ONLINE)

    def _source(self) -> FeastLibrary:
        source = FeastLibrary(self.folder)
        source.open()
        return source


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Online]:
    """An online store of each kind; that in Redis has its registry in Postgres."""
    if request.param == "sqlite":
        yield Online(tmp_path, FeatureStoreConfig())
        return
    redis, postgres = request.getfixturevalue("redis"), request.getfixturevalue("postgres")  # noqa: F811
    project = f"p{tmp_path.name.replace('-', '_')}".lower()[-30:].lstrip("_0123456789")
    yield Online(
        tmp_path,
        FeatureStoreConfig(
            online="redis", redis=redis.address, registry="postgres", postgres=postgres.address, project=project
        ),
    )


def without(features: Path, key: str, value: str) -> Path:
    """The features of sources that do not hold a user or an item any more."""
    for path in (features / "feast" / "sources").glob("*.parquet"):
        table = parquet.read_table(path)
        if key in table.column_names:
            parquet.write_table(table.filter(compute.not_equal(table[key], value)), path)
    return features


def test_a_user_who_left_the_sources_leaves_the_store(store: Online) -> None:
    assert (store.knows("u1"), store.history("u1")) == (True, ["i1"])
    store.materialize(without(features_of(store.root / "next", end=LATER), "user_id", "u1"))
    assert (store.knows("u1"), store.history("u1")) == (False, [])
    assert (store.knows("u2"), store.history("u2")) == (True, ["i2"])


def test_an_item_that_left_the_catalogue_leaves_the_store(store: Online) -> None:
    assert store.item("i2")["item_events_7d"] == 3.0
    store.materialize(without(features_of(store.root / "next", end=LATER), "item_id", "i2"))
    assert set(store.item("i2").values()) == {None}
    assert store.item("i1")["item_events_7d"] == 7.0


def test_what_outlived_its_lifetime_leaves_the_store(store: Online) -> None:
    features = features_of(store.root / "next", end=END + TTL + timedelta(days=135))
    for path in (features / "feast" / "sources").glob("*.parquet"):  # of all others the last row is 500 days old
        table = parquet.read_table(path).to_pandas()
        old = table.iloc[:, 0].isin(["u2", "i2"])
        for time in ("event_timestamp", "known_at"):
            table.loc[old, time] = pd.Timestamp(END)
        table.to_parquet(path, index=False, coerce_timestamps="us")
    watermark = store.materialize(features)
    assert (watermark["entities"]["user_activity"], watermark["entities"]["item_popularity"]) == (1, 1)
    assert (store.knows("u1"), store.knows("u2")) == (True, False)
    assert (store.item("i2")["item_events_7d"], store.item("i2")["item_price"]) == (
        None,
        2.0,
    )  # content has no lifetime
    assert store.item("i1")["item_events_7d"] == 7.0


def test_a_withdrawn_event_leaves_the_history(store: Online) -> None:
    features = features_of(store.root / "next", end=LATER)
    path = features / "feast" / "sources" / "user_history.parquet"
    table = parquet.read_table(path).to_pandas()
    for column in ("history_items", "history_times", "history_ratings", "seen_items"):
        table.at[0, column] = []
    table.to_parquet(path, index=False, coerce_timestamps="us")
    store.materialize(features)
    assert (store.history("u1"), store.history("u2")) == ([], ["i2"])


def test_the_newest_event_can_be_withdrawn(store: Online) -> None:
    """The data then ends earlier than the store, which stays as it is unless the settings say otherwise."""
    earlier = without(features_of(store.root / "next", end=END - timedelta(hours=1)), "user_id", "u2")
    assert not store.materialize(earlier)["moved"]
    assert store.knows("u2")
    assert store.materialize(earlier, replace_later=True)["moved"]
    assert (store.knows("u1"), store.knows("u2")) == (True, False)


def test_what_was_pushed_since_then_stays(store: Online) -> None:
    store.push("new", at=LATER + timedelta(minutes=1))
    store.push("early", at=END + timedelta(minutes=1))
    assert store.history("new") == store.history("early") == ["i2"]
    store.materialize(features_of(store.root / "next", end=LATER))
    assert (store.history("new"), store.history("early")) == (["i2"], [])


def test_an_erased_user_leaves_alone(store: Online) -> None:
    feast = open_store(store.folder)
    assert removal.erase_users(feast, store.folder, ["u1", "u", "1"], dry_run=True) == {"u1"}
    assert store.knows("u1")
    assert removal.erase_users(feast, store.folder, ["u1", "u", "1"]) == {"u1"}
    assert (store.knows("u1"), store.knows("u2")) == (False, True)
    if store.stores.online == "sqlite":
        assert removal.entity_key("user_id", "u1") not in (store.folder / "online.db").read_bytes()


def test_a_project_whose_name_ends_the_same_keeps_its_rows(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    address = request.getfixturevalue("redis").address
    first, longer = (
        Online(tmp_path / name, FeatureStoreConfig(online="redis", redis=address, project=name))
        for name in ("ending", "another_long_project_ending")
    )
    first.materialize(without(features_of(first.root / "next", end=LATER), "user_id", "u1"))
    assert (first.knows("u1"), longer.knows("u1")) == (False, True)
