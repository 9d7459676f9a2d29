"""Snapshot requests sent to a server over HTTP, and its answers in the requests' order.

A snapshot request carries the history and the features of its own time. The server uses them in place of its own
lookups, so nothing that became known later can affect a score.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orjson

from rankline.contracts import FrozenState
from rankline.errors import IntegrityError, ServerError, TooSmall
from rankline.evaluation import snapshot_requests
from rankline.evaluation.snapshot_requests import EXPOSURES, Exposure, SnapshotRequest
from rankline.runtime.progress import Progress
from rankline.runtime.server_process import Server

Answer = TypeVar("Answer")
Call = tuple[str, bytes]  # route and JSON body


@dataclass(frozen=True)
class ReplayRequest:
    """A snapshot request ready to send; requests of one day share their encoded item features."""

    request: SnapshotRequest
    item_features: bytes

    @property
    def request_id(self) -> str:
        return self.request.request_id

    @property
    def route(self) -> str:
        """The path of the request for a list."""
        return "/v1/search" if self.request.query else "/v1/recommend"

    def body(self, **more: Any) -> bytes:
        """The JSON body: user, query, snapshot, and ``more`` fields."""
        state = self.request.state.model_dump(exclude={"item_features"})
        state["item_features"] = orjson.Fragment(self.item_features)
        return orjson.dumps({**self._identity(), "frozen": state, **more})

    def call(self, *, k: int) -> Call:
        """The call for a list of ``k`` unseen items."""
        return self.route, self.body(k=k, exclude_seen=True)

    def lean_call(self, *, k: int) -> Call:
        """The same call with the history alone: the server looks up the features."""
        state = self.request.state
        state_fields = {"at": state.at, "history": state.history.model_dump(), "seen": state.seen}
        return self.route, orjson.dumps({**self._identity(), **state_fields, "k": k, "exclude_seen": True})

    def _identity(self) -> dict[str, str | None]:
        query = {"query": self.request.query} if self.request.query else {}
        return {"user_id": self.request.user_id, **query}


def sample_requests(
    folder: Path, *, split: str, max_requests: int, seed: int, file: str = snapshot_requests.REQUESTS
) -> set[str]:
    """The ids of the requests, or exposures, to replay: all of a split, or a seeded sample of ``max_requests``.

    Raises:
        TooSmall: the split has no requests.
    """
    import pyarrow.parquet as parquet

    table = parquet.read_table(folder / file, columns=["request_id"], filters=[("split", "=", split)])
    ids = sorted(table["request_id"].to_pylist())
    if not ids:
        raise TooSmall(
            f"there are no {split} requests to evaluate on",
            expected=f"at least one request of the split {split!r}",
            found="none",
            where=str(folder / file),
            hint="use more data, or a split definition with test requests",
        )
    if max_requests and max_requests < len(ids):
        chosen = np.random.default_rng(seed).choice(len(ids), max_requests, replace=False)
        ids = [ids[n] for n in chosen]
    return set(ids)


def sample_exposures(folder: Path, *, split: str, max_exposures: int, seed: int) -> set[str]:
    """The ids of the exposures to replay, in the same way.

    Raises:
        TooSmall: the split has no exposures.
    """
    return sample_requests(folder, split=split, max_requests=max_exposures, seed=seed, file=EXPOSURES)


def read_requests(folder: Path, *, split: str, chosen: set[str]) -> Iterator[tuple[ReplayRequest, FrozenState]]:
    """The chosen requests by day, each with its full state (which has the day's item features)."""
    encoder = _DayEncoder()
    for request in snapshot_requests.read_snapshot_requests(folder, split):
        if request.request_id in chosen:
            yield encoder.ready(request), request.state


def read_exposures(folder: Path, *, split: str, chosen: set[str]) -> Iterator[tuple[ReplayRequest, Exposure]]:
    """The chosen exposures by day, each as a request and with what it showed."""
    encoder = _DayEncoder()
    for exposure in snapshot_requests.read_exposures(folder, split):
        if exposure.request.request_id in chosen:
            ready = encoder.ready(exposure.request)
            yield ready, replace(exposure, request=ready.request)


class _DayEncoder:
    """Encodes the item features of a day once, not once per request."""

    def __init__(self) -> None:
        self._day_features: Any = None
        self._encoded = b"{}"

    def ready(self, request: SnapshotRequest) -> ReplayRequest:
        """The request ready to send, without the columns of its day."""
        state = request.state
        if state.item_features is not self._day_features:
            self._day_features, self._encoded = state.item_features, orjson.dumps(state.item_features)
        return ReplayRequest(replace(request, state=state.model_copy(update={"item_features": {}})), self._encoded)


def map_concurrently(
    requests: Sequence[ReplayRequest],
    send: Callable[[ReplayRequest], Answer],
    *,
    concurrency: int,
    progress: Progress,
) -> dict[str, Answer]:
    """Request id -> answer, with ``concurrency`` requests at a time."""
    answers: dict[str, Answer] = {}
    with ThreadPoolExecutor(concurrency) as pool:
        try:
            for request, answer in zip(requests, pool.map(send, requests), strict=True):
                answers[request.request_id] = answer
                progress.update(len(answers), len(requests))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return answers


def recommend(server: Server, request: ReplayRequest, *, model_id: str, k: int) -> list[str]:
    """The server's list for a request: from this model, not empty, no seen item, no item twice.

    Raises:
        ServerError: the answer is none of these.
    """
    answer = server.post(*request.call(k=k))
    items = [item["item_id"] for item in answer["items"]]
    seen = set(request.request.state.seen)
    problem = ""
    if answer["model_id"] != model_id:
        problem = f"it comes from model {answer['model_id']}, not {model_id}"
    elif not items:
        problem = "it is empty"
    elif len(set(items)) < len(items):
        problem = "it has an item twice"
    elif seen & set(items):
        problem = f"it holds item {next(i for i in items if i in seen)}, which the user has seen"
    if problem:
        raise ServerError(
            f"the server's answer to request {request.request_id} cannot be scored",
            expected=f"at most {k} different unseen items from model {model_id}",
            found=problem,
            where=str(server.log),
            hint="send the same request by hand and read the server's log",
        )
    return items


def rank(server: Server, request: ReplayRequest, candidates: Sequence[str]) -> dict[str, dict[str, float]]:
    """Item -> head -> logit, for the given candidates.

    Raises:
        ServerError: a candidate is missing from the answer.
    """
    answer = server.post("/v1/rank", request.body(candidates=list(candidates)))
    logits = {item["item_id"]: item["logits"] for item in answer["items"]}
    if missing := [item for item in candidates if item not in logits]:
        raise ServerError(
            f"the server left out candidates of request {request.request_id}",
            expected=f"logits for {len(candidates)} candidates",
            found=f"{len(missing)} missing, first {missing[0]}",
            where=str(server.log),
            hint="export again: the bundle's catalogue may be older than the features",
        )
    return logits


def measure_latency(server: Server, calls: Sequence[Call], *, progress: Progress) -> list[float]:
    """Milliseconds from sending a request to its complete answer, one request at a time."""
    server.post(*calls[0])  # a warm-up: the first call after a pause is slower
    timings_ms = []
    for call in calls:
        started = time.perf_counter()
        server.post(*call)
        timings_ms.append(1000 * (time.perf_counter() - started))
        progress.update(len(timings_ms), len(calls))
    return timings_ms


def throughput(server: Server, calls: Sequence[Call], *, concurrency: int) -> float:
    """Requests per second with ``concurrency`` requests in flight."""
    with ThreadPoolExecutor(concurrency) as pool:
        started = time.perf_counter()
        for _ in pool.map(lambda call: server.post(*call), calls):
            pass
        return len(calls) / (time.perf_counter() - started)


def ordered_answers(system: str, answers: Mapping[str, Answer], ids: Sequence[str], *, where: Path) -> list[Answer]:
    """A system's answers in the order of the requests' ``ids``.

    Raises:
        IntegrityError: a request has no answer, which is never scored as a miss.
    """
    missing = [request_id for request_id in ids if request_id not in answers]
    if missing:
        raise IntegrityError(
            f"{system}: some requests have no answer",
            expected=f"an answer to each of {len(ids)} requests",
            found=f"{len(missing)} without one, first {missing[0]}",
            where=str(where),
            hint="run the step that wrote the rankings again, on the same features",
        )
    return [answers[request_id] for request_id in ids]
