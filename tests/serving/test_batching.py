"""Requests that wait together are answered together, and none changes another's answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from rankline.contracts import FrozenState, History
from rankline.errors import UsageError
from rankline.model.bundle import Bundle
from serving.api.app import create_app
from serving.batching import Batcher, BatchSettings, Deadline, Job
from serving.batching.batcher import CallerGone
from serving.batching.queue import BULK, JobQueue
from serving.engine import BundleEngine, Engine, EngineRequest, EngineResponse, run_request
from serving.engine.graphs import buckets
from serving.features.lookup import FeatureLookup
from serving.metrics import Metrics
from serving.model_manager import ModelManager
from tests.serving.echo import EchoEngine
from tests.serving.tiny_bundle import item_id, make_bundle


class Held(EchoEngine):
    """Runs when it is let go; remembers the batches, and refuses those with the item `poison`."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go = threading.Semaphore(0), threading.Event()
        self.batches: list[int] = []

    def run(self, batch: Sequence[EngineRequest]) -> list[list[str]]:
        self.begun.release()
        assert self.go.wait(30)
        self.batches.append(len(batch))
        if any("poison" in request.candidates for request in batch):
            raise ValueError("poison")
        return super().run(batch)


def ask(
    batcher: Batcher, *candidates: str, timeout_s: float = 30.0, gone: Callable[[], bool] = lambda: False
) -> Awaitable[tuple[Engine, EngineResponse]]:
    request = EngineRequest("rank", FrozenState(at=0.0), candidates=candidates)

    async def is_gone() -> bool:
        return gone()

    return batcher.ask(lambda _: request, weight=len(candidates), timeout_s=timeout_s, is_gone=is_gone)


def held_batcher(engine: Held, **settings: Any) -> tuple[Batcher, Metrics]:
    metrics = Metrics()
    return Batcher(lambda: engine, metrics, BatchSettings(**{"workers": 1, "max_wait_ms": 0.0, **settings})), metrics


async def until_begun(engine: Held) -> None:
    assert await asyncio.to_thread(engine.begun.acquire, timeout=30)


async def gather_behind_a_first(engine: Held, batcher: Batcher, rest: Callable[[], list[Awaitable[Any]]]) -> list[Any]:
    """The outcomes of requests that come while the first one runs."""
    first = asyncio.ensure_future(ask(batcher, "a"))
    await until_begun(engine)
    waiting = [asyncio.ensure_future(each) for each in rest()]
    await asyncio.sleep(0)
    engine.go.set()
    return await asyncio.gather(first, *waiting, return_exceptions=True)


def names(outcome: Any) -> list[str]:
    return [item.item_id for item in outcome[1].items]


def test_what_waits_is_answered_together_and_everyone_gets_his_own() -> None:
    engine = Held()
    batcher, metrics = held_batcher(engine, max_batch=4)
    outcomes = asyncio.run(
        gather_behind_a_first(engine, batcher, lambda: [ask(batcher, f"i{n}", f"j{n}") for n in range(6)])
    )
    assert engine.batches == [1, 4, 2]
    assert [names(each) for each in outcomes[1:]] == [[f"i{n}", f"j{n}"] for n in range(6)]
    assert metrics.registry.get_sample_value("rankline_batch_size_sum") == 7
    assert metrics.registry.get_sample_value("rankline_stage_seconds_count", {"stage": "queue"}) == 7
    assert metrics.registry.get_sample_value("rankline_queue_length") == 0
    batcher.close()


def test_one_answers_each_alone() -> None:
    engine = Held()
    batcher, _ = held_batcher(engine, max_batch=1)
    asyncio.run(gather_behind_a_first(engine, batcher, lambda: [ask(batcher, "b") for _ in range(3)]))
    assert engine.batches == [1, 1, 1, 1]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_poisoned_request_fails_alone(place: int) -> None:
    engine = Held()
    batcher, _ = held_batcher(engine)
    candidates = ["b", "b", "b"]
    candidates[place] = "poison"
    outcomes = asyncio.run(gather_behind_a_first(engine, batcher, lambda: [ask(batcher, each) for each in candidates]))
    failed = [n for n, each in enumerate(outcomes[1:]) if isinstance(each, ValueError)]
    assert failed == [place]
    assert [names(each) for n, each in enumerate(outcomes[1:]) if n != place] == [["b"], ["b"]]


