"""Following a model repository: taking up champions, refusing damaged ones, surviving a damaged history."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rankline.bundle import Bundle
from rankline.contracts import FrozenState
from rankline.errors import IntegrityError, UsageError
from rankline.repository import Repository
from serving.engine import Ask, answer
from serving.live import Live, NotReady
from serving.metrics import Metrics
from tests.serving.tiny_bundle import flip_byte, make_bundle, publish, publish_damaged

NEVER_S = 3600.0  # polled by hand


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def live(metrics: Metrics) -> Iterator[Live]:
    holder = Live(metrics, precision="fp32", provider="cpu", threads=1)
    yield holder
    holder.close()


def count(metrics: Metrics, outcome: str) -> float | None:
    return metrics.registry.get_sample_value("rankline_swaps_total", {"outcome": outcome})


def test_the_first_champion_is_taken_up_when_it_comes(
    live: Live, metrics: Metrics, bundle: Bundle, tmp_path: Path
) -> None:
    live.follow(str(tmp_path), every_s=NEVER_S)
    with pytest.raises(NotReady):
        _ = live.engine
    publish(tmp_path, bundle)
    live.poll()
    assert live.model_id == bundle.model_id
    assert count(metrics, "swapped") == 1


def test_a_rollback_is_a_swap_like_any_other(
    live: Live, metrics: Metrics, bundle: Bundle, other_bundle: Bundle, tmp_path: Path
) -> None:
    for each in (bundle, other_bundle):
        publish(tmp_path, each)
    live.follow(str(tmp_path), every_s=NEVER_S)
    assert live.model_id == other_bundle.model_id
    Repository(tmp_path).append("rolled_back", bundle.model_id, who="test", why="it was better")
    live.poll()
    live.poll()
    assert live.model_id == bundle.model_id
    assert count(metrics, "swapped") == 1
    labels = {"model_id": other_bundle.model_id, "revision": other_bundle.revision}
    labels |= {"precision": "fp32", "provider": "cpu"}
    assert metrics.registry.get_sample_value("rankline_model_info", labels) == 0


@pytest.mark.parametrize("file", ["scorer.onnx", "catalogue/vectors.fp32.npy", "manifest.json"])
def test_a_damaged_champion_is_refused_and_the_old_one_goes_on(
    live: Live, metrics: Metrics, bundle: Bundle, tmp_path: Path, file: str
) -> None:
    publish(tmp_path / "kept", bundle)
    live.follow(str(tmp_path / "kept"), every_s=NEVER_S)
    bad = make_bundle(tmp_path / "bad", seed=5)
    publish_damaged(tmp_path / "kept", bad, file)
    live.poll()
    assert live.model_id == bundle.model_id
    assert live.refused
    assert live.refused.model_id == bad.model_id
    assert count(metrics, "refused") == 1
    live.poll()  # known to be bad: not tried again so soon
    assert count(metrics, "refused") == 1
    flip_byte(tmp_path / "kept" / "bundles" / bad.model_id / file)  # flipped twice: mended
    live.poll()
    assert live.model_id == bundle.model_id
    live.refused = None  # as after retry_s
    live.poll()
    assert live.model_id == bad.model_id


def test_a_damaged_champion_at_the_start_is_an_error(live: Live, tmp_path: Path) -> None:
    bad = make_bundle(tmp_path / "bad", seed=5)
    publish_damaged(tmp_path / "kept", bad, "user.onnx")
    with pytest.raises(IntegrityError, match=r"user\.onnx"):
        live.follow(str(tmp_path / "kept"), every_s=NEVER_S)


def test_a_damaged_history_leaves_the_old_model_serving(live: Live, bundle: Bundle, tmp_path: Path) -> None:
    publish(tmp_path, bundle)
    live.follow(str(tmp_path), every_s=NEVER_S)
    torn = tmp_path / "events" / "3.json"
    torn.write_text("{")
    live.poll()
    assert "history of the model repository is damaged" in live.repository_error
    assert live.model_id == bundle.model_id
    torn.unlink()
    live.poll()
    assert live.repository_error == ""


def test_requests_under_way_keep_their_engine(live: Live, bundle: Bundle, other_bundle: Bundle, tmp_path: Path) -> None:
    publish(tmp_path, bundle)
    live.follow(str(tmp_path), every_s=NEVER_S)
    engine = live.engine
    prepared = engine.prepare(Ask("recommend", FrozenState(at=0.0), k=3))
    publish(tmp_path, other_bundle)
    live.poll()
    assert live.model_id == other_bundle.model_id
    assert engine.finish(prepared, engine.run([prepared])[0]) == answer(engine, prepared.ask)


def test_a_bucket_is_fetched_and_tidied(live: Live, bundle: Bundle, other_bundle: Bundle) -> None:
    publish("memory://models", bundle)
    live.follow("memory://models", every_s=NEVER_S)
    assert live.model_id == bundle.model_id
    publish("memory://models", other_bundle)
    live.poll()
    assert live.model_id == other_bundle.model_id
    assert [path.name for path in live._fetched.iterdir()] == [other_bundle.model_id]


def test_a_folder_that_is_no_bundle_is_refused(live: Live, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a model bundle"):
        live.serve_bundle(tmp_path)


def test_the_watching_thread_finds_a_champion_by_itself(live: Live, bundle: Bundle, tmp_path: Path) -> None:
    live.follow(str(tmp_path), every_s=0.02)
    publish(tmp_path, bundle)
    waited = threading.Event()
    for _ in range(200):
        if live.model_id:
            break
        waited.wait(0.02)
    assert live.model_id == bundle.model_id
