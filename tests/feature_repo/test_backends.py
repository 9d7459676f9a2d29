"""Feast on Postgres and Redis gives the same features as on files; a locked or unreachable store is one error."""

import os
import shutil
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from components.featurize.feature_refs import ITEM_FEATURE_REFS, USER_FEATURE_REFS
from components.promote.online import materialize_online
from feature_repo import backends
from feature_repo.materialize import materialize
from feature_repo.store import apply
from rankline.errors import StorageError
from rankline.features import transforms as names
from rankline.io.storage import FeatureStoreConfig
from serving.features.online_store import FeastLibrary
from tests.components.test_promote import END, features_of
from tests.feature_repo.test_store import (
    HISTORY_REFS,
    ITEMS,
    UNTIL,
    USERS,
    folder,  # noqa: F401
    sources,  # noqa: F401
    then,
    when,
)
from tests.servers.postgres import Postgres
from tests.servers.redis import Redis


def context(rows: int) -> dict[str, Any]:
    return {"request_time": [1e9] * rows, "last_event_time": [0.0] * rows, "history_length": [1.0] * rows}


@pytest.mark.integration
def test_a_join_in_postgres_is_the_join_in_duckdb(
    sources: Path,  # noqa: F811
    tmp_path: Path,
    postgres: Postgres,
) -> None:
    """Includes rows that became known later: the sources of test_store have one of each kind."""
    stores = FeatureStoreConfig(offline="postgres", registry="postgres", postgres=postgres.address)
    apply(tmp_path / "files", project="same", sources=sources)
    apply(tmp_path / "tables", project="same", sources=sources, stores=stores)
    for at in (UNTIL, when(12.5), when(41.5)):
        for entities, refs in (
            ({"user_id": USERS, **context(len(USERS))}, [*USER_FEATURE_REFS, *HISTORY_REFS]),
            ({"item_id": ITEMS}, ITEM_FEATURE_REFS),
        ):
            in_files = then(tmp_path / "files", entities, refs, at=at)
            in_tables = then(tmp_path / "tables", entities, refs, at=at)
            assert in_tables == in_files
    late = then(tmp_path / "tables", {"user_id": ["u0"], **context(1)}, USER_FEATURE_REFS, at=UNTIL)
    later = then(tmp_path / "tables", {"user_id": ["u0"], **context(1)}, USER_FEATURE_REFS, at=when(41.5))
    assert 999.0 not in [values[0] for values in late.values()]
    assert 999.0 in [values[0] for values in later.values()]
    result = (tmp_path / "tables" / "feature_store.yaml").read_text()
    assert "12345" not in result
    assert not (tmp_path / "tables" / "registry.db").exists()
    apply(tmp_path / "tables", project="same", sources=sources, stores=stores)  # applying twice changes nothing