def test_a_request_that_cannot_be_completed_fails_alone() -> None:
    engine = Held()
    batcher, _ = held_batcher(engine)

    def look_up(_: Engine) -> EngineRequest:
        raise UsageError("no")

    async def never() -> bool:
        return False

    outcomes = asyncio.run(
        gather_behind_a_first(
            engine, batcher, lambda: [batcher.ask(look_up, weight=1, timeout_s=9, is_gone=never), ask(batcher, "b")]
        )
    )
    assert isinstance(outcomes[1], UsageError)
    assert names(outcomes[2]) == ["b"]


def test_a_request_past_its_deadline_gets_an_error_and_is_not_run() -> None:
    engine = Held()
    batcher, metrics = held_batcher(engine)

    async def wait() -> list[Any]:
        first = asyncio.ensure_future(ask(batcher, "a"))
        await until_begun(engine)
        late = await asyncio.gather(ask(batcher, "b", timeout_s=0.01), return_exceptions=True)
        engine.go.set()
        return [*late, await first, await ask(batcher, "c")]

    late, *others = asyncio.run(wait())
    assert isinstance(late, Deadline)
    assert [names(each) for each in others] == [["a"], ["c"]]
    assert engine.batches == [1, 1]
    assert metrics.registry.get_sample_value("rankline_dropped_total", {"reason": "deadline"}) == 1


def test_a_caller_who_has_gone_is_dropped_and_not_run() -> None:
    engine = Held()
    batcher, metrics = held_batcher(engine)

    async def wait() -> list[Any]:
        first = asyncio.ensure_future(ask(batcher, "a"))
        await until_begun(engine)
        gone = await asyncio.gather(ask(batcher, "b", gone=lambda: True), return_exceptions=True)
        engine.go.set()
        return [*gone, await first]

    gone, _ = asyncio.run(wait())
    assert isinstance(gone, CallerGone)
    batcher.close()
    assert engine.batches == [1]
    assert metrics.registry.get_sample_value("rankline_dropped_total", {"reason": "caller_gone"}) == 1


def job(weight: int) -> Job:
    async def is_gone() -> bool:
        return False

    future = asyncio.new_event_loop().create_future()
    return Job(lambda _: EngineRequest("rank", FrozenState(at=0.0)), weight, 1e12, is_gone, future)


def drain(queue: JobQueue, *, finish: bool) -> list[list[int]]:
    queue.close()
    batches = []
    while (taken := queue.take())[0]:
        batches.append([each.weight for each in taken[0]])
        if finish:
            queue.done(taken[1])
    return batches


def test_bulk_and_single_callers_take_turns() -> None:
    queue = JobQueue(BatchSettings(workers=1, max_batch=2, max_wait_ms=0))
    for weight in (BULK + 1, BULK + 1, BULK + 1, 1, 1, 1, 1):
        queue.put(job(weight))
    assert drain(queue, finish=True) == [[1, 1], [BULK + 1, BULK + 1], [1, 1], [BULK + 1]]


def test_one_worker_is_left_to_short_requests() -> None:
    queue = JobQueue(BatchSettings(workers=2, max_batch=1, max_wait_ms=0))
    for weight in (BULK + 1, BULK + 1, 1, 1):
        queue.put(job(weight))
    assert [queue.take()[0][0].weight for _ in range(3)] == [1, BULK + 1, 1]
    queue.done(True)
    assert queue.take()[0][0].weight == BULK + 1


def test_a_batch_is_bounded_by_its_candidates() -> None:
    queue = JobQueue(BatchSettings(workers=1, max_candidates=10, max_wait_ms=0))
    for weight in (6, 4, 1, 30, 2):
        queue.put(job(weight))
    assert drain(queue, finish=True) == [[6, 4], [1], [30], [2]]


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([], []),
        ([900], [[0]]),
        ([10, 500, 480, 11], [[1, 2], [3, 0]]),
        ([300, 300, 300, 300], [[0, 1, 2], [3]]),  # the budget
        ([3, 2, 1], [[0, 1, 2]]),  # a call of its own costs more than the padding
    ],
)
def test_requests_of_similar_lengths_share_a_call(lengths: list[int], expected: list[list[int]]) -> None:
    assert buckets(dict(enumerate(lengths)), budget=1000) == expected


