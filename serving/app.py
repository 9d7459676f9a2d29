"""The HTTP interface: thin routes beside the shapes of what they take and give.

Routes are plain functions, so each runs in a worker thread and the event loop stays free.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.exceptions import HTTPException

from rankline.contracts import FrozenState, History
from rankline.errors import RanklineError, UsageError
from rankline.features.transforms import SERVICE
from rankline.text import query_text
from serving.engine import Engine, EngineRequest, EngineResponse, UnknownItem, run_request
from serving.features import FeatureLookup
from serving.live import ModelManager, NotReady
from serving.metrics import Metrics

log = logging.getLogger("rankline.serving")

REQUEST_ID = "X-Request-Id"


class _UserRequest(BaseModel):
    """Who asks, and when: a user, a history given in the request, or a whole frozen state."""

    model_config = ConfigDict(extra="forbid")

    user_id: str | None = Field(None, description="whose history and features to look up")
    history: History | None = Field(None, description="stands in for the history that is looked up")
    seen: list[str] | None = Field(
        None, description="items to leave out besides those looked up; the history's if left out"
    )
    frozen: FrozenState | None = Field(
        None, description="history and features as they were at a moment, in place of every look-up"
    )
    at: float | None = Field(None, description="unix seconds of the request's moment; now if left out")

    @model_validator(mode="after")
    def _check_consistent(self) -> _UserRequest:
        if self.frozen is not None:
            given = [name for name in ("history", "seen", "at") if getattr(self, name) is not None]
            if given:
                raise ValueError(f"a frozen state holds {', '.join(given)} already; give one of the two")
        history = self.history or (self.frozen.history if self.frozen else History())
        if any(len(values) not in (0, len(history.item_ids)) for values in (history.times, history.ratings)):
            raise ValueError("a history's item_ids, times and ratings run in parallel")
        return self


class RecommendRequest(_UserRequest):
    """Items for a user."""

    k: int = Field(10, ge=1, le=1000, description="how many items")
    exclude_seen: bool = Field(True, description="leave out the items the user has had")


class _QueryRequest(_UserRequest):
    """Somebody who may also say in words what is wanted: a query, or the turns of a conversation."""

    query: str | None = Field(
        None, max_length=20_000, description="a text to answer; a history given with it counts, too"
    )
    turns: list[str] | None = Field(
        None, min_length=1, max_length=1000, description="a conversation, oldest turn first, in place of a query"
    )

    @model_validator(mode="after")
    def _check_single_query(self) -> _QueryRequest:
        if self.query is not None and self.turns is not None:
            raise ValueError("a query and turns say the same twice; give one of the two")
        return self

    def query_text(self, *, last: int) -> str | None:
        """What is asked, as the model reads it; None where nothing is asked in words."""
        if self.query is None and self.turns is None:
            return None
        return query_text(self.query, self.turns, last=last)


class SearchRequest(_QueryRequest):
    """Items for a query or a conversation, of somebody in particular or of nobody."""

    k: int = Field(10, ge=1, le=1000, description="how many items")
    exclude_seen: bool = Field(False, description="leave out the items the user has had")

    @model_validator(mode="after")
    def _check_has_query(self) -> SearchRequest:
        if self.query is None and self.turns is None:
            raise ValueError("a search needs a query, or turns")
        return self


class RankRequest(_QueryRequest):
    """Given items or labels, ranked for a user, a query, or both."""

    candidates: list[str] = Field(min_length=1, max_length=10_000, description="item ids, in any order")
    k: int | None = Field(None, ge=1, description="how many items; all of them if left out")


class SimilarRequest(BaseModel):
    """Items like an item."""

    model_config = ConfigDict(extra="forbid")

    item_id: str
    k: int = Field(10, ge=1, le=1000, description="how many items")


class Item(BaseModel):
    """One item of an answer."""

    item_id: str
    title: str
    score: float = Field(description="what the answer is ordered by: the first head's logit")
    heads: dict[str, float] = Field(description="each head's logit through a sigmoid")
    logits: dict[str, float] = Field(description="each head's logit, float32 written in full")
    sources: list[str] = Field(description="which candidate sources proposed it")
    probability: float | None = Field(None, description="the chance that it is right; null if not calibrated")


class Answered(BaseModel):
    """What every answer says of itself."""

    request_id: str
    model_id: str
    revision: str = Field(description="the catalogue's revision")
    items: list[Item]


class UserAnswer(Answered):
    """Ranked items for somebody."""

    known_user: bool | None = Field(description="whether the store knows the user; null if it was not asked")
    degraded: list[str] = Field(description="parts that were missing and replaced by defaults")
    abstained: bool = Field(False, description="the best item is too unlikely to be given as an answer")


class RankAnswer(UserAnswer):
    """Ranked candidates."""

    unknown: list[str] = Field(description="candidates that the catalogue does not hold")
    hidden: list[str] = Field([], description="candidates that were taken down, and so are not ranked")
    withdrawn: list[str] = Field(
        [], description="candidates that are not available, and so are not ranked; with a frozen state they are"
    )


class Kind(BaseModel):
    """An error: what was expected, what was found, what to try."""

    error: str
    expected: str = ""
    found: str = ""
    hint: str = ""
    request_id: str = ""


class Readiness(BaseModel):
    """Whether requests are answered, by which model, and what is missing."""

    ready: bool
    model_id: str | None
    revision: str | None
    precision: str | None
    provider: str | None
    features: dict[str, Any] = Field(
        description="state (off, opening, ready, down), why, service, watermark (unix seconds), lag_s (from it to now)"
    )
    refused: dict[str, str] | None = Field(description="a champion or a catalogue that is not served, and why")
    hidden: int = Field(0, description="how many items are taken down, known to the catalogue or not")
    repository_error: str | None = Field(description="why the model repository cannot be read")


class ModelAnswer(BaseModel):
    """The model that serves, over which catalogue."""

    request_id: str
    model_id: str
    revision: str
    precision: str
    provider: str
    heads: list[str]
    items: int = Field(description="how many items the catalogue holds")
    hidden: list[str] = Field([], description="items that are taken down: in no answer, known here or not")
    manifest: dict[str, Any]


# Which error is whose fault; the first that fits.
_STATUS_OF_ERROR: tuple[tuple[type[RanklineError], int], ...] = (
    (UnknownItem, 404),
    (NotReady, 503),
    (UsageError, 422),
    (RanklineError, 500),
)


def create_app(live: ModelManager, features: FeatureLookup, metrics: Metrics) -> FastAPI:
    """The application over an engine holder, features and metrics that somebody else started."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        features.close()
        live.close()

    app = FastAPI(
        title="Rankline",
        description="Ranked items from the champion model.",
        version="1",
        lifespan=lifespan,
        # described here, since Python 3.13 has another phrase for 422 and serving/openapi.json is compared with
        responses={422: {"model": Kind, "description": "Unprocessable Entity"}, 503: {"model": Kind}},
    )
    app.add_middleware(_RequestMiddleware, metrics=metrics)
    _add_error_handlers(app)

    def look_up(payload: _UserRequest) -> tuple[FrozenState, bool | None, list[str]]:
        if payload.frozen is not None:
            return payload.frozen, None, []
        at = time.time() if payload.at is None else payload.at
        return features.look_up(payload.user_id, at=at, history=payload.history, seen=payload.seen)

    @app.post("/v1/recommend")
    def recommend(payload: RecommendRequest, request: Request) -> UserAnswer:
        """The best items for a user: drawn from every source, ranked by the scorer."""
        engine = live.engine
        state, known_user, degraded = look_up(payload)
        if not payload.exclude_seen:
            state = state.model_copy(update={"seen": []})
        result = run_request(engine, EngineRequest("recommend", state, k=payload.k))
        return UserAnswer(**_response_fields(request, engine, result), known_user=known_user, degraded=degraded)

    @app.post("/v1/search")
    def search(payload: SearchRequest, request: Request) -> UserAnswer:
        """The best items for a query or a conversation, with how sure the model is where it was calibrated."""
        engine = live.engine
        state, known_user, degraded = look_up(payload)
        if not payload.exclude_seen:
            state = state.model_copy(update={"seen": []})
        result = run_request(
            engine, EngineRequest("search", state, k=payload.k, query=payload.query_text(last=_max_turns(engine)))
        )
        return UserAnswer(
            **_response_fields(request, engine, result),
            known_user=known_user,
            degraded=degraded,
            abstained=result.abstained,
        )

    @app.post("/v1/rank")
    def rank(payload: RankRequest, request: Request) -> RankAnswer:
        """Given candidates in the order the scorer puts them, with every head's logit."""
        engine = live.engine
        state, known_user, degraded = look_up(payload)
        words = payload.query_text(last=_max_turns(engine))
        given, frozen = tuple(payload.candidates), payload.frozen is not None
        result = run_request(
            engine, EngineRequest("rank", state, k=payload.k, query=words, candidates=given, frozen=frozen)
        )
        return RankAnswer(
            **_response_fields(request, engine, result),
            known_user=known_user,
            degraded=degraded,
            abstained=result.abstained,
            unknown=result.unknown,
            hidden=result.hidden,
            withdrawn=result.withdrawn,
        )

    @app.post("/v1/similar", responses={404: {"model": Kind}})
    def similar(payload: SimilarRequest, request: Request) -> Answered:
        """Items like an item: the mean of two ranks, by cosine and by co-visitation. It has no heads."""
        engine = live.engine
        state = FrozenState(at=time.time())
        result = run_request(engine, EngineRequest("similar", state, k=payload.k, item_id=payload.item_id))
        return Answered(**_response_fields(request, engine, result))

    @app.get("/v1/model")
    def model(request: Request) -> ModelAnswer:
        """What serves: ids, heads, features, parity."""
        engine = live.engine
        info = engine.info
        return ModelAnswer(
            request_id=request.state.request_id,
            model_id=info.model_id,
            revision=info.revision,
            precision=info.precision,
            provider=info.provider,
            heads=info.heads,
            items=len(engine.item_ids),
            hidden=list(live.hidden),
            manifest=info.manifest,
        )

    @app.get("/livez")
    def livez() -> dict[str, bool]:
        """The process answers."""
        return {"live": True}

    @app.get("/readyz", responses={503: {"model": Readiness}})
    def readyz(response: Response) -> Readiness:
        """Whether requests are answered; missing features degrade answers but do not make it unready."""
        try:
            info = live.engine.info
        except NotReady:
            info = None
            response.status_code = 503
        refused = live.refused
        return Readiness(
            ready=info is not None,
            model_id=info.model_id if info else None,
            revision=info.revision if info else None,
            precision=info.precision if info else None,
            provider=info.provider if info else None,
            features={
                "state": features.state,
                "why": features.reason,
                "service": SERVICE,
                "watermark": features.watermark,
                "lag_s": None if features.lag_s is None else round(features.lag_s, 1),
            },
            refused=refused.summary if refused else None,
            hidden=len(live.hidden),
            repository_error=live.repository_error or None,
        )

    @app.get("/metrics", include_in_schema=False)
    def metrics_text() -> Response:
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


