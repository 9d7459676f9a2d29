"""A SQLite store read directly has the values that Feast's library reads."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rankline.errors import ServerError
from rankline.features.profile import ProfileFields
from rankline.model.bundle import Bundle
from serving.features.online_store import FeastLibrary, StoreFolder
from serving.features.sqlite_store import open_sqlite
from tests.serving.conftest import ROOT
from tests.serving.tiny_store import DAY, make_store

FIELDS = ProfileFields(user={"age": "number", "town": "choice", "likes": "choices", "about": "text"})
POPULAR = {f"i{n}": float(n) for n in range(30)}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("online") / FIELDS.service
    profile = {"age": 31.5, "town": "Köln", "likes": ["a", "ü", ""], "about": "says: 'hello'; --"}
    return make_store(folder, popular=POPULAR, user="ü 1", fields=FIELDS, profile=profile)


@pytest.mark.parametrize(
    ("service", "entities"),
    [
        (FIELDS.service, {"user_id": ["ü 1"]}),
        (FIELDS.service, {"user_id": ["nobody", "ü 1", "", "ü 1"]}),
        (FIELDS.service, {"item_id": [f"i{n}" for n in range(40)]}),
        (FIELDS.service, {"user_id": ["ü 1"], "item_id": ["i3"]}),
        ("history_v1", {"user_id": ["ü 1", "x' OR 1=1"]}),
    ],
)
def test_the_values_are_those_of_feasts_library(store: Path, service: str, entities: dict[str, list[Any]]) -> None:
    direct, library = StoreFolder(store, FIELDS), FeastLibrary(store, FIELDS)
    direct.open()
    library.open()
    assert (direct.is_local, library.is_local) == (True, False)
    expected = library.read(service, entities)
    actual = direct.read(service, entities)
    assert actual == expected
    assert {name: [type(v) for v in values] for name, values in actual.items()} == {
        name: [type(v) for v in values] for name, values in expected.items()
    }
    assert direct.user_state("ü 1", DAY.timestamp()) == library.user_state("ü 1", DAY.timestamp())
    assert (direct.watermark(), direct.hash_users()) == (library.watermark(), library.hash_users())


def test_a_service_that_is_not_there_fails_as_with_feast(store: Path) -> None:
    direct = StoreFolder(store)
    direct.open()
    with pytest.raises(KeyError):
        direct.read("ranking_v9", {"user_id": ["u"]})


def test_a_store_that_is_being_written_is_not_waited_for(store: Path) -> None:
    reader = open_sqlite(store, max_wait_s=0.05)
    assert reader is not None
    with sqlite3.connect(store / "online.db", isolation_level=None) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TimeoutError):
            reader.read(FIELDS.service, {"user_id": ["ü 1"]})
        writer.execute("ROLLBACK")
    assert reader.read(FIELDS.service, {"user_id": ["ü 1"]})["user_events_7d"] == [3.0]
    reader.close()


@pytest.mark.parametrize(
    "text",
    [
        "online_store: {type: redis, connection_string: 'localhost:6379'}\nregistry: registry.db",
        "online_store: {type: sqlite, path: '${FOLDER}/online.db'}\nregistry: registry.db",
        "online_store: {type: sqlite, path: online.db, text_search_enabled: true}\nregistry: registry.db",
        "online_store: {type: sqlite, path: online.db}\nregistry: s3://bucket/registry.db",
        "online_store: {type: sqlite, path: online.db}\nregistry: {registry_type: sql, path: x}",
        "online_store: {type: sqlite, path: online.db}\nregistry: registry.db\nentity_key_serialization_version: 2",
        "[]",
    ],
)
def test_every_other_store_is_left_to_feast(tmp_path: Path, text: str) -> None:
    (tmp_path / "feature_store.yaml").write_text(text)
    assert open_sqlite(tmp_path, max_wait_s=1) is None


def test_a_store_without_rows_says_so_and_is_not_created(tmp_path: Path, store: Path) -> None:
    for name in ("feature_store.yaml", "registry.db"):
        (tmp_path / name).write_bytes((store / name).read_bytes())
    with pytest.raises(ServerError, match="has no rows"):
        StoreFolder(tmp_path).open()
    assert not (tmp_path / "online.db").exists()


@pytest.mark.integration
def test_neither_feast_nor_telemetry_is_loaded(store: Path, bundle: Bundle, tmp_path: Path) -> None:
    """A server of a SQLite store: importing Feast takes seconds, and ONNX Runtime would write into the home folder."""
    script = f"""
import sys
from pathlib import Path
from rankline.model.bundle import open_bundle
from serving.engine import BundleEngine
from rankline.features.profile import ProfileFields
from serving.features.online_store import StoreFolder
store = StoreFolder(Path({str(store)!r}), ProfileFields(**{FIELDS.model_dump()!r}))
store.open()
assert store.user_state("ü 1", 2e9).known
BundleEngine.load(open_bundle(Path({str(bundle.folder)!r})), precision="fp32", provider="cpu", threads=1)
print("feast" in sys.modules, "pandas" in sys.modules)
import feast  # all of it, also after its formats
print(feast.FeatureStore.__name__)
"""
    environment = os.environ | {"HOME": str(tmp_path)}
    environment.pop("XDG_CACHE_HOME", None)
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert ended.stdout.split() == ["False", "False", "FeatureStore"], ended.stderr
    assert not [path for path in tmp_path.rglob("*") if "onnxruntime" in path.name]