def test_little_is_padded() -> None:
    lengths = dict(enumerate(np.random.default_rng(0).integers(1, 128, 1000).tolist()))
    groups = buckets(lengths, budget=8192)
    assert sorted(key for group in groups for key in group) == sorted(lengths)
    assert sum(lengths.values()) / sum(lengths[group[0]] * len(group) for group in groups) > 0.85


@pytest.fixture(scope="module")
def searchable(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("searchable"), items=300, queries=True)


def requests(engine: BundleEngine, count: int) -> list[EngineRequest]:
    """Mixed requests: with and without history, query, features, candidates."""
    rng = np.random.default_rng(1)
    words = ["space", "love", "story", "ship", "night"]

    def state() -> FrozenState:
        items = [item_id(int(row)) for row in rng.integers(0, 320, rng.integers(0, 14))]  # some are unknown
        popular = [item_id(int(row)) for row in rng.integers(0, 300, rng.integers(0, 5))]
        return FrozenState(
            at=float(rng.uniform(0, 2e9)),
            history=History(item_ids=items, times=list(range(len(items))), ratings=[4.0] * len(items)),
            seen=items if rng.random() < 0.5 else [],
            user_features={"user_events_7d": float(rng.integers(0, 9))} if rng.random() < 0.5 else {},
            affinity={"Comedy": 0.5} if rng.random() < 0.5 else {},
            item_features={"item_id": popular, "item_events_7d": [3.0] * len(popular)},
        )

    def request(n: int) -> EngineRequest:
        query = " ".join(rng.choice(words, rng.integers(1, 12)).tolist())
        ranked = tuple(item_id(int(row)) for row in rng.integers(0, 300, rng.integers(1, 60)))
        return (
            EngineRequest("recommend", state(), k=10),
            EngineRequest("search", state(), k=7, query=query),
            EngineRequest("rank", state(), candidates=ranked, query=query if rng.random() < 0.5 else None),
            EngineRequest("similar", state(), k=5, item_id=item_id(int(rng.integers(0, 300)))),
        )[n % 4]

    return [request(n) for n in range(count)]


def test_a_batch_gives_the_answers_of_each_request_alone(searchable: Bundle) -> None:
    engine = BundleEngine.load(searchable, precision="fp32", provider="cpu", threads=1)
    asked = requests(engine, 200)
    prepared = [engine.prepare(request) for request in asked]
    together = [engine.finish(one, result) for one, result in zip(prepared, engine.run(prepared))]
    for request, batched in zip(asked, together):
        alone = run_request(engine, request)
        assert [item.item_id for item in batched.items] == [item.item_id for item in alone.items]
        assert (batched.unknown, batched.abstained) == (alone.unknown, alone.abstained)
        for one, other in zip(batched.items, alone.items):
            assert one.sources == other.sources
            assert one.logits == pytest.approx(other.logits, abs=1e-4)
            assert one.score == pytest.approx(other.score, abs=1e-4)


def app_of(engine: Any, settings: BatchSettings) -> Any:
    metrics = Metrics()
    manager = ModelManager(metrics, precision="fp32", provider="cpu", threads=1)
    manager.use(engine)
    return create_app(
        manager, FeatureLookup(None, metrics, item_ids=lambda: manager.item_ids), metrics, batches=settings
    )


@pytest.mark.parametrize("header", ["nan", "0", "-1", "soon"])
def test_a_timeout_without_a_meaning_is_refused(header: str) -> None:
    with TestClient(app_of(EchoEngine(), BatchSettings())) as client:
        answer = client.post("/v1/recommend", json={}, headers={"X-Request-Timeout-Ms": header})
        assert (answer.status_code, "X-Request-Timeout-Ms" in answer.json()["error"]) == (422, True)
        assert client.post("/v1/recommend", json={}, headers={"X-Request-Timeout-Ms": "5000"}).status_code == 200


def test_a_request_that_waits_too_long_gets_503_and_when_to_come_back() -> None:
    engine = Held()
    with TestClient(app_of(engine, BatchSettings(workers=1, timeout_s=0.2))) as client:
        answer = client.post("/v1/recommend", json={})
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert "not answered in time" in answer.json()["error"]
        engine.go.set()
        assert client.post("/v1/recommend", json={}).status_code == 200
