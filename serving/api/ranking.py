"""Routes that return ranked items.

They run on the event loop and wait for their batch (serving/batching/), which looks the features up and ranks. A
feature store on another machine is asked in a thread before that, so that no batch waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from rankline.contracts import FrozenState, History
from rankline.errors import UsageError
from rankline.features.rating_scale import to_stars
from serving.api.schemas import (
    ErrorResponse,
    ItemsResponse,
    RankRequest,
    RankResponse,
    RecommendRequest,
    RecommendResponse,
    SearchRequest,
    SimilarRequest,
    UserRequest,
)
from serving.api.services import Services, services_of
from serving.batching.batcher import CallerGone
from serving.engine import Engine, EngineRequest, EngineResponse, check_frozen, read_context

router = APIRouter()

TIMEOUT = "X-Request-Timeout-Ms"
CALLER_GONE = 499  # nobody reads it; the status of nginx's logs


@dataclass
class UserLookup:
    """Completes a request with the features of its user; ``make`` is then given the state."""

    payload: UserRequest
    services: Services
    make: Callable[[FrozenState, Engine], EngineRequest]
    exclude_seen: bool = True
    known_user: bool | None = None  # None: not asked
    degraded: list[str] = field(default_factory=list)
    _state: FrozenState | None = None

    def __call__(self, engine: Engine) -> EngineRequest:
        """The request as the engine reads it."""
        state = self.look_up(engine)
        return self.make(state if self.exclude_seen else state.model_copy(update={"seen": []}), engine)

    def look_up(self, engine: Engine) -> FrozenState:
        """The state of the request; it is looked up once."""
        if self._state is None:
            self._state = self._frozen(engine) if self.payload.frozen is not None else self._live(engine)
        return self._state

    def _frozen(self, engine: Engine) -> FrozenState:
        assert self.payload.frozen is not None
        check_frozen(self.payload.frozen, engine.fields)
        return self.payload.frozen

    def _live(self, engine: Engine) -> FrozenState:
        payload = self.payload
        at = time.time() if payload.at is None else payload.at
        context, time_zone = read_context(payload.context or {}, engine.fields)
        history = payload.history and _with_stars(payload.history, engine)
        state, self.known_user, self.degraded = self.services.features.look_up(
            payload.user_id, at=at, history=history, seen=payload.seen
        )
        if not context and not time_zone:
            return state
        return state.model_copy(update={"context": context, "time_zone": time_zone or state.time_zone})


@router.post("/v1/recommend", response_model=RecommendResponse)
async def recommend(payload: RecommendRequest, request: Request) -> Response:
    """Recommend items to a user: candidates from every source, ranked by the scorer."""

    def make(state: FrozenState, _: Engine) -> EngineRequest:
        return EngineRequest("recommend", state, k=payload.k)

    look_up = UserLookup(payload, services_of(request), make, exclude_seen=payload.exclude_seen)
    return await _answer(request, look_up, lambda result: {})


@router.post("/v1/search", response_model=RecommendResponse)
async def search(payload: SearchRequest, request: Request) -> Response:
    """Search by a query or a conversation; calibrated models add probabilities."""

    def make(state: FrozenState, engine: Engine) -> EngineRequest:
        return EngineRequest("search", state, k=payload.k, query=payload.query_text(max_turns=_max_turns(engine)))

    look_up = UserLookup(payload, services_of(request), make, exclude_seen=payload.exclude_seen)
    return await _answer(request, look_up, lambda result: {"abstained": result.abstained})


@router.post("/v1/rank", response_model=RankResponse)
async def rank(payload: RankRequest, request: Request) -> Response:
    """Rank the given candidates by the scorer, with every head's logit."""

    def make(state: FrozenState, engine: Engine) -> EngineRequest:
        return EngineRequest(
            "rank",
            state,
            k=payload.k,
            query=payload.query_text(max_turns=_max_turns(engine)),
            candidates=tuple(payload.candidates),
            frozen=payload.frozen is not None,
        )

    def more(result: EngineResponse) -> dict[str, Any]:
        return {
            "abstained": result.abstained,
            "unknown": result.unknown,
            "hidden": result.hidden,
            "withdrawn": result.withdrawn,
        }

    return await _answer(request, UserLookup(payload, services_of(request), make), more, len(payload.candidates))


@router.post("/v1/similar", response_model=ItemsResponse, responses={404: {"model": ErrorResponse}})
async def similar(payload: SimilarRequest, request: Request) -> Response:
    """Find items similar to an item, by the mean of its ranks by cosine and by co-visitation; without heads."""

    def make(_: Engine) -> EngineRequest:
        return EngineRequest("similar", FrozenState(at=time.time()), k=payload.k, item_id=payload.item_id)

    return await _answer(request, make, lambda result: {})


async def _answer(
    request: Request,
    look_up: UserLookup | Callable[[Engine], EngineRequest],
    more: Callable[[EngineResponse], dict[str, Any]],
    candidates: int = 0,
) -> Response:
    """Wait for the answer to a request; ``more`` are the fields of its route."""
    services = services_of(request)
    timeout_s = _timeout_s(request)
    if isinstance(look_up, UserLookup) and not services.features.is_local:
        await run_in_threadpool(look_up.look_up, services.models.engine)
    try:
        engine, result = await services.batcher.ask(
            look_up, weight=candidates, timeout_s=timeout_s, is_gone=request.is_disconnected
        )
    except CallerGone:
        return Response(status_code=CALLER_GONE)
    content = {
        "request_id": request.state.request_id,
        "model_id": engine.info.model_id,
        "revision": engine.info.revision,
        "items": result.items,
    }
    if isinstance(look_up, UserLookup):
        content |= {"known_user": look_up.known_user, "degraded": look_up.degraded, "abstained": False}
    return Response(orjson.dumps({**content, **more(result)}), media_type="application/json")


def _timeout_s(request: Request) -> float:
    """How long the caller waits for an answer.

    Raises:
        UsageError: the header is no number above 0.
    """
    text = request.headers.get(TIMEOUT)
    try:
        timeout_s = float("inf") if text is None else float(text) / 1000
    except ValueError:
        timeout_s = 0.0
    if not timeout_s > 0:
        raise UsageError(
            f"the header {TIMEOUT} is no time",
            expected="milliseconds above 0",
            found=repr(text)[:100],
            hint="leave it out for the server's own limit",
        )
    return timeout_s


def _with_stars(history: History, engine: Engine) -> History:
    """A history whose ratings are on the scale that the model reads, as those of the store are."""
    ratings = to_stars(history.ratings, engine.rating_scale).tolist()
    return history.model_copy(update={"ratings": ratings})


def _max_turns(engine: Engine) -> int:
    """How many turns of a conversation the model reads."""
    return int((engine.info.manifest.get("text") or {}).get("turns", 1))
