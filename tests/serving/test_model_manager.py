"""Following a registry: loading champions, rejecting damaged ones, surviving a damaged history."""

from __future__ import annotations

import json
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from rankline.contracts import FrozenState
from rankline.errors import IntegrityError, UsageError
from rankline.model.bundle import Bundle
from rankline.registry.anchor import break_glass
from rankline.registry.model_registry import ModelRegistry
from serving.api.app import create_app
from serving.engine import Engine, EngineRequest, run_request
from serving.features.lookup import FeatureLookup
from serving.metrics import Metrics
from serving.model_manager import ModelManager, NotReady
from tests.serving.tiny_bundle import (
    flip_byte,
    make_bundle,
    make_catalogue,
    publish,
    publish_catalogue,
    publish_damaged,
)

NEVER_S = 3600.0  # the tests poll themselves


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def manager(metrics: Metrics) -> Iterator[ModelManager]:
    holder = ModelManager(metrics, precision="fp32", provider="cpu", threads=1)
    yield holder
    holder.close()


def poll(manager: ModelManager) -> None:
    """What the two threads of a manager do, one after the other."""
    manager.refresh_champion()
    manager.swap_if_changed()


def count(metrics: Metrics, outcome: str) -> float | None:
    return metrics.registry.get_sample_value("rankline_swaps_total", {"outcome": outcome})


def test_the_first_champion_is_taken_up_when_it_comes(
    manager: ModelManager, metrics: Metrics, bundle: Bundle, tmp_path: Path
) -> None:
    manager.follow(str(tmp_path), poll_interval_s=NEVER_S)
    with pytest.raises(NotReady):
        _ = manager.engine
    publish(tmp_path, bundle)
    poll(manager)
    assert manager.model_id == bundle.model_id
    assert count(metrics, "swapped") == 1


def test_a_rollback_is_a_swap_like_any_other(
    manager: ModelManager, metrics: Metrics, bundle: Bundle, other_bundle: Bundle, tmp_path: Path
) -> None:
    for each in (bundle, other_bundle):
        publish(tmp_path, each)
    manager.follow(str(tmp_path), poll_interval_s=NEVER_S)
    assert manager.model_id == other_bundle.model_id
    ModelRegistry(tmp_path).append("rolled_back", bundle.model_id, who="test", why="it was better")
    poll(manager)
    poll(manager)
    assert manager.model_id == bundle.model_id
    assert count(metrics, "swapped") == 1
    labels = {"model_id": other_bundle.model_id, "revision": other_bundle.revision}
    labels |= {"precision": "fp32", "provider": "cpu"}
    assert metrics.registry.get_sample_value("rankline_model_info", labels) == 0


@pytest.mark.parametrize("file", ["scorer.onnx", "catalogue/vectors.fp32.npy", "manifest.json"])
def test_a_damaged_champion_is_refused_while_the_old_one_serves(
    manager: ModelManager, metrics: Metrics, bundle: Bundle, tmp_path: Path, file: str
) -> None:
    publish(tmp_path / "kept", bundle)
    manager.follow(str(tmp_path / "kept"), poll_interval_s=NEVER_S)
    bad = make_bundle(tmp_path / "bad", seed=5)
    publish_damaged(tmp_path / "kept", bad, file)
    poll(manager)
    assert manager.model_id == bundle.model_id
    assert manager.rejected
    assert manager.rejected.model_id == bad.model_id
    assert count(metrics, "refused") == 1
    poll(manager)  # rejected a moment ago: not retried yet
    assert count(metrics, "refused") == 1
    flip_byte(tmp_path / "kept" / "bundles" / bad.model_id / file)  # flipped twice: as before
    poll(manager)
    assert manager.model_id == bundle.model_id
    manager.rejected = None  # as after retry_s
    poll(manager)
    assert manager.model_id == bad.model_id


def test_a_damaged_champion_at_the_start_is_an_error(manager: ModelManager, tmp_path: Path) -> None:
    bad = make_bundle(tmp_path / "bad", seed=5)
    publish_damaged(tmp_path / "kept", bad, "user.onnx")
    with pytest.raises(IntegrityError, match=r"user\.onnx"):
        manager.follow(str(tmp_path / "kept"), poll_interval_s=NEVER_S)


def test_a_damaged_history_leaves_the_old_model_serving(manager: ModelManager, bundle: Bundle, tmp_path: Path) -> None:
    publish(tmp_path, bundle)
    manager.follow(str(tmp_path), poll_interval_s=NEVER_S)
    torn = tmp_path / "events" / "3.json"
    torn.write_text("{")
    poll(manager)
    assert "history of the model registry is damaged" in manager.registry_error
    assert manager.model_id == bundle.model_id
    torn.unlink()
    poll(manager)
    assert manager.registry_error == ""


