"""Request ids, request metrics, and what is refused before a route sees it."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serving.api.errors import HINTS, RETRY_AFTER_S, error_response
from serving.metrics import Metrics

log = logging.getLogger("rankline.serving")

REQUEST_ID = "X-Request-Id"
TOO_LARGE = "the body is too large"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class RequestLimits:
    """How much the server takes on at once."""

    max_pending: int = 128  # requests to the models that are answered or wait
    max_body_bytes: int = 8 << 20


class RequestMiddleware:
    """Gives each request an id, or keeps the client's, and counts it by route and status.

    Beyond ``limits.max_pending`` requests to the models are refused at once, so that those that were taken on are
    answered in time. An error that nobody foresaw is logged with the request's id, and the connection stays open.
    """

    def __init__(self, app: App, metrics: Metrics, limits: RequestLimits) -> None:
        self._app, self._metrics, self._limits = app, metrics, limits
        self._pending = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = (
            headers.get(REQUEST_ID.lower().encode(), b"")[:100].decode("ascii", "ignore")
            or f"{random.getrandbits(128):032x}"
        )
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0
        started_at = time.perf_counter()

        async def send_with_request_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (REQUEST_ID.lower().encode(), request_id.encode())]
            await send(message)

        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limits.max_body_bytes:  # a body that came without its length
                raise HTTPException(413, TOO_LARGE)
            return message

        is_counted = scope["method"] == "POST"
        self._pending += is_counted
        try:
            answer = self._refusal(request_id, headers) if is_counted else None
            await (answer or self._app)(scope, receive_within_limit, send_with_request_id)
        except Exception as error:
            log.exception("request %s failed", request_id)
            if status:  # the response has begun
                raise
            await _unexpected(request_id, error)(scope, receive, send_with_request_id)
        finally:
            self._pending -= is_counted
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, str(status or 500)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started_at)

    def _refusal(self, request_id: str, headers: dict[bytes, bytes]) -> JSONResponse | None:
        """The answer to a request that no route gets to see."""
        if self._pending > self._limits.max_pending:
            self._metrics.dropped.labels("full").inc()
            response = error_response(
                request_id,
                429,
                error="the server has too many requests at once",
                expected=f"at most {self._limits.max_pending} that are answered or wait (--max-pending)",
                found=f"{self._pending}",
                hint="send it again after the seconds in Retry-After, or add replicas",
            )
            response.headers["Retry-After"] = str(RETRY_AFTER_S)
            return response
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._limits.max_body_bytes:
            return error_response(
                request_id,
                413,
                error=TOO_LARGE,
                expected=f"at most {self._limits.max_body_bytes} bytes",
                found=f"{length.decode('latin-1')[:100]} bytes",
                hint=HINTS[413],
            )
        encoding = headers.get(b"content-encoding", b"identity").decode("latin-1")
        if encoding.lower() != "identity":
            return error_response(
                request_id,
                415,
                error="the body has an encoding that is not read",
                expected="a body without Content-Encoding",
                found=f"Content-Encoding: {encoding[:100]}",
                hint="send the JSON as it is",
            )
        return None


def _unexpected(request_id: str, error: Exception) -> JSONResponse:
    return error_response(
        request_id,
        500,
        error=f"an unexpected {type(error).__name__} in the server",
        found=str(error)[:200],
        hint="the server's log has the stack trace, with this request's id",
    )