def test_an_interrupted_load_leaves_no_tables(
    sources: Path,  # noqa: F811
    tmp_path: Path,
    postgres: Postgres,
) -> None:
    stores = FeatureStoreConfig(offline="postgres", postgres=postgres.address)
    broken = tmp_path / "sources"
    broken.mkdir()
    for file in sources.glob("*.parquet"):
        content = file.read_bytes()
        (broken / file.name).write_bytes(content if file.stem != "user_history" else content[: len(content) // 2])
    with pytest.raises(Exception, match="Parquet"):
        apply(tmp_path / "store", project="half", sources=broken, stores=stores)
    with backends.connect(stores) as connection:
        actual = connection.execute("SELECT count(*) FROM pg_tables WHERE tablename LIKE 'half_%'").fetchone()
    assert actual == (0,)


@pytest.mark.integration
def test_a_locked_registry_is_one_message_in_time(
    sources: Path,  # noqa: F811
    tmp_path: Path,
    postgres: Postgres,
) -> None:
    stores = FeatureStoreConfig(registry="postgres", postgres=postgres.address, lock_timeout_s=1)
    apply(tmp_path / "first", project="locked", sources=sources, stores=stores)
    with backends.connect(stores) as holder:
        holder.execute("LOCK TABLE feature_views, entities, projects IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        with pytest.raises(StorageError, match="the feature registry is locked") as caught:
            apply(tmp_path / "second", project="locked", sources=sources, stores=stores)
        assert time.monotonic() - began < 30
    assert "within 1 s" in str(caught.value)
    apply(tmp_path / "second", project="locked", sources=sources, stores=stores)  # succeeds once the lock is released


def test_postgres_that_is_away_is_one_message(sources: Path, tmp_path: Path) -> None:  # noqa: F811
    pytest.importorskip("psycopg")
    stores = FeatureStoreConfig(offline="postgres", postgres="rankline@127.0.0.1:1/rankline")
    with pytest.raises(StorageError, match="a feature store failed"):
        apply(tmp_path / "store", project="away", sources=sources, stores=stores)


def test_the_error_for_a_wrong_password_does_not_contain_it(
    sources: Path,  # noqa: F811
    tmp_path: Path,
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    for stores in (
        FeatureStoreConfig(offline="postgres", postgres=postgres.address),
        FeatureStoreConfig(registry="postgres", postgres=postgres.address),
    ):
        with pytest.raises(StorageError, match="password authentication failed") as caught:
            apply(tmp_path / "store", project="secret", sources=sources, stores=stores)
        assert "hunter2" not in str(caught.value)


def test_the_server_reads_the_same_from_redis_as_from_sqlite(
    sources: Path,  # noqa: F811
    folder: Path,  # noqa: F811
    tmp_path: Path,
    redis: Redis,
    postgres: Postgres,
) -> None:
    stores = FeatureStoreConfig(
        online="redis", redis=redis.address, registry="postgres", postgres=postgres.address, project="champion"
    )
    apply(tmp_path / "redis", project="champion", sources=sources, stores=stores)
    materialize(tmp_path / "redis", until=UNTIL)
    assert "sesame" not in (tmp_path / "redis" / "feature_store.yaml").read_text()
    in_redis, in_sqlite = FeastLibrary(tmp_path / "redis"), FeastLibrary(folder)
    for source in (in_redis, in_sqlite):
        source.open()
    for service, entities in (
        (names.SERVICE, {"user_id": USERS}),
        (names.HISTORY_SERVICE, {"user_id": USERS}),
        (names.SERVICE, {"item_id": ITEMS}),
    ):
        actual = in_redis.read(service, entities)
        assert actual == in_sqlite.read(service, entities)
        assert any(value is not None for values in actual.values() for value in values)
    assert in_redis.user_state("u0", UNTIL.timestamp()) == in_sqlite.user_state("u0", UNTIL.timestamp())


def test_promotion_brings_features_to_redis_and_replaces_them(tmp_path: Path, redis: Redis) -> None:
    stores = FeatureStoreConfig(online="redis", redis=redis.address, project="shop")
    online = tmp_path / "online" / names.SERVICE
    for events_7d in (7.0, 8.0):  # the same timestamp again: as in SQLite, the later row wins
        features = features_of(tmp_path / f"features{events_7d}", events_7d=events_7d)
        assert materialize_online(features, online, stores=stores)["moved"]
        source = FeastLibrary(online)
        source.open()
        assert source.read(names.SERVICE, {"item_id": ["i1"]})["item_events_7d"] == [events_7d]


def test_a_watermark_in_redis_is_seen_from_elsewhere_and_never_goes_back(tmp_path: Path, redis: Redis) -> None:
    stores = FeatureStoreConfig(online="redis", redis=redis.address, project="shared")
    here, there = (tmp_path / each / "online" / names.SERVICE for each in ("here", "there"))
    owner = {"who": "schedule hourly", "run": "r1"}
    first = materialize_online(features_of(tmp_path / "first"), here, stores=stores, owner=owner)
    # a server elsewhere has the store's settings and definitions, but not this workspace's files
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(here, elsewhere, ignore=shutil.ignore_patterns("watermark.json", "sources"))
    source = FeastLibrary(elsewhere)
    source.open()
    assert source.watermark() == END.timestamp() == datetime.fromisoformat(first["until"]).timestamp()
    later = features_of(tmp_path / "later", end=END + timedelta(hours=6), events_7d=9.0)
    assert materialize_online(later, here, stores=stores)["moved"]
    assert source.watermark() == (END + timedelta(hours=6)).timestamp()
    # another workspace with older data
    result = materialize_online(features_of(tmp_path / "older"), there, stores=stores)
    assert (result["moved"], result["until"]) == (False, (END + timedelta(hours=6)).isoformat())
    assert (there / "watermark.json").read_text() == (here / "watermark.json").read_text()
    assert source.read(names.SERVICE, {"item_id": ["i1"]})["item_events_7d"] == [9.0]


def test_redis_that_is_away_is_one_message_and_the_champion_stays(
    tmp_path: Path, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = features_of(tmp_path / "features")
    nowhere = FeatureStoreConfig(online="redis", redis="127.0.0.1:1")
    with pytest.raises(StorageError, match=r"where: 127\.0\.0\.1:1"):
        materialize_online(features, tmp_path / "online" / "s", stores=nowhere)
    monkeypatch.setitem(os.environ, "REDIS_PASSWORD", "hunter2")
    wrong = FeatureStoreConfig(online="redis", redis=redis.address)
    with pytest.raises(StorageError, match="invalid username-password") as caught:
        materialize_online(features, tmp_path / "online" / "t", stores=wrong)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"offline": "postgres"}, "postgres=user@host"),
        ({"online": "redis"}, "redis=host:port"),
        ({"postgres": "user:secret@host/db"}, "pattern"),
        ({"redis": "host:6379,password=secret"}, "pattern"),
    ],
)
def test_settings_that_reach_nothing_or_hold_a_password_are_refused(settings: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ValidationError, match=wanted):
        FeatureStoreConfig(**settings)
