"""A stand-in of an image registry on a real port: which manifests it has, and a token for those who may read them."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USER, PASSWORD, TOKEN = "reader", "pa55-not-to-be-seen", "a-token-not-to-be-seen"


@dataclass
class Registry:
    """What the registry has, and whom it answers."""

    address: str = ""
    images: set[str] = field(default_factory=set)  # name@sha256:…
    challenge: str = ""  # Bearer or Basic; empty: anyone may read
    anonymous_token: bool = False
    status: int = 0  # in place of every answer

    def put(self, name: str) -> str:
        """An image that it has, as a recipe names it."""
        image = f"{name}@sha256:{'a' * 64}"
        self.images.add(image)
        return f"{self.address}/{image}"


@contextlib.contextmanager
def image_registry() -> Iterator[Registry]:
    """The registry, without images."""
    registry = Registry()
    basic = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            name, _, digest = self.path.removeprefix("/v2/").partition("/manifests/")
            wanted = {"Bearer": f"Bearer {TOKEN}", "Basic": basic, "": None}[registry.challenge]
            if registry.status:
                self._answer(registry.status)
            elif wanted and self.headers.get("Authorization") != wanted:
                realm = f'realm="http://{registry.address}/token",service="registry",scope="repository:{name}:pull"'
                self._answer(401, challenge=f"{registry.challenge} {realm}")
            else:
                self._answer(200 if f"{name}@{digest}" in registry.images else 404)

        def do_GET(self) -> None:
            allowed = registry.anonymous_token or self.headers.get("Authorization") == basic
            self._answer(200 if allowed else 401, json.dumps({"token": TOKEN} if allowed else {}).encode())

        def _answer(self, status: int, content: bytes = b"", challenge: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            if challenge:
                self.send_header("WWW-Authenticate", challenge)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    registry.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
