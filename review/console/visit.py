"""One request to the console: who sends it, the registry as it is now, and the response in the form they ask for."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any

from fastapi import Depends
from fastapi.encoders import jsonable_encoder
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from rankline.errors import RanklineError
from rankline.registry.registry_state import Event
from review.console.forms import read_form
from review.console.rendering import Pages
from review.console.servers import Servers
from review.console.settings import ConsoleSettings
from review.console.signin.access import Access
from review.console.signin.identity import Identity, Role
from review.console.snapshots import Snapshot, Snapshots
from review.desk import Desk


@dataclass(frozen=True, kw_only=True)
class Console:
    """What the routes share."""

    desk: Desk
    settings: ConsoleSettings
    access: Access
    snapshots: Snapshots
    servers: Servers
    pages: Pages


@dataclass
class Visit:
    """A request of somebody who may send it."""

    request: Request
    console: Console
    identity: Identity
    form: dict[str, str] = field(default_factory=dict)

    @cached_property
    def snapshot(self) -> Snapshot:
        """The registry as it is now."""
        return self.console.snapshots.now()

    @property
    def wants_json(self) -> bool:
        return wants_json(self.request)

    def page(self, template: str, *, status: int = 200, **content: Any) -> Response:
        """A page, or its content as JSON where that is asked for."""
        if self.wants_json and isinstance(content.get("error"), RanklineError):
            raise content["error"]
        if self.wants_json:
            return JSONResponse(jsonable_encoder(content), status_code=status)
        context = {
            "me": self.identity,
            "warning": self.snapshot.warning,
            "waiting": len(self.snapshot.waiting),
            "path": self.request.url.path,
            "token": self.console.access.sessions.form_token(self.request, self.identity),
            "can_sign_out": self.console.settings.auth == "oidc" and not self.identity.is_script,
            "notes": self.request.session.pop("notes", []),
            **content,
        }
        return HTMLResponse(self.console.pages.render(template, context), status_code=status)

    def done(self, event: Event, path: str, notes: list[str]) -> Response:
        """The response to an action: the page that shows its event, or the event itself."""
        if self.wants_json:
            return JSONResponse({**event.model_dump(mode="json"), "warnings": notes})
        if notes:
            self.request.session["notes"] = notes
        return RedirectResponse(self.console.pages.link(path, event=event.n), status_code=303)


def wants_json(request: Request) -> bool:
    """Whether JSON comes first in what the client accepts."""
    accepted = request.headers.get("accept", "").partition(",")[0]
    return accepted.partition(";")[0].strip() == "application/json"


def console_of(request: Request) -> Console:
    """The console of the application that a request came to."""
    console: Console = request.app.state.console
    return console


def identity_of(request: Request) -> Identity:
    """Who sends a request."""
    return console_of(request).access.identity(request)


def _visit_as(role: Role, request: Request) -> Visit:
    """A request of somebody who has this role."""
    console, identity = console_of(request), identity_of(request)
    console.access.require(identity, role)
    return Visit(request, console, identity)


def _viewer(request: Request) -> Visit:
    """Somebody who may read."""
    return _visit_as("viewer", request)


def _actor(role: Role) -> Any:
    """Somebody who may act, with a form of their own session; a script's token needs none."""

    def permitted(request: Request) -> Visit:
        return _visit_as(role, request)

    permission, body = Depends(permitted), Depends(read_form)

    # in this order: nothing reads the body of a request that nobody may send
    def with_form(visit: Visit = permission, form: dict[str, str] = body) -> Visit:
        if not visit.identity.is_script:
            visit.console.access.sessions.check_form(visit.request, visit.identity, form.get("token", ""))
        visit.form = form
        return visit

    return Depends(with_form)


Viewer = Annotated[Visit, Depends(_viewer)]
Reviewer = Annotated[Visit, _actor("reviewer")]
Operator = Annotated[Visit, _actor("operator")]
