"""Features between promotions: newer rows for the champion, never other definitions, one writer at a time."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import feature_repo.changes
import feature_repo.store
from components.promote import online
from components.promote.config import PromoteConfig
from components.promote.materialize import materialize
from components.promote.store_lock import lock_holder, store_lock
from rankline.errors import RegistryError, UsageError
from rankline.features import transforms as names
from rankline.io import digest
from rankline.registry.model_registry import ModelRegistry
from serving.features.online_store import FeastLibrary
from tests.components.test_promote import END, features_of
from tests.rankline.registry.test_model_registry import promote, tiny_bundle

LATER = END + timedelta(hours=6)
SCHEDULE = {"kind": "scheduled", "schedule": "hourly"}


class Shop:
    """A workspace with a champion whose features are online up to END, 7 events a week of the first item."""

    def __init__(self, root: Path) -> None:
        self.root, self.workspace = root, root / "workspace"
        self.online = self.workspace / "online" / names.SERVICE
        self.repository = ModelRegistry(self.workspace / "repository")
        self.promoted("made")
        self.first = features_of(root / "first")
        online.materialize_online(self.first, self.online, owner={"who": "promotion", "run": "run-1"})

    def promoted(self, name: str, **changes: Any) -> None:
        bundle = tiny_bundle(self.root / name, weights=name.encode(), **changes)
        self.repository.add(bundle.folder)
        promote(self.repository, bundle.model_id)

    def materialize(self, features: Path, *, trigger: dict[str, Any] | None = None, **config: Any) -> dict[str, Any]:
        return materialize(
            features, config=PromoteConfig(**config), repository=str(self.workspace / "repository"),
            workspace=self.workspace, run_id="run-2", trigger=trigger,
        )  # fmt: skip

    @property
    def watermark(self) -> dict[str, Any]:
        watermark: dict[str, Any] = json.loads((self.online / "watermark.json").read_text())
        return watermark

    def events_7d(self) -> float:
        source = FeastLibrary(self.online)
        source.open()
        value: float = source.read(names.SERVICE, {"item_id": ["i1"]})["item_events_7d"][0]
        return value


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def another_service(features: Path, service: str = "ranking_v9") -> Path:
    """What code of another feature-service version would have made."""
    (features / "summary.json").write_text(json.dumps({"service": service}))
    return features


def test_newer_rows_come_online_and_who_saw_to_it_is_noted(shop: Shop) -> None:
    later = features_of(shop.root / "later", end=LATER, events_7d=9.0)
    result = shop.materialize(later, trigger=SCHEDULE)
    assert (result["service"], result["online"]["moved"], shop.events_7d()) == (names.SERVICE, True, 9.0)
    watermark = shop.watermark
    assert (watermark["until"], watermark["owner"]) == (LATER.isoformat(), {"who": "schedule hourly", "run": "run-2"})
    assert watermark["took_s"] > 0
    shop.materialize(later, trigger={"kind": "manual", "who": "ann@desk"})
    assert shop.watermark["owner"]["who"] == "ann@desk"


def test_older_data_never_takes_the_features_back(shop: Shop) -> None:
    """Whatever the clock says and whatever --until was given: it is the data's own end that counts."""
    before = digest.tree_digest(shop.online)
    result = shop.materialize(features_of(shop.root / "older", end=END - timedelta(days=3), events_7d=1.0))
    assert not result["online"]["moved"]
    assert "stays as it is" in result["sentence"]
    assert (digest.tree_digest(shop.online), shop.events_7d()) == (before, 7.0)


def test_another_service_version_than_the_champion_s_is_refused(shop: Shop) -> None:
    before = digest.tree_digest(shop.online)
    with pytest.raises(UsageError, match="another service version") as refused:
        shop.materialize(another_service(features_of(shop.root / "v9", end=LATER, events_7d=9.0)))
    assert (refused.value.expected.split(",")[0], refused.value.found) == (names.SERVICE, "ranking_v9")
    assert digest.tree_digest(shop.online) == before
    assert [path.name for path in shop.online.parent.iterdir() if path.is_dir()] == [names.SERVICE]


