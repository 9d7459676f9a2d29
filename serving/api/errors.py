"""Error responses: every error becomes an `ErrorResponse` with the request's id."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from rankline.errors import RanklineError, UsageError
from serving.api.schemas import ErrorResponse
from serving.batching import Deadline
from serving.engine import UnknownItem
from serving.model_manager import NotReady

RETRY_AFTER_S = 1
HINTS = {
    404: "see /docs for the list of routes",
    405: "see /docs for the list of routes",
    413: "send less at once, or start the server with a larger --max-body-mb",
}
# The first matching class decides.
_STATUS_OF_ERROR: tuple[tuple[type[RanklineError], int], ...] = (
    (UnknownItem, 404),
    (NotReady, 503),
    (Deadline, 503),
    (UsageError, 422),
    (RanklineError, 500),
)


def add_error_handlers(app: FastAPI) -> None:
    """Register a handler for each kind of error."""

    @app.exception_handler(RanklineError)
    async def handle_rankline_error(request: Request, error: RanklineError) -> JSONResponse:
        return rankline_error_response(request, error)

    @app.exception_handler(RequestValidationError)
    async def handle_validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        location = ".".join(str(part) for part in first["loc"])
        is_unread = isinstance(first.get("input"), bytes)  # a body of another type is passed on as it is
        return _error_response(
            request,
            422,
            error="the body was not read as JSON" if is_unread else f"the request is invalid: {location}",
            expected="a JSON object, with the header Content-Type: application/json" if is_unread else first["msg"],
            found=f"Content-Type: {request.headers.get('content-type', 'none')}"
            if is_unread
            else repr(first.get("input"))[:200],
            hint="send the header Content-Type: application/json"
            if is_unread
            else "see /docs for the parameters of each route",
        )

    @app.exception_handler(HTTPException)
    async def handle_http_error(request: Request, error: HTTPException) -> JSONResponse:
        return _error_response(
            request,
            error.status_code,
            error=str(error.detail),
            found=f"{request.method} {request.url.path}",
            hint=HINTS.get(error.status_code, "see /docs for the parameters of each route"),
        )


def rankline_error_response(request: Request, error: RanklineError) -> JSONResponse:
    """The response of one of Rankline's errors; its class decides the status."""
    status = next(status for family, status in _STATUS_OF_ERROR if isinstance(error, family))
    response = _error_response(
        request, status, error=error.message, expected=error.expected, found=error.found, hint=error.hint
    )
    if isinstance(error, Deadline):
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def _error_response(request: Request, status: int, **fields: str) -> JSONResponse:
    return error_response(request.state.request_id, status, **fields)


def error_response(request_id: str, status: int, **fields: str) -> JSONResponse:
    """The response of an error."""
    return JSONResponse(ErrorResponse(request_id=request_id, **fields).model_dump(), status_code=status)
