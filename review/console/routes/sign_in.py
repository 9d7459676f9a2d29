"""Signing in at the issuer, and out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from review.console.forms import read_form
from review.console.settings import ConsoleSettings
from review.console.signin.identity import Identity
from review.console.visit import console_of, identity_of

_NEXT = "next"
CALLBACK = "/sign-in/callback"


def router(settings: ConsoleSettings) -> APIRouter:
    """The routes of sign-in; without an issuer there are none."""
    routes = APIRouter()
    if settings.auth != "oidc":
        return routes

    from review.console.signin.oidc import OidcClient  # Authlib, for those who use it

    client = OidcClient(settings.oidc)

    @routes.get("/sign-in")
    async def sign_in(request: Request, next: Annotated[str, Query(max_length=2000)] = "/") -> Response:
        """Send the user to the issuer."""
        console_of(request).access.refuse_other_hosts(request)
        request.session[_NEXT] = own_path(next)
        return await client.redirect(request, f"{_origin(request, settings)}{settings.base_path}{CALLBACK}")

    @routes.get(CALLBACK)
    async def callback(request: Request) -> Response:
        """Begin the session of the user who comes back."""
        console, target = console_of(request), own_path(request.session.get(_NEXT, "/"))
        user, groups = await client.user(request)
        console.access.sessions.begin(request, user, console.access.roles().known(groups))
        return RedirectResponse(console.settings.base_path + target, status_code=303)

    @routes.post("/sign-out")
    def sign_out(
        request: Request,
        identity: Annotated[Identity, Depends(identity_of)],
        form: Annotated[dict[str, str], Depends(read_form)],
    ) -> Response:
        """End the session."""
        console = console_of(request)
        console.access.sessions.check_form(request, identity, form.get("token", ""))
        console.access.sessions.end(request)
        return RedirectResponse(console.pages.link("/signed-out"), status_code=303)

    @routes.get("/signed-out")
    def signed_out(request: Request) -> Response:
        """Say so, without signing in again at once."""
        return HTMLResponse(console_of(request).pages.render("signed_out.html", {}))

    return routes


def own_path(target: str) -> str:
    """A path of this console; the queue for anything that would lead elsewhere."""
    is_path = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if is_path and "\\" not in target else "/"


def _origin(request: Request, settings: ConsoleSettings) -> str:
    """Scheme and host of the address that the browser has; on this machine a port may be chosen at the start."""
    host = settings.opened_at.netloc if settings.url else request.headers.get("host", "")
    return f"{settings.opened_at.scheme}://{host}"
