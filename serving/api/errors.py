"""Error responses: every error becomes an `ErrorResponse` with the request's id."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from rankline.errors import RanklineError, UsageError
from serving.api.schemas import ErrorResponse
from serving.engine import UnknownItem
from serving.model_manager import NotReady

# The first matching class decides.
_STATUS_OF_ERROR: tuple[tuple[type[RanklineError], int], ...] = (
    (UnknownItem, 404),
    (NotReady, 503),
    (UsageError, 422),
    (RanklineError, 500),
)


def add_error_handlers(app: FastAPI) -> None:
    """Register a handler for each kind of error."""

    @app.exception_handler(RanklineError)
    async def handle_rankline_error(request: Request, error: RanklineError) -> JSONResponse:
        status = next(status for family, status in _STATUS_OF_ERROR if isinstance(error, family))
        return _error_response(
            request, status, error=error.message, expected=error.expected, found=error.found, hint=error.hint
        )

    @app.exception_handler(RequestValidationError)
    async def handle_validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        location = ".".join(str(part) for part in first["loc"])
        return _error_response(
            request,
            422,
            error=f"the request is invalid: {location}",
            expected=first["msg"],
            found=repr(first.get("input"))[:200],
            hint="see /docs for the parameters of each route",
        )

    @app.exception_handler(HTTPException)
    async def handle_http_error(request: Request, error: HTTPException) -> JSONResponse:
        return _error_response(
            request,
            error.status_code,
            error=str(error.detail),
            found=f"{request.method} {request.url.path}",
            hint="see /docs for the list of routes",
        )

    @app.exception_handler(Exception)
    async def handle_unexpected_error(request: Request, error: Exception) -> JSONResponse:
        return _error_response(
            request,
            500,
            error=f"an unexpected {type(error).__name__} in the server",
            found=str(error)[:200],
            hint="see the stack trace in the server's log",
        )


def _error_response(request: Request, status: int, **fields: str) -> JSONResponse:
    body = ErrorResponse(request_id=request.state.request_id, **fields)
    return JSONResponse(body.model_dump(), status_code=status)
