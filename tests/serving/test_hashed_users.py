"""Where the ids in the feature store are hashed, the server hashes those of requests."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankline.users.hashing import UserKey
from serving.features.lookup import FeatureLookup
from serving.features.online_store import FeastLibrary
from serving.metrics import Metrics
from tests.serving.tiny_store import DAY, HISTORY, make_store

VARIABLE, SECRET = "TEST_ID_KEY", "a key that is long enough"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, SECRET)
    key = UserKey.from_environment(VARIABLE)
    hashed = {"variable": VARIABLE, "key": key.fingerprint}
    return make_store(tmp_path / "online", popular={"i1": 1.0}, user=key.hash("u1"), hash_users=hashed)


def lookup(store: Path) -> FeatureLookup:
    features = FeatureLookup(FeastLibrary(store), Metrics(), item_ids=lambda: ["i1"])
    features.refresh()
    return features


def test_a_request_names_the_user_by_the_plain_id(store: Path) -> None:
    features = lookup(store)
    state, known, missing = features.look_up("u1", at=DAY.timestamp(), history=None, seen=None)
    assert (known, missing, state.history.item_ids) == (True, [], HISTORY["history_items"])
    assert features.look_up("u2", at=DAY.timestamp(), history=None, seen=None)[1] is False
    assert SECRET not in "".join(path.read_text(errors="replace") for path in store.rglob("*") if path.is_file())


@pytest.mark.integration
@pytest.mark.parametrize(("value", "reason"), [(None, "is missing"), ("another key, long enough", "another key")])
def test_without_the_key_the_features_are_down_and_say_why(
    store: Path, monkeypatch: pytest.MonkeyPatch, value: str | None, reason: str
) -> None:
    monkeypatch.delenv(VARIABLE)
    if value:
        monkeypatch.setenv(VARIABLE, value)
    features = lookup(store)
    assert features.state == "down"
    assert reason in features.reason
    _, known, missing = features.look_up("u1", at=DAY.timestamp(), history=None, seen=None)
    assert (known, missing) == (None, ["features"])
