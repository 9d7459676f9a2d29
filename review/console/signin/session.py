"""The session in a signed cookie, and the form token that is bound to it.

Starlette's SessionMiddleware signs the cookie (HttpOnly, SameSite=Lax). Its content can be read by its owner, so it has
nothing secret but the state of a sign-in that is under way.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from hashlib import sha256
from typing import Any

from starlette.requests import Request

from review.console.errors import Forbidden
from review.console.settings import ConsoleSettings
from review.console.signin.identity import Identity

_ID, _USER, _GROUPS, _UNTIL = "id", "user", "groups", "until"


class Sessions:
    """Begins and ends sessions, and binds forms to them."""

    def __init__(self, settings: ConsoleSettings, key: str) -> None:
        self._settings, self._key = settings, key.encode()
        self._ended: dict[str, float] = {}  # session id -> until when its cookie would be valid
        self._lock = threading.Lock()

    def user(self, request: Request) -> tuple[str, tuple[str, ...]] | None:
        """The user who signed in and the groups; None without one, or where the session is over."""
        session: dict[str, Any] = request.session
        if not session.get(_USER) or session.get(_UNTIL, 0) < time.time() or session.get(_ID) in self._ended:
            return None
        return str(session[_USER]), tuple(session.get(_GROUPS, ()))

    def begin(self, request: Request, user: str, groups: tuple[str, ...]) -> None:
        """Begin a session of a user who has signed in, with a new id."""
        until = time.time() + self._settings.session_hours * 3600
        request.session.clear()
        request.session.update({_ID: secrets.token_urlsafe(16), _USER: user, _GROUPS: list(groups), _UNTIL: until})

    def end(self, request: Request) -> None:
        """End the session: this process does not accept its cookie any more, wherever a copy of it is.

        Other processes with the same key accept a copy until its time is over.
        """
        with self._lock:
            now = time.time()
            self._ended = {each: until for each, until in self._ended.items() if until > now}
            if identifier := request.session.get(_ID):
                self._ended[identifier] = request.session.get(_UNTIL, now)
        request.session.clear()

    def form_token(self, request: Request, identity: Identity) -> str:
        """The token that a form of this session and user carries."""
        if _ID not in request.session:
            request.session[_ID] = secrets.token_urlsafe(16)
        return self._token(request.session[_ID], identity)

    def check_form(self, request: Request, identity: Identity, token: str) -> None:
        """Refuse a form that does not come from a page of this session.

        Raises:
            Forbidden: another site sent it, or the token is of another session or user.
        """
        headers = request.headers
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        own_origin = origin is None or self._settings.is_own_origin(origin, headers.get("host", ""))
        if site not in (None, "same-origin") or not own_origin:
            raise Forbidden(
                "another site sent this form",
                expected="a form of this console",
                found=f"one from {origin or site}",
                hint="open the page in the console and send its form",
            )
        identifier = request.session.get(_ID, "")
        if not identifier or not hmac.compare_digest(self._token(identifier, identity).encode(), token.encode()):
            raise Forbidden(
                "this form is not of your session",
                expected="the form token of this session",
                found="another one" if token else "none",
                hint="the session may have ended: open the page again and send the form again",
            )

    def _token(self, identifier: str, identity: Identity) -> str:
        return hmac.new(self._key, f"{identifier}\n{identity.name}".encode(), sha256).hexdigest()