def test_a_candidate_s_features_leave_the_champion_s_store_byte_for_byte_alone(shop: Shop) -> None:
    """What a promotion of another version does before its event: a store of its own beside the champion's."""
    before = digest.tree_digest(shop.online)
    candidate = another_service(features_of(shop.root / "v9", end=LATER, events_7d=9.0))
    beside = shop.online.with_name("ranking_v9")
    assert online.materialize_online(candidate, beside)["moved"]
    assert (beside / "watermark.json").is_file()
    assert (digest.tree_digest(shop.online), shop.events_7d()) == (before, 7.0)
    # once a model that reads it is the champion, that one's features are kept fresh
    shop.promoted("next", features=tiny_names("ranking_v9"))
    with pytest.raises(UsageError, match="another service version"):
        shop.materialize(features_of(shop.root / "later", end=LATER))


def tiny_names(service: str) -> Any:
    from rankline.model.scoring import feature_names

    return feature_names().model_copy(update={"service": service})


def test_other_definitions_under_the_champion_s_name_are_refused(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    real = feature_repo.store.definitions
    monkeypatch.setattr(feature_repo.store, "definitions", lambda *given: [*real(*given)][:-1])  # without history_v1
    assert feature_repo.changes.definition_changes(shop.online, shop.online / "sources") == [
        "service history_v1 is gone"
    ]
    before = digest.tree_digest(shop.online)
    later = features_of(shop.root / "later", end=LATER)
    with pytest.raises(UsageError, match="other feature definitions than the champion reads") as refused:
        shop.materialize(later)
    assert "service history_v1 is gone" in refused.value.found
    assert digest.tree_digest(shop.online) == before
    monkeypatch.undo()
    assert feature_repo.changes.definition_changes(shop.online, shop.online / "sources") == []
    assert shop.materialize(later)["online"]["moved"]


def test_without_a_champion_there_is_nothing_to_keep_fresh(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no champion"):
        materialize(
            features_of(tmp_path / "features"), config=PromoteConfig(), repository=str(tmp_path / "repository"),
            workspace=tmp_path, run_id="run-1",
        )  # fmt: skip
    assert not (tmp_path / "online").exists()


def test_of_two_at_once_one_waits_or_is_refused_with_the_holder(shop: Shop) -> None:
    later = features_of(shop.root / "later", end=LATER, events_7d=9.0)
    done: list[dict[str, Any]] = []
    with store_lock(shop.online, timeout_s=1, who="schedule nightly", run="run-7"):
        assert "schedule nightly, run run-7: process" in lock_holder(shop.online)
        with pytest.raises(RegistryError, match="another process is writing") as refused:
            shop.materialize(later, lock_timeout_s=0.05)
        assert f"schedule nightly, run run-7: process {os.getpid()}" in refused.value.found
        waits = threading.Thread(target=lambda: done.append(shop.materialize(later, lock_timeout_s=60)))
        waits.start()
        waits.join(0.5)
        assert waits.is_alive()
        assert shop.watermark["until"] == END.isoformat()
    waits.join(60)
    assert done[0]["online"]["moved"]
    assert lock_holder(shop.online) == ""


def killed(shop: Shop, features: Path) -> None:
    """In a process of its own: everything is written but not yet in its place."""
    real = os.replace

    def replace(source: Any, target: Any, **more: Any) -> None:
        if Path(target).name == "online.db":
            os.kill(os.getpid(), signal.SIGKILL)
        real(source, target, **more)

    os.replace = replace
    shop.materialize(features)


def test_killed_half_way_the_next_does_it_again_and_who_reads_goes_on_reading(shop: Shop) -> None:
    later = features_of(shop.root / "later", end=LATER, events_7d=9.0)
    source = FeastLibrary(shop.online)
    source.open()
    assert source.read(names.SERVICE, {"item_id": ["i1"]})["item_events_7d"] == [7.0]
    victim = multiprocessing.get_context("fork").Process(target=killed, args=(shop, later))
    victim.start()
    victim.join(60)
    assert victim.exitcode == -signal.SIGKILL
    (left,) = shop.online.glob(".online.db.*")  # it was on its way
    assert source.read(names.SERVICE, {"item_id": ["i1"]})["item_events_7d"] == [7.0]
    source.open()  # as a server does that sees the definitions' file written anew
    assert source.read(names.SERVICE, {"item_id": ["i1"]})["item_events_7d"] == [7.0]
    assert (shop.watermark["until"], lock_holder(shop.online)) == (END.isoformat(), "")
    assert shop.materialize(later)["online"]["moved"]
    assert source.changed()
    source.open()
    assert source.read(names.SERVICE, {"item_id": ["i1"]})["item_events_7d"] == [9.0]
    assert list(shop.online.glob(".online.db*")) == [left], "`rankline gc` removes it"