def _max_turns(engine: Engine) -> int:
    """How many turns of a conversation the model that serves reads."""
    return int((engine.info.manifest.get("text") or {}).get("turns", 1))


def _response_fields(request: Request, engine: Engine, result: EngineResponse) -> dict[str, Any]:
    """What every answer carries."""
    return {
        "request_id": request.state.request_id,
        "model_id": engine.info.model_id,
        "revision": engine.info.revision,
        "items": [Item.model_construct(**vars(item)) for item in result.items],
    }


def _add_error_handlers(app: FastAPI) -> None:
    def error_response(request: Request, status: int, **fields: str) -> JSONResponse:
        body = Kind(request_id=request.state.request_id, **fields)
        return JSONResponse(body.model_dump(), status_code=status)

    @app.exception_handler(RanklineError)
    async def handle_rankline_error(request: Request, error: RanklineError) -> JSONResponse:
        status = next(status for family, status in _STATUS_OF_ERROR if isinstance(error, family))
        return error_response(
            request, status, error=error.message, expected=error.expected, found=error.found, hint=error.hint
        )

    @app.exception_handler(RequestValidationError)
    async def handle_validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return error_response(
            request,
            422,
            error=f"the request is not understood: {place}",
            expected=first["msg"],
            found=repr(first.get("input"))[:200],
            hint="/docs shows what each route takes",
        )

    @app.exception_handler(HTTPException)
    async def handle_http_error(request: Request, error: HTTPException) -> JSONResponse:
        return error_response(
            request,
            error.status_code,
            error=str(error.detail),
            found=f"{request.method} {request.url.path}",
            hint="/docs lists the routes",
        )

    @app.exception_handler(Exception)
    async def handle_unexpected_error(request: Request, error: Exception) -> JSONResponse:
        return error_response(
            request,
            500,
            error=f"an unforeseen {type(error).__name__} in the server",
            found=str(error)[:200],
            hint="its stack trace is in the server's log, with this request's id",
        )


Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class _RequestMiddleware:
    """Gives each request an id (its own, if it brought one) and counts it by route and status."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        header = dict(scope["headers"]).get(REQUEST_ID.lower().encode(), b"")[:100]
        request_id = header.decode("ascii", "ignore") or uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        status = 500
        started_at = time.perf_counter()

        async def send_with_request_id(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (REQUEST_ID.lower().encode(), request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_request_id)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started_at)
