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
from rankline.text import query_words
from serving.engine import Answer, Ask, Engine, UnknownItem, answer
from serving.features import Features
from serving.live import Live, NotReady
from serving.metrics import Metrics

log = logging.getLogger("rankline.serving")

REQUEST_ID = "X-Request-Id"


class _Asked(BaseModel):
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
    def _agree(self) -> _Asked:
        if self.frozen is not None:
            given = [name for name in ("history", "seen", "at") if getattr(self, name) is not None]
            if given:
                raise ValueError(f"a frozen state holds {', '.join(given)} already; give one of the two")
        history = self.history or (self.frozen.history if self.frozen else History())
        if any(len(told) not in (0, len(history.item_ids)) for told in (history.times, history.ratings)):
            raise ValueError("a history's item_ids, times and ratings run in parallel")
        return self


class RecommendRequest(_Asked):
    """Items for a user."""

    k: int = Field(10, ge=1, le=1000, description="how many items")
    exclude_seen: bool = Field(True, description="leave out the items the user has had")


class _Worded(_Asked):
    """Somebody who may also say in words what is wanted: a query, or the turns of a conversation."""

    query: str | None = Field(
        None, max_length=20_000, description="a text to answer; a history given with it counts, too"
    )
    turns: list[str] | None = Field(
        None, min_length=1, max_length=1000, description="a conversation, oldest turn first, in place of a query"
    )

    @model_validator(mode="after")
    def _one_wording(self) -> _Worded:
        if self.query is not None and self.turns is not None:
            raise ValueError("a query and turns say the same twice; give one of the two")
        return self

    def words(self, *, last: int) -> str | None:
        """What is asked, as the model reads it; None where nothing is asked in words."""
        if self.query is None and self.turns is None:
            return None
        return query_words(self.query, self.turns, last=last)


class SearchRequest(_Worded):
    """Items for a query or a conversation, of somebody in particular or of nobody."""

    k: int = Field(10, ge=1, le=1000, description="how many items")
    exclude_seen: bool = Field(False, description="leave out the items the user has had")

    @model_validator(mode="after")
    def _asks(self) -> SearchRequest:
        if self.query is None and self.turns is None:
            raise ValueError("a search needs a query, or turns")
        return self


class RankRequest(_Worded):
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
_STATUS: tuple[tuple[type[RanklineError], int], ...] = (
    (UnknownItem, 404),
    (NotReady, 503),
    (UsageError, 422),
    (RanklineError, 500),
)


