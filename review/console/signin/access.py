"""Who sends a request: a script with a token, or a user by the console's way to sign in."""

from __future__ import annotations

from starlette.requests import Request

from rankline.errors import UsageError
from rankline.runtime.current_user import current_user
from review.console.errors import Forbidden, Misconfigured, NotSignedIn
from review.console.settings import ConsoleSettings
from review.console.signin import proxy
from review.console.signin.identity import Identity, Role
from review.console.signin.roles import Roles, read_roles
from review.console.signin.session import Sessions
from review.console.signin.tokens import PREFIX, TokenFile, read_tokens
from review.console.signin.watched_file import Content, WatchedFile


class Access:
    """Tells who sends a request and what they may do; roles and tokens are those of the files now."""

    def __init__(self, settings: ConsoleSettings, sessions: Sessions) -> None:
        self._settings, self.sessions = settings, sessions
        self._roles = WatchedFile(settings.roles, read_roles) if settings.roles else None
        self._tokens = WatchedFile(settings.tokens, read_tokens) if settings.tokens else None

    def check_files(self) -> None:
        """Read both files once, so that a console does not start with one that it cannot use.

        Raises:
            UsageError: one cannot be read.
        """
        for file in (self._roles, self._tokens):
            if file is not None:
                file.content()

    def roles(self) -> Roles:
        """The roles now; without a file nobody has one but the user of this machine.

        Raises:
            Misconfigured: the file cannot be read any more; nobody keeps a role that it may have taken away.
        """
        return _now(self._roles, Roles())

    def identity(self, request: Request) -> Identity:
        """Who sends this request.

        Raises:
            NotSignedIn: nobody is signed in, or the token is none.
            Forbidden: the request is for another host, or claims a user without the right to.
        """
        script = self._script(request)
        if script is not None:
            return script
        self.refuse_other_hosts(request)
        if self._settings.auth == "none":
            user = current_user()
            return Identity(name=user, role=self.roles().role(user, ()) if self._roles else "operator")
        if self._settings.auth == "proxy":
            user, groups = proxy.user_of(request, self._settings.proxy)
        else:
            signed_in = self.sessions.user(request)
            if signed_in is None:
                raise NotSignedIn(
                    "you are not signed in", expected="a session", found="none, or one that is over", hint="sign in"
                )
            user, groups = signed_in
        return Identity(name=user, role=self.roles().role(user, groups), groups=groups)

    def require(self, identity: Identity, role: Role) -> None:
        """Refuse who does not have this role or a higher one.

        Raises:
            Forbidden: the identity has not.
        """
        if not identity.may(role):
            own = f"{identity.name} is {identity.role}" if identity.role else f"{identity.name} has no role"
            raise Forbidden(
                "you may not do this" if identity.role else "you have no role in this console",
                expected=f"the role {role}",
                found=own,
                hint=f"ask {self.roles().contact}",
            )

    def _script(self, request: Request) -> Identity | None:
        """The script of a request with a token; None without one. A proxy may add bearer tokens of its own."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        token = token.strip()
        if not scheme or (self._settings.auth == "proxy" and not token.startswith(PREFIX)):
            return None
        identity = _now(self._tokens, TokenFile()).identity(token) if scheme.lower() == "bearer" else None
        if identity is None:
            raise NotSignedIn(
                "this token is not one of the console's",
                expected="Authorization: Bearer with a token of `rankline review token`",
                found="a token that was revoked or never was one",
                hint="rankline review token NAME --role viewer",
            )
        return identity

    def refuse_other_hosts(self, request: Request) -> None:
        """Refuse a request for a name that is not this console's, as somebody's name that points at this machine.

        Raises:
            Forbidden: it has another Host header.
        """
        host = request.headers.get("host", "")
        if not self._settings.is_own_host(host):
            raise Forbidden(
                "this console has another address",
                expected=self._settings.opened_at.netloc,
                found=host[:200] or "no Host header",
                hint="open that address; --url says which it is",
            )


def _now(file: WatchedFile[Content] | None, otherwise: Content) -> Content:
    """The content of a file as it is now."""
    try:
        return file.content() if file is not None else otherwise
    except UsageError as error:
        raise Misconfigured(
            error.message, expected=error.expected, found=error.found, hint="whoever runs the console can mend the file"
        ) from error
