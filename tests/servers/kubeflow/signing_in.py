"""The gateway in front of the server, where people sign in: dex's pages, a cookie, a token."""

from __future__ import annotations

import html
import urllib.parse
from typing import TYPE_CHECKING

from tests.servers.kubeflow.answers import Refused

if TYPE_CHECKING:
    from tests.servers.kubeflow.api import Api
    from tests.servers.kubeflow.handler import Handler

TOKEN, USER, PASSWORD = "a-token-not-to-be-seen", "user@example.com", "pa55-not-to-be-seen"

# the page of a login, as dex writes one: a choice, a form, an approval
_CHOICE = '<html><body><a href="/dex/auth/local?state={s}">Log in with Email</a></body></html>'
_LOGIN = (
    '<html><body><form method="post" action="/dex/auth/local/login?state={s}"><input name="login"/>'
    '<input name="password" type="password"/></form></body></html>'
)
_APPROVAL = (
    '<html><body><form method="post" action="/dex/approval?state={s}"><input type="hidden" name="req" value="{s}"/>'
    '<input type="hidden" name="approval" value="approve"/></form></body></html>'
)


def let_in(api: Api, handler: Handler) -> bool:
    """Whether somebody may ask; otherwise they have been sent to sign in."""
    if api.auth == "token":
        if handler.headers.get("authorization") != f"Bearer {TOKEN}":
            raise Refused(401, "Request header error: there is no user identity header")
    elif api.auth == "cookie" and (api.expired or api.session not in (handler.headers.get("Cookie") or "")):
        handler.answer(302, "", "text/html", Location="/dex/auth?state=s1")
        return False
    return True


def dex(api: Api, handler: Handler, path: str, query: dict[str, str], body: bytes) -> None:
    """A page of dex."""
    state = html.escape(query.get("state", "s1"))
    form = urllib.parse.parse_qs(body.decode())
    if path == "/dex/auth":
        handler.answer(200, _CHOICE.format(s=state), "text/html")
    elif path == "/dex/auth/local":
        handler.answer(302, "", "text/html", Location=f"/dex/auth/local/login?state={state}")
    elif path == "/dex/auth/local/login" and handler.command == "GET":
        handler.answer(200, _LOGIN.format(s=state), "text/html")
    elif path == "/dex/auth/local/login":
        if form.get("login") != [USER] or form.get("password") != [PASSWORD]:
            return handler.answer(401, _LOGIN.format(s=state), "text/html")
        handler.answer(303, "", "text/html", Location=f"/dex/approval?state={state}")
    elif path == "/dex/approval" and handler.command == "GET":
        handler.answer(200, _APPROVAL.format(s=state), "text/html")
    elif path == "/dex/approval":
        fits = form.get("approval") == ["approve"] and form.get("req") == [state]
        handler.answer(303 if fits else 400, "", "text/html", Location="/callback")
    else:
        api.expired = False
        handler.answer(302, "", "text/html", Set_Cookie=f"{api.session}; Path=/", Location="/pipeline/")
    return None