def create_app(live: Live, features: Features, metrics: Metrics) -> FastAPI:
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
        responses={422: {"model": Kind}, 503: {"model": Kind}},
    )
    app.add_middleware(_Observed, metrics=metrics)
    _add_error_handlers(app)

    def look_up(asked: _Asked) -> tuple[FrozenState, bool | None, list[str]]:
        if asked.frozen is not None:
            return asked.frozen, None, []
        at = time.time() if asked.at is None else asked.at
        return features.of(asked.user_id, at=at, history=asked.history, seen=asked.seen)

    @app.post("/v1/recommend")
    def recommend(asked: RecommendRequest, request: Request) -> UserAnswer:
        """The best items for a user: drawn from every source, ranked by the scorer."""
        engine = live.engine
        state, known_user, degraded = look_up(asked)
        if not asked.exclude_seen:
            state = state.model_copy(update={"seen": []})
        found = answer(engine, Ask("recommend", state, k=asked.k))
        return UserAnswer(**_said(request, engine, found), known_user=known_user, degraded=degraded)

    @app.post("/v1/search")
    def search(asked: SearchRequest, request: Request) -> UserAnswer:
        """The best items for a query or a conversation, with how sure the model is where it was calibrated."""
        engine = live.engine
        state, known_user, degraded = look_up(asked)
        if not asked.exclude_seen:
            state = state.model_copy(update={"seen": []})
        found = answer(engine, Ask("search", state, k=asked.k, query=asked.words(last=_turns(engine))))
        return UserAnswer(
            **_said(request, engine, found), known_user=known_user, degraded=degraded, abstained=found.abstained
        )

    @app.post("/v1/rank")
    def rank(asked: RankRequest, request: Request) -> RankAnswer:
        """Given candidates in the order the scorer puts them, with every head's logit."""
        engine = live.engine
        state, known_user, degraded = look_up(asked)
        words = asked.words(last=_turns(engine))
        given, frozen = tuple(asked.candidates), asked.frozen is not None
        found = answer(engine, Ask("rank", state, k=asked.k, query=words, candidates=given, frozen=frozen))
        return RankAnswer(
            **_said(request, engine, found),
            known_user=known_user,
            degraded=degraded,
            abstained=found.abstained,
            unknown=found.unknown,
            hidden=found.hidden,
            withdrawn=found.withdrawn,
        )

    @app.post("/v1/similar", responses={404: {"model": Kind}})
    def similar(asked: SimilarRequest, request: Request) -> Answered:
        """Items like an item: the mean of two ranks, by cosine and by co-visitation. It has no heads."""
        engine = live.engine
        state = FrozenState(at=time.time())
        found = answer(engine, Ask("similar", state, k=asked.k, item_id=asked.item_id))
        return Answered(**_said(request, engine, found))

    @app.get("/v1/model")
    def model(request: Request) -> ModelAnswer:
        """What serves: ids, heads, features, parity."""
        engine = live.engine
        about = engine.about
        return ModelAnswer(
            request_id=request.state.request_id,
            model_id=about.model_id,
            revision=about.revision,
            precision=about.precision,
            provider=about.provider,
            heads=about.heads,
            items=len(engine.item_ids),
            hidden=list(live.hidden),
            manifest=about.manifest,
        )

    @app.get("/livez")
    def livez() -> dict[str, bool]:
        """The process answers."""
        return {"live": True}

    @app.get("/readyz", responses={503: {"model": Readiness}})
    def readyz(response: Response) -> Readiness:
        """Whether requests are answered; missing features degrade answers but do not make it unready."""
        try:
            about = live.engine.about
        except NotReady:
            about = None
            response.status_code = 503
        refused = live.refused
        return Readiness(
            ready=about is not None,
            model_id=about.model_id if about else None,
            revision=about.revision if about else None,
            precision=about.precision if about else None,
            provider=about.provider if about else None,
            features={
                "state": features.state,
                "why": features.why,
                "service": SERVICE,
                "watermark": features.watermark,
                "lag_s": None if features.lag_s is None else round(features.lag_s, 1),
            },
            refused=refused.told if refused else None,
            hidden=len(live.hidden),
            repository_error=live.repository_error or None,
        )

    @app.get("/metrics", include_in_schema=False)
    def metrics_text() -> Response:
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


def _turns(engine: Engine) -> int:
    """How many turns of a conversation the model that serves reads."""
    return int((engine.about.manifest.get("text") or {}).get("turns", 1))


def _said(request: Request, engine: Engine, found: Answer) -> dict[str, Any]:
    """What every answer carries."""
    return {
        "request_id": request.state.request_id,
        "model_id": engine.about.model_id,
        "revision": engine.about.revision,
        "items": [Item.model_construct(**vars(item)) for item in found.items],
    }


def _add_error_handlers(app: FastAPI) -> None:
    def kind(request: Request, status: int, **told: str) -> JSONResponse:
        body = Kind(request_id=request.state.request_id, **told)
        return JSONResponse(body.model_dump(), status_code=status)

    @app.exception_handler(RanklineError)
    async def refused(request: Request, error: RanklineError) -> JSONResponse:
        status = next(status for family, status in _STATUS if isinstance(error, family))
        return kind(request, status, error=error.message, expected=error.expected, found=error.found, hint=error.hint)

    @app.exception_handler(RequestValidationError)
    async def misread(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return kind(
            request,
            422,
            error=f"the request is not understood: {place}",
            expected=first["msg"],
            found=repr(first.get("input"))[:200],
            hint="/docs shows what each route takes",
        )

    @app.exception_handler(HTTPException)
    async def not_there(request: Request, error: HTTPException) -> JSONResponse:
        return kind(
            request,
            error.status_code,
            error=str(error.detail),
            found=f"{request.method} {request.url.path}",
            hint="/docs lists the routes",
        )

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> JSONResponse:
        return kind(
            request,
            500,
            error=f"an unforeseen {type(error).__name__} in the server",
            found=str(error)[:200],
            hint="its stack trace is in the server's log, with this request's id",
        )


Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class _Observed:
    """Gives each request an id (its own, if it brought one) and counts it by route and status."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        brought = dict(scope["headers"]).get(REQUEST_ID.lower().encode(), b"")[:100]
        request_id = brought.decode("ascii", "ignore") or uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        status = 500
        began = time.perf_counter()

        async def told(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (REQUEST_ID.lower().encode(), request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, told)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - began)
