"""The headers of every response: nothing runs, nothing is loaded from elsewhere, nothing is stored."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_SECURITY_POLICY = "content-security-policy"
PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; frame-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
# an evidence page has its styles and pictures in it, may be shown in a page of the console, and runs nothing
EVIDENCE_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; form-action 'none'; "
    "frame-ancestors 'self'; base-uri 'none'"
)
_ALWAYS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with no-referrer browsers hide the origin of forms, which is checked
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


class StrictHeaders:
    """Wraps the whole application, so that error responses have the headers too."""

    def __init__(self, app: ASGIApp, *, https: bool, base_path: str) -> None:
        self._app, self._base = app, base_path
        self._headers = {**_ALWAYS, **({"strict-transport-security": "max-age=31536000"} if https else {})}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault(CONTENT_SECURITY_POLICY, PAGE_POLICY)
                for name, value in self._headers.items():
                    headers[name] = value
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._base and scope["path"].startswith(f"{self._base}/"):  # some proxies remove it, some do not
            path = scope["path"].removeprefix(self._base)
            scope = {**scope, "path": path, "raw_path": path.encode()}
        await self._app(scope, receive, send_with_headers)
