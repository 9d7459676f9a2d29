"""An OpenID Connect issuer on a real port, small enough to lie in one respect at a time."""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

CLIENT, SECRET = "console", "a secret of the console's client"


@dataclass
class Issuer:
    """What the issuer says of the user who signs in, and how it lies."""

    url: str = ""
    userinfo: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)  # claims; None leaves one out
    signed_by: str = "own"  # another: a key that is not in the JWKS; secret: HS256; none: not at all
    state: str = ""  # that is sent back instead of the right one
    refusal: str = ""  # an error in place of a code
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "own", "use": "sig"}))
    other_key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "own", "use": "sig"}))

    def honest(self, **userinfo: Any) -> None:
        """Forget every lie; the user is the one given."""
        self.userinfo, self.overrides, self.signed_by, self.state, self.refusal = userinfo, {}, "own", "", ""

    def configuration(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
        }

    def authorize(self, query: dict[str, str]) -> str:
        """Where the browser is sent after the user has signed in."""
        assert query["client_id"] == CLIENT
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        assert "openid" in query["scope"].split()
        answer = {"state": self.state or query["state"]}
        if self.refusal:
            return f"{query['redirect_uri']}?{urlencode({**answer, 'error': self.refusal})}"
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        return f"{query['redirect_uri']}?{urlencode({**answer, 'code': code})}"

    def token(self, form: dict[str, str], authorization: str) -> dict[str, Any] | None:
        """The tokens for a code; None if the client, the code, the redirection or the verifier is wrong."""
        basic = base64.b64encode(f"{CLIENT}:{SECRET.replace(' ', '%20')}".encode()).decode()
        plain = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        query = self.codes.pop(form.get("code", ""), None)
        if authorization not in (f"Basic {basic}", f"Basic {plain}") or query is None:
            return None
        digest = sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if challenge != query["code_challenge"] or form.get("redirect_uri") != query["redirect_uri"]:
            return None
        now = int(time.time())
        payload = {
            "iss": self.url, "aud": CLIENT, "sub": "1", "iat": now, "exp": now + 300, "nonce": query["nonce"],
            **self.userinfo, **self.overrides,
        }  # fmt: skip
        payload = {name: value for name, value in payload.items() if value is not None}
        return {"access_token": "opaque", "token_type": "Bearer", "id_token": self._signed(payload)}

    def _signed(self, payload: dict[str, Any]) -> str:
        if self.signed_by == "none":
            return f"{_base64({'alg': 'none'})}.{_base64(payload)}."
        if self.signed_by == "secret":
            return jwt.encode({"alg": "HS256"}, payload, OctKey.import_key(SECRET))
        key = self.key if self.signed_by == "own" else self.other_key
        return jwt.encode({"alg": "RS256", "kid": "own"}, payload, key)


def _base64(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


@contextmanager
def running_issuer() -> Iterator[Issuer]:
    """An issuer on a free port."""
    issuer = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path == "/authorize":
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                self.send_response(302)
                self.send_header("Location", issuer.authorize(query))
                self.end_headers()
            elif parts.path == "/.well-known/openid-configuration":
                self._json(200, issuer.configuration())
            else:
                self._json(200, {"keys": [issuer.key.as_dict(private=False)]})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            tokens = issuer.token(form, self.headers.get("Authorization", ""))
            self._json(200 if tokens else 400, tokens or {"error": "invalid_grant"})

        def _json(self, status: int, content: object) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