@pytest.mark.parametrize("left", ["nothing", "an empty folder", "no events"])
def test_a_registry_that_vanishes_is_reported_until_it_is_back(
    manager: ModelManager, metrics: Metrics, bundle: Bundle, tmp_path: Path, left: str
) -> None:
    root, moved = tmp_path / "registry", tmp_path / "elsewhere"
    publish(root, bundle)
    manager.follow(str(root), poll_interval_s=NEVER_S)
    read_at = manager.registry_read_at
    root.rename(moved)
    if left != "nothing":
        (root / ("events" if left == "no events" else "")).mkdir(parents=True)
    poll(manager)
    assert "no events any more" in manager.registry_error
    assert (manager.model_id, manager.registry_read_at) == (bundle.model_id, read_at)
    assert metrics.registry.get_sample_value("rankline_registry_age_seconds") == pytest.approx(
        time.monotonic() - read_at, abs=5
    )
    if root.exists():
        shutil.rmtree(root)
    moved.rename(root)
    poll(manager)
    assert manager.registry_error == ""
    assert manager.registry_read_at > read_at


def test_polling_survives_every_registry_error_and_reports_it(
    manager: ModelManager, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def until(holds: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < end
            time.sleep(0.01)

    publish(tmp_path, bundle)
    manager.follow(str(tmp_path), poll_interval_s=0.02)
    nameless = {"n": 3, "kind": "items_hidden", "model_id": "", "at": "now", "who": "a script", "why": ""}
    (tmp_path / "events" / "3.json").write_text(json.dumps(nameless))
    until(lambda: "history of the model registry is damaged" in manager.registry_error)
    (tmp_path / "events" / "3.json").unlink()
    until(lambda: manager.registry_error == "")

    def broken(self: ModelRegistry) -> None:
        raise KeyError("items")

    with monkeypatch.context() as patched:
        patched.setattr(ModelRegistry, "champion_record", broken)
        until(lambda: "KeyError: 'items'" in manager.registry_error)
    ModelRegistry(tmp_path).hide(["i1"], who="test", why="recalled")
    until(lambda: manager.hidden == ("i1",))
    until(lambda: manager.registry_error == "")


def test_requests_under_way_keep_their_engine(
    manager: ModelManager, bundle: Bundle, other_bundle: Bundle, tmp_path: Path
) -> None:
    publish(tmp_path, bundle)
    manager.follow(str(tmp_path), poll_interval_s=NEVER_S)
    engine = manager.engine
    prepared = engine.prepare(EngineRequest("recommend", FrozenState(at=0.0), k=3))
    publish(tmp_path, other_bundle)
    poll(manager)
    assert manager.model_id == other_bundle.model_id
    assert engine.finish(prepared, engine.run([prepared])[0]) == run_request(engine, prepared.request)


def test_a_bucket_is_fetched_and_tidied(manager: ModelManager, bundle: Bundle, other_bundle: Bundle) -> None:
    publish("memory://models", bundle)
    manager.follow("memory://models", poll_interval_s=NEVER_S)
    assert manager.model_id == bundle.model_id
    publish("memory://models", other_bundle)
    poll(manager)
    assert manager.model_id == other_bundle.model_id
    assert [path.name for path in manager._download_folder.iterdir()] == [other_bundle.model_id]


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return str(request.getfixturevalue("url"))
    return str(tmp_path / "kept") if request.param == "folder" else f"memory://{uuid.uuid4().hex}/kept"


def test_a_published_catalogue_is_a_swap_and_so_is_the_way_back(
    manager: ModelManager, metrics: Metrics, bundle: Bundle, place: str, tmp_path: Path
) -> None:
    publish(place, bundle)
    manager.follow(place, poll_interval_s=NEVER_S)
    engine, before = manager.engine, bundle.revision
    first = publish_catalogue(place, bundle, make_catalogue(bundle, tmp_path / "first"))
    poll(manager)
    poll(manager)
    assert (manager.model_id, manager.engine.info.revision, len(manager.item_ids)) == (bundle.model_id, first, 44)
    assert count(metrics, "swapped") == 1
    assert run_request(engine, EngineRequest("recommend", FrozenState(at=0.0), k=3)).items, (
        "requests under way keep theirs"
    )
    second = publish_catalogue(place, bundle, make_catalogue(bundle, tmp_path / "second", items=30))
    poll(manager)
    for back in (first, before):
        ModelRegistry(place).publish(bundle.model_id, back, who="test", why="wrong prices")
        poll(manager)
        assert manager.engine.info.revision == back
    labels = {"model_id": bundle.model_id, "precision": "fp32", "provider": "cpu"}

    def gauge(revision: str) -> float | None:
        return metrics.registry.get_sample_value("rankline_model_info", {**labels, "revision": revision})

    assert (gauge(before), gauge(first), gauge(second)) == (1, 0, None), "catalogues change all day"


@pytest.mark.integration
@pytest.mark.parametrize("place", ["folder", "bucket", "s3"], indirect=True)
def test_a_restart_and_a_rollback_find_each_models_own_catalogue(
    manager: ModelManager, bundle: Bundle, other_bundle: Bundle, place: str, tmp_path: Path
) -> None:
    publish(place, bundle)
    revision = publish_catalogue(place, bundle, make_catalogue(bundle, tmp_path / "catalogue"))
    manager.follow(place, poll_interval_s=NEVER_S)
    assert manager.engine.info.revision == revision
    publish(place, other_bundle)
    poll(manager)
    assert manager.engine.info.revision == other_bundle.revision
    ModelRegistry(place).append("rolled_back", bundle.model_id, who="test", why="it was better")
    poll(manager)
    assert (manager.model_id, manager.engine.info.revision) == (bundle.model_id, revision)
    if manager._registry and not manager._registry.local:
        registry = {path.name for path in manager._download_folder.iterdir()}
        assert registry == {bundle.model_id, f"{bundle.model_id}.{revision}"}, "what serves, and nothing older"


def test_a_catalogue_for_another_model_changes_nothing(
    manager: ModelManager, metrics: Metrics, bundle: Bundle, other_bundle: Bundle, tmp_path: Path
) -> None:
    publish(tmp_path / "kept", other_bundle)
    publish(tmp_path / "kept", bundle)
    manager.follow(str(tmp_path / "kept"), poll_interval_s=NEVER_S)
    publish_catalogue(tmp_path / "kept", other_bundle, make_catalogue(other_bundle, tmp_path / "theirs"))
    poll(manager)
    assert (manager.model_id, manager.engine.info.revision, count(metrics, "swapped")) == (
        bundle.model_id,
        bundle.revision,
        0,
    )


def test_a_bad_catalogue_is_refused_while_the_old_one_serves_and_can_be_restored(
    manager: ModelManager, metrics: Metrics, bundle: Bundle, tmp_path: Path
) -> None:
    registry = tmp_path / "kept"
    publish(registry, bundle)
    good = publish_catalogue(registry, bundle, make_catalogue(bundle, tmp_path / "good"))
    manager.follow(str(registry), poll_interval_s=NEVER_S)
    bad = publish_catalogue(registry, bundle, make_catalogue(bundle, tmp_path / "bad", seed=8))
    flip_byte(registry / "catalogues" / bundle.model_id / bad / "items.parquet")
    poll(manager)
    assert manager.engine.info.revision == good
    assert manager.rejected
    assert (manager.rejected.model_id, manager.rejected.revision) == (bundle.model_id, bad)
    assert "items.parquet does not match" in manager.rejected.reason
    assert count(metrics, "refused") == 1
    poll(manager)  # rejected a moment ago
    assert count(metrics, "refused") == 1
    ModelRegistry(registry).publish(bundle.model_id, good, who="test", why="back")
    poll(manager)
    assert (manager.engine.info.revision, manager.rejected) == (good, None)


def test_takedowns_hold_over_a_new_catalogue_a_promotion_and_a_restart(
    manager: ModelManager, metrics: Metrics, bundle: Bundle, other_bundle: Bundle, place: str, tmp_path: Path
) -> None:
    def recommended(holder: ModelManager = manager) -> set[str]:
        return {
            item.item_id
            for item in run_request(holder.engine, EngineRequest("recommend", FrozenState(at=0.0), k=100)).items
        }

    publish(place, bundle)
    manager.follow(place, poll_interval_s=NEVER_S)
    gone = sorted(recommended())[:3]
    engine = manager.engine
    ModelRegistry(place).hide([*gone, "i43"], who="test", why="recalled")  # i43 comes with the next catalogue
    poll(manager)
    assert manager.engine is engine, "nothing was loaded for it"
    assert not recommended() & set(gone)
    assert metrics.registry.get_sample_value("rankline_hidden_items") == 4
    publish_catalogue(place, bundle, make_catalogue(bundle, tmp_path / "catalogue"))
    poll(manager)
    assert (len(manager.item_ids), recommended() & {*gone, "i43"}) == (44, set())
    publish(place, other_bundle)
    poll(manager)
    assert (manager.model_id, recommended() & set(gone)) == (other_bundle.model_id, set())
    again = ModelManager(Metrics(), precision="fp32", provider="cpu", threads=1)
    try:
        again.follow(place, poll_interval_s=NEVER_S)
        assert not recommended(again) & set(gone)
        assert again.hidden == tuple(sorted([*gone, "i43"]))
    finally:
        again.close()
    ModelRegistry(place).show(gone, who="test", why="sound after all")
    poll(manager)
    assert manager.hidden == ("i43",)
    assert recommended() & set(gone)


def test_a_takedown_does_not_wait_for_a_model_that_loads(
    metrics: Metrics, bundle: Bundle, other_bundle: Bundle, tmp_path: Path
) -> None:
    """While a model loads very slowly, items are hidden at once, and in the new model as well."""
    go, begun = threading.Event(), threading.Event()

    class Slow(ModelManager):
        def _load(self, bundle: Bundle) -> Engine:
            if self.model_id:
                begun.set()
                assert go.wait(30)
            return super()._load(bundle)

    manager = Slow(metrics, precision="fp32", provider="cpu", threads=1)

    def until(holds: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < end
            time.sleep(0.01)

    try:
        publish(tmp_path, bundle)
        manager.follow(str(tmp_path), poll_interval_s=0.02)
        publish(tmp_path, other_bundle)
        assert begun.wait(20)
        ModelRegistry(tmp_path).hide(["i1"], who="test", why="recalled")
        until(lambda: manager.hidden == ("i1",))
        response = run_request(manager.engine, EngineRequest("rank", FrozenState(at=0.0), candidates=["i1", "i2"]))
        assert (manager.model_id, response.hidden) == (bundle.model_id, ["i1"])
        go.set()
        until(lambda: manager.model_id == other_bundle.model_id)
        response = run_request(manager.engine, EngineRequest("rank", FrozenState(at=0.0), candidates=["i1", "i2"]))
        assert [item.item_id for item in response.items] == ["i2"]
    finally:
        go.set()
        manager.close()


def test_a_repository_of_before_catalogues_and_takedowns_is_followed(
    manager: ModelManager, bundle: Bundle, tmp_path: Path
) -> None:
    publish(tmp_path, bundle)
    registry = tmp_path / "champion.json"
    old = ("model_id", "run_id", "at", "event", "read_to")
    registry.write_text(json.dumps({name: json.loads(registry.read_text())[name] for name in old}))
    registry.chmod(0o444)
    manager.follow(str(tmp_path), poll_interval_s=NEVER_S)
    assert (manager.model_id, manager.engine.info.revision, manager.hidden) == (bundle.model_id, bundle.revision, ())
    poll(manager)
    assert manager.rejected is None


def test_a_champion_that_was_promoted_past_the_gates_says_so_until_a_gate_passes_it(
    manager: ModelManager, metrics: Metrics, bundle: Bundle, other_bundle: Bundle, tmp_path: Path
) -> None:
    publish(tmp_path, bundle)
    models = ModelRegistry(tmp_path)
    manager.follow(str(tmp_path), poll_interval_s=NEVER_S)
    features = FeatureLookup(None, metrics, item_ids=lambda: manager.item_ids)
    client = TestClient(create_app(manager, features, metrics))
    assert manager.warning == ""
    models.add(other_bundle.folder)
    models.append("registered", other_bundle.model_id, who="test", why="a candidate")
    reason = "the champion recommends recalled items"
    break_glass(models, other_bundle.model_id, who="ann", why=reason, check=lambda model: None)
    poll(manager)
    assert manager.model_id == other_bundle.model_id
    for route in ("/readyz", "/v1/model"):
        assert "promoted past the gates by ann" in client.get(route).json()["warning"]
        assert reason in client.get(route).json()["warning"]
    models.append("confirmed", other_bundle.model_id, who="the flow", why="proven to be within the budget")
    poll(manager)
    assert [client.get(route).json()["warning"] for route in ("/readyz", "/v1/model")] == [None, None]


def test_a_server_that_starts_on_such_a_champion_and_one_after_a_rollback_agree(
    manager: ModelManager, bundle: Bundle, other_bundle: Bundle, tmp_path: Path
) -> None:
    publish(tmp_path, bundle)
    models = ModelRegistry(tmp_path)
    models.add(other_bundle.folder)
    models.append("registered", other_bundle.model_id, who="test", why="a candidate")
    break_glass(models, other_bundle.model_id, who="ann", why="an emergency today", check=lambda model: None)
    manager.follow(str(tmp_path), poll_interval_s=NEVER_S)
    assert "by ann" in manager.warning
    models.append("rolled_back", bundle.model_id, who="ann", why="it is over")
    poll(manager)
    assert (manager.model_id, manager.warning) == (bundle.model_id, "")


def test_a_folder_that_is_no_bundle_is_refused(manager: ModelManager, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a model bundle"):
        manager.serve_bundle(tmp_path)


def test_the_polling_thread_loads_a_champion(manager: ModelManager, bundle: Bundle, tmp_path: Path) -> None:
    manager.follow(str(tmp_path), poll_interval_s=0.02)
    publish(tmp_path, bundle)
    waited = threading.Event()
    for _ in range(200):
        if manager.model_id:
            break
        waited.wait(0.02)
    assert manager.model_id == bundle.model_id
