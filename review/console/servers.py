"""What the running servers say of themselves."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx

from rankline.contracts import FrozenModel
from rankline.errors import UsageError
from rankline.io.files import first_line
from review.console.settings import LOOPBACK_NAMES

_TIMEOUT_S = 1.0


class ServerHealth(FrozenModel):
    """A server's answer to /readyz; ``problem`` is empty if it serves."""

    url: str
    model_id: str = ""
    revision: str = ""
    provider: str = ""
    precision: str = ""
    hidden: int = 0
    features: str = ""
    problem: str = ""

    def serves(self, model_id: str) -> bool:
        """Whether it answers with this model."""
        return not self.problem and self.model_id == model_id


class Servers:
    """The servers that the console was started with."""

    def __init__(self, urls: Sequence[str]) -> None:
        for url in urls:
            if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
                raise UsageError("--server is not an address", expected="http://HOST:PORT", found=url)
        self._urls = [url.rstrip("/") for url in urls]

    def health(self) -> list[ServerHealth]:
        """The health of every server, asked at the same time."""
        if not self._urls:
            return []
        with ThreadPoolExecutor(max_workers=min(len(self._urls), 16)) as pool:
            return list(pool.map(_health, self._urls))


def _health(url: str) -> ServerHealth:
    is_local = urlsplit(url).hostname in LOOPBACK_NAMES  # a proxy cannot reach these
    try:
        payload = httpx.get(f"{url}/readyz", timeout=_TIMEOUT_S, trust_env=not is_local).json()
        features, refused = payload.get("features") or {}, payload.get("refused")
        problem = payload.get("repository_error") or ("" if payload["ready"] else "it has no model yet")
        if refused:
            problem = f"it cannot serve model {refused['model_id']}: {refused['reason']}"
        return ServerHealth(
            url=url,
            model_id=payload.get("model_id") or "",
            revision=payload.get("revision") or "",
            provider=payload.get("provider") or "",
            precision=payload.get("precision") or "",
            hidden=payload.get("hidden", 0),
            features=" ".join(filter(None, (features.get("state"), features.get("why")))),
            problem=problem,
        )
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError, AttributeError) as error:
        return ServerHealth(url=url, problem=f"it does not answer: {first_line(error)[:200]}")
