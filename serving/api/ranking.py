"""Routes that return ranked items.

They are plain functions: each runs in a worker thread, and the event loop stays free.
"""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request

from rankline.contracts import FrozenState, History
from rankline.features.rating_scale import to_stars
from serving.api.schemas import (
    ErrorResponse,
    ItemsResponse,
    RankedItem,
    RankRequest,
    RankResponse,
    RecommendRequest,
    RecommendResponse,
    SearchRequest,
    SimilarRequest,
    UserRequest,
)
from serving.api.services import services_of
from serving.engine import Engine, EngineRequest, EngineResponse, check_frozen, read_context, run_request

router = APIRouter()


@router.post("/v1/recommend")
def recommend(payload: RecommendRequest, request: Request) -> RecommendResponse:
    """Recommend items to a user: candidates from every source, ranked by the scorer."""
    engine = services_of(request).models.engine
    state, known_user, degraded = _look_up(payload, request, exclude_seen=payload.exclude_seen)
    result = run_request(engine, EngineRequest("recommend", state, k=payload.k))
    return RecommendResponse(**_common_fields(request, engine, result), known_user=known_user, degraded=degraded)


@router.post("/v1/search")
def search(payload: SearchRequest, request: Request) -> RecommendResponse:
    """Search by a query or a conversation; calibrated models add probabilities."""
    engine = services_of(request).models.engine
    state, known_user, degraded = _look_up(payload, request, exclude_seen=payload.exclude_seen)
    query = payload.query_text(max_turns=_max_turns(engine))
    result = run_request(engine, EngineRequest("search", state, k=payload.k, query=query))
    return RecommendResponse(
        **_common_fields(request, engine, result),
        known_user=known_user,
        degraded=degraded,
        abstained=result.abstained,
    )


@router.post("/v1/rank")
def rank(payload: RankRequest, request: Request) -> RankResponse:
    """Rank the given candidates by the scorer, with every head's logit."""
    engine = services_of(request).models.engine
    state, known_user, degraded = _look_up(payload, request)
    engine_request = EngineRequest(
        "rank",
        state,
        k=payload.k,
        query=payload.query_text(max_turns=_max_turns(engine)),
        candidates=tuple(payload.candidates),
        frozen=payload.frozen is not None,
    )
    result = run_request(engine, engine_request)
    return RankResponse(
        **_common_fields(request, engine, result),
        known_user=known_user,
        degraded=degraded,
        abstained=result.abstained,
        unknown=result.unknown,
        hidden=result.hidden,
        withdrawn=result.withdrawn,
    )


@router.post("/v1/similar", responses={404: {"model": ErrorResponse}})
def similar(payload: SimilarRequest, request: Request) -> ItemsResponse:
    """Find items similar to an item, by the mean of its ranks by cosine and by co-visitation; without heads."""
    engine = services_of(request).models.engine
    state = FrozenState(at=time.time())
    result = run_request(engine, EngineRequest("similar", state, k=payload.k, item_id=payload.item_id))
    return ItemsResponse(**_common_fields(request, engine, result))


def _look_up(
    payload: UserRequest, request: Request, *, exclude_seen: bool = True
) -> tuple[FrozenState, bool | None, list[str]]:
    """The state of a request, whether the user is known (None: not asked), and what was unavailable."""
    known_user: bool | None = None
    degraded: list[str] = []
    if payload.frozen is not None:
        state = payload.frozen
        check_frozen(state, services_of(request).models.engine.fields)
    else:
        at = time.time() if payload.at is None else payload.at
        engine = services_of(request).models.engine
        context, time_zone = read_context(payload.context or {}, engine.fields)
        history = payload.history and _with_stars(payload.history, engine)
        state, known_user, degraded = services_of(request).features.look_up(
            payload.user_id, at=at, history=history, seen=payload.seen
        )
        state = state.model_copy(update={"context": context, "time_zone": time_zone or state.time_zone})
    return state if exclude_seen else state.model_copy(update={"seen": []}), known_user, degraded


def _with_stars(history: History, engine: Engine) -> History:
    """A history whose ratings are on the scale that the model reads, as those of the store are."""
    ratings = to_stars(history.ratings, engine.rating_scale).tolist()
    return history.model_copy(update={"ratings": ratings})


def _max_turns(engine: Engine) -> int:
    """How many turns of a conversation the model reads."""
    return int((engine.info.manifest.get("text") or {}).get("turns", 1))


def _common_fields(request: Request, engine: Engine, result: EngineResponse) -> dict[str, Any]:
    """The fields of every response with items."""
    return {
        "request_id": request.state.request_id,
        "model_id": engine.info.model_id,
        "revision": engine.info.revision,
        "items": [RankedItem.model_construct(**vars(item)) for item in result.items],
    }
