"""A short way to the routes that rank, around most of FastAPI, which costs more than half a millisecond a request.

It takes what is usual: a JSON body that came with its length and is valid. Everything else goes the long way, which
says what is wrong, so that both ways give the same answers and /docs describes them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel, ValidationError

from rankline.errors import RanklineError
from serving.api import ranking
from serving.api.errors import rankline_error_response
from serving.api.middleware import App, Message, Receive, Send
from serving.api.schemas import RankRequest, RecommendRequest, SearchRequest, SimilarRequest


@dataclass(frozen=True)
class Route:
    """A route that ranks: its path, its body, and the function that answers."""

    path: str
    body: type[BaseModel]
    endpoint: Callable[[Any, Request], Awaitable[Response]]


ROUTES: Mapping[str, Route] = {
    route.path: route
    for route in (
        Route("/v1/recommend", RecommendRequest, ranking.recommend),
        Route("/v1/search", SearchRequest, ranking.search),
        Route("/v1/rank", RankRequest, ranking.rank),
        Route("/v1/similar", SimilarRequest, ranking.similar),
    )
}


class FastPath:
    """Answers usual requests to the routes that rank, and passes the others on."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        route = ROUTES.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if route is None or not _is_usual(scope):
            await self._app(scope, receive, send)
            return
        parts: list[Message] = []
        while not parts or parts[-1].get("more_body"):
            parts.append(await receive())
        try:
            payload = route.body.model_validate_json(b"".join(part.get("body", b"") for part in parts))
        except ValidationError:
            await self._app(scope, _replay(parts, receive), send)
            return
        scope["route"] = route
        request = Request(scope, receive)
        try:
            response = await route.endpoint(payload, request)
        except RanklineError as error:
            response = rankline_error_response(request, error)
        await response(scope, receive, send)


def _is_usual(scope: Message) -> bool:
    headers = dict(scope["headers"])
    return headers.get(b"content-type") == b"application/json" and b"content-length" in headers


def _replay(parts: list[Message], receive: Receive) -> Receive:
    """A receive that begins with messages that were received already."""
    again = iter(parts)

    async def next_message() -> Message:
        return next(again, None) or await receive()

    return next_message
