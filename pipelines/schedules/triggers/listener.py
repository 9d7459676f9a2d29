"""The scheduler's port for webhooks: `POST /schedules/NAME/fire`, signed as rankline/notifications/signature.py says.

A request is accepted if its signature fits the key of a trigger `webhook:VARIABLE` of the schedule, or if it has the
key itself as a bearer token. It is left for the scheduler, which decides when the run starts. An answer does not say
which schedules there are to whoever has no key.
"""

from __future__ import annotations

import hmac
import json
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pipelines.schedules.store import ScheduleStore
from pipelines.schedules.triggers.observation import FOLDER
from pipelines.schedules.triggers.requests import MAX_WHY, Request, leave_request
from rankline.errors import RanklineError, ServerError, UsageError
from rankline.notifications.signature import is_signed, signing_key

MAX_BODY_BYTES = 65_536
TIMEOUT_S = 10.0
MAX_CONNECTIONS = 32
_REFUSED = HTTPStatus.UNAUTHORIZED, "a signature with the key of this schedule's trigger is expected"
Answer = tuple[HTTPStatus, str]


def receive(store: ScheduleStore, path: str, headers: Mapping[str, str], body: bytes, *, now: datetime) -> Answer:
    """Check a request and leave it for the scheduler; the answer to its sender."""
    parts = path.strip("/").split("/")
    if len(parts) != 3 or (parts[0], parts[2]) != ("schedules", "fire"):
        return HTTPStatus.NOT_FOUND, "POST to /schedules/NAME/fire"
    name = parts[1]
    trigger = _accepted_trigger(store, name, headers, body, now)
    if not trigger:
        return _REFUSED
    if store.get(name).paused:
        return HTTPStatus.CONFLICT, f"schedule {name} is paused"
    try:
        why = str((json.loads(body) if body else {}).get("why", ""))
    except (ValueError, AttributeError):
        return HTTPStatus.BAD_REQUEST, 'the body is empty, or a JSON object such as {"why": "new prices"}'
    why = " ".join("".join(c for c in why if c.isprintable()).split())[:MAX_WHY]
    message_id = headers.get("webhook-id") or uuid.uuid4().hex
    request = Request(at=now.isoformat(), trigger=trigger, why=why)
    if not leave_request(store.folder / name / FOLDER, message_id, request):
        return HTTPStatus.OK, "received before"
    return HTTPStatus.ACCEPTED, f"`rankline schedule show {name}` says what becomes of it"


def _accepted_trigger(store: ScheduleStore, name: str, headers: Mapping[str, str], body: bytes, now: datetime) -> str:
    """The trigger whose key the request has; empty where there is none."""
    if name not in store.names():
        return ""
    try:
        triggers = [each for each in store.get(name).triggers if each.kind == "webhook"]
    except RanklineError:
        return ""
    token = headers.get("authorization", "").removeprefix("Bearer ").encode(errors="replace")
    for trigger in triggers:
        try:
            key = signing_key(trigger.subject)
        except UsageError:  # see `missing_keys`
            continue
        is_bearer = hmac.compare_digest(token, os.environ[trigger.subject].encode())
        if is_signed(headers, body, key=key, now=now.timestamp()) or is_bearer:
            return str(trigger)
    return ""


def missing_keys(store: ScheduleStore) -> list[str]:
    """What is wrong with the keys of the schedules' triggers: a request for such a trigger is refused."""
    problems = []
    for name in store.names():
        with suppress(RanklineError):  # one that cannot be read is reported elsewhere
            variables = [each.subject for each in store.get(name).triggers if each.kind == "webhook"]
            for variable in variables:
                try:
                    signing_key(variable)
                except UsageError as error:
                    problems.append(f"{name}: {error}")
    return problems


@contextmanager
def listening(
    store: ScheduleStore, host: str, port: int, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Iterator[str]:
    """Receive webhooks in threads while the block runs; the address.

    Raises:
        ServerError: the port is in use.
    """
    connections = threading.BoundedSemaphore(MAX_CONNECTIONS)

    class Handler(BaseHTTPRequestHandler):
        timeout = TIMEOUT_S

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not length.isascii() or not length.isdigit() or int(length[:9]) > MAX_BODY_BYTES:
                self.answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body of at most {MAX_BODY_BYTES} bytes")
                return
            with connections:
                headers = {name.lower(): value for name, value in self.headers.items()}
                try:
                    answer = receive(store_of_thread(), self.path, headers, self.rfile.read(int(length)), now=now())
                except (RanklineError, OSError):
                    answer = HTTPStatus.SERVICE_UNAVAILABLE, "the request cannot be stored; send it again"
                self.answer(*answer)

        def answer(self, status: HTTPStatus, text: str) -> None:
            content = json.dumps({"status": status.phrase.lower(), "message": text}).encode() + b"\n"
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(content)

        def version_string(self) -> str:
            return "rankline"

        def log_message(self, *arguments: Any) -> None:
            """Nothing: a request may hold a secret."""

    def store_of_thread() -> ScheduleStore:
        return ScheduleStore(store.workspace)  # its cache is for one thread

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except (OSError, OverflowError) as error:
        raise ServerError(
            f"the scheduler cannot listen on {host}:{port}",
            expected="a free port",
            found=getattr(error, "strerror", None) or str(error),
            hint="give another port to --listen",
        ) from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
