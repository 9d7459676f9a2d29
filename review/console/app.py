"""The application: its routes, its errors as pages, its headers."""

from __future__ import annotations

import logging
import secrets

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp

from rankline.errors import RanklineError
from review.console.errors import ConsoleError, NotFound, NotSignedIn, status_of
from review.console.headers import StrictHeaders
from review.console.rendering import Pages
from review.console.routes import actions, candidates, registry, sign_in
from review.console.servers import Servers
from review.console.settings import ConsoleSettings
from review.console.signin.access import Access
from review.console.signin.identity import Identity
from review.console.signin.session import Sessions
from review.console.snapshots import Snapshots
from review.console.visit import Console, console_of, wants_json
from review.desk import Desk

log = logging.getLogger("rankline.review")


def create_app(desk: Desk, settings: ConsoleSettings) -> ASGIApp:
    """The console over a desk.

    Raises:
        UsageError: the roles file or the token file cannot be used, or a server's address is none.
    """
    key = settings.session_key or secrets.token_urlsafe(32)
    access = Access(settings, Sessions(settings, key))
    access.check_files()
    app = FastAPI(title="Rankline review", openapi_url=None, docs_url=None, redoc_url=None)
    app.state.console = Console(
        desk=desk,
        settings=settings,
        access=access,
        snapshots=Snapshots(desk.models),
        servers=Servers(settings.servers),
        pages=Pages(settings.base_path),
    )
    app.add_middleware(
        SessionMiddleware,
        secret_key=key,
        session_cookie="__Host-rankline" if settings.is_secure and not settings.base_path else "rankline",
        max_age=int(settings.session_hours * 3600),
        path=settings.base_path or "/",
        https_only=settings.is_secure,
    )
    for module in (candidates, registry, actions):
        app.include_router(module.router)
    app.include_router(sign_in.router(settings))
    _add_error_handlers(app)
    return StrictHeaders(app, https=settings.opened_at.scheme == "https", base_path=settings.base_path)


def _add_error_handlers(app: FastAPI) -> None:
    """Every error becomes a page, or JSON, with what was expected, what was found and what to try."""

    @app.exception_handler(RanklineError)
    def refused(request: Request, error: RanklineError) -> Response:
        return error_response(request, error)

    @app.exception_handler(HTTPException)
    def no_such_page(request: Request, error: HTTPException) -> Response:
        refusal = NotFound if error.status_code == 404 else ConsoleError
        asked = f"{request.method} {request.url.path}"[:200]
        return error_response(request, refusal(str(error.detail), found=asked), status=error.status_code)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        refusal = ConsoleError(f"{where} is not valid", expected=first["msg"], found=repr(first.get("input"))[:200])
        return error_response(request, refusal, status=422)

    @app.exception_handler(Exception)
    def unexpected(request: Request, error: Exception) -> Response:
        name = secrets.token_hex(4)
        log.error("error %s: %s %s", name, request.method, request.url.path)  # uvicorn logs the stack trace after it
        refusal = ConsoleError(
            "something went wrong in the console", found=type(error).__name__, hint=f"its log has error {name}"
        )
        return error_response(request, refusal, status=500)


def error_response(request: Request, error: RanklineError, *, status: int = 0) -> Response:
    """An error as the client asks for it; who is not signed in is sent to sign in, if the console can do that."""
    console, status = console_of(request), status or status_of(error)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if wants_json(request):
        content = {"error": error.message, "expected": error.expected, "found": error.found, "hint": error.hint}
        return JSONResponse(content, status_code=status, headers=headers)
    can_sign_in = console.settings.auth == "oidc" and isinstance(error, NotSignedIn)
    is_page = request.method == "GET" and not request.url.path.startswith("/sign-in")
    if can_sign_in and is_page and "authorization" not in request.headers:
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(console.pages.link("/sign-in", next=target), status_code=303)
    context = {"error": error, "status": status, "can_sign_in": can_sign_in, "sign_out_token": ""}
    sessions = console.access.sessions
    if console.settings.auth == "oidc" and (signed_in := sessions.user(request)):  # perhaps with the wrong account
        context["sign_out_token"] = sessions.form_token(request, Identity(name=signed_in[0], role=None))
    return HTMLResponse(console.pages.render("error.html", context), status_code=status, headers=headers)
