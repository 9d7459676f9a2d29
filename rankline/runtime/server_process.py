"""The real server as a child process: started on a bundle, queried, and always stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from rankline.errors import ServerError

LOG_LINES = 15
MAX_BODY_MB = 1024  # a replayed request has the features of the whole catalogue
AUTO = "auto"  # the provider that the server starts with by itself


@dataclass(frozen=True)
class Server:
    """A running server: its process, an HTTP client and its log."""

    process: subprocess.Popen[bytes]
    http: httpx.Client
    log: Path

    def post(self, route: str, body: bytes) -> dict[str, Any]:
        """The response to one request.

        Raises:
            ServerError: there is no response, or not one with status 200; with the last lines of the log.
        """
        try:
            response = self.http.post(route, content=body, headers={"content-type": "application/json"})
        except httpx.HTTPError as error:
            code = self.process.poll()
            cause = f"it ended with exit code {code}" if code is not None else type(error).__name__
            expected = f"a response to POST {route}"
            raise _server_error("the server stopped responding", expected, cause, self.log) from error
        if response.status_code != 200:
            cause = f"{response.status_code}: {response.text[:500]}"
            raise _server_error("the server refused a request", f"200 to POST {route}", cause, self.log)
        payload: dict[str, Any] = json.loads(response.content)
        return payload

    def provider(self) -> str | None:
        """Where its graphs run, `cpu` or `cuda`; None if it does not say."""
        try:
            provider = self.http.get("/readyz").json().get("provider")
        except (httpx.HTTPError, ValueError):
            return None
        return str(provider) if provider else None

    def memory_bytes(self) -> int | None:
        """The resident memory of the process; None once it has ended."""
        try:
            return int(psutil.Process(self.process.pid).memory_info().rss)
        except psutil.NoSuchProcess:
            return None


@contextmanager
def serving(
    bundle: Path,
    *,
    folder: Path,
    precision: str,
    start_timeout_s: float,
    request_timeout_s: float,
    connections: int,
    provider: str = AUTO,
) -> Iterator[Server]:
    """Run ``python -m serving`` on a bundle while the block runs; its log stays in ``folder``.

    Raises:
        ServerError: the server ended or was not ready in time, or its graphs do not run on the ``provider``; with the
            last lines of the log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log, ready = folder / "server.log", folder / "ready.json"
    command = [sys.executable, "-P", "-m", "serving", "--bundle", str(bundle), "--precision", precision]
    command += ["--port", "0", "--ready-file", str(ready), "--max-body-mb", str(MAX_BODY_MB)]
    command += [] if provider == AUTO else ["--provider", provider]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
    try:
        url = _wait_until_ready(process, ready, log, timeout_s=start_timeout_s)
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        # trust_env: a proxy from the environment must not come between this process and its child
        with httpx.Client(base_url=url, timeout=request_timeout_s, limits=limits, trust_env=False) as http:
            server = Server(process, http, log)
            _require_provider(server, provider)
            yield server
    finally:
        _stop(process)
        ready.unlink(missing_ok=True)


def _require_provider(server: Server, provider: str) -> None:
    """Refuse a server that fell back to another provider: its figures say nothing of the one that serves."""
    actual = server.provider()
    if provider not in (AUTO, actual):
        cause = f"they run on {actual or 'an unknown provider'}"
        raise _server_error("the server fell back to another provider", f"graphs on {provider}", cause, server.log)


def tail_log(log: Path, count: int = LOG_LINES) -> str:
    """The last lines of a log."""
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    return "\n".join(lines[-count:]) or "(its log is empty)"


def _wait_until_ready(process: subprocess.Popen[bytes], ready: Path, log: Path, *, timeout_s: float) -> str:
    """The server's URL, once the server has written it."""
    deadline = time.monotonic() + timeout_s
    expected = f"ready within {timeout_s:.0f} s"
    while time.monotonic() < deadline:
        if (code := process.poll()) is not None:
            raise _server_error("the server did not start", expected, f"it ended with exit code {code}", log)
        if ready.is_file():
            return str(json.loads(ready.read_text())["url"])
        time.sleep(0.05)
    raise _server_error("the server did not start", expected, "still not ready", log)


def _stop(process: subprocess.Popen[bytes], *, timeout_s: float = 10.0) -> None:
    """Terminate the process, or kill it if it does not end."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _server_error(message: str, expected: str, cause: str, log: Path) -> ServerError:
    return ServerError(
        message,
        expected=expected,
        found=f"{cause}; the last lines of its log:\n{tail_log(log)}",
        where=str(log),
        hint="start it by hand: python -m serving --bundle <folder of the bundle>",
    )
