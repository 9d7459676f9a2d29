"""The scheduler's port: who may start a run, and what is refused."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import urllib3

from pipelines.schedules.store import ScheduleStore
from pipelines.schedules.triggers.listener import MAX_BODY_BYTES, listening, missing_keys
from pipelines.schedules.triggers.requests import waiting_requests
from rankline.errors import ServerError
from rankline.notifications.signature import signed_headers

KEY = "whsec_" + base64.b64encode(b"k" * 32).decode()
BODY = b'{"why": "new prices\\u001b[2J"}'


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A port that listens for the schedule `fresh`, and one of the schedule `clock` without triggers."""
    monkeypatch.setenv("DEPLOY_KEY", KEY)
    store = ScheduleStore(tmp_path)
    for name, when in (("fresh", ("webhook:UNSET_KEY", "webhook:DEPLOY_KEY")), ("clock", ("code",))):
        store.create({"name": name, "recipe": "smoke", "when": when}, now=datetime.now(UTC))
    (problem,) = missing_keys(store)
    assert problem.startswith("fresh: UNSET_KEY holds no key")
    with listening(store, "127.0.0.1", 0) as address:
        yield address


def post(address: str, headers: dict[str, str], body: bytes = BODY, *, path: str = "/schedules/fresh/fire") -> int:
    response = urllib3.request("POST", address + path, body=body, headers=headers, retries=False, timeout=20)
    assert json.loads(response.data)["message"]
    return response.status


def signed(body: bytes = BODY, *, message: str = "m1", age_s: int = 0, key: bytes = b"k" * 32) -> dict[str, str]:
    return signed_headers(body, key=key, message_id=message, timestamp=int(time.time()) - age_s)


def waiting(workspace: Path) -> list[tuple[str, str]]:
    return [(each.trigger, each.why) for _, each in waiting_requests(workspace / "schedules/fresh/need")]


def test_a_signed_request_is_left_for_the_scheduler_once(port: str, tmp_path: Path) -> None:
    headers = signed()
    assert [post(port, headers), post(port, headers)] == [202, 200]
    assert waiting(tmp_path) == [("webhook:DEPLOY_KEY", "new prices[2J")]
    assert post(port, signed(b"", message="m2"), b"") == 202
    assert post(port, {"Authorization": f"Bearer {KEY}"}) == 202
    assert len(waiting(tmp_path)) == 3


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        ({}, "/schedules/fresh/fire"),
        (signed(key=b"x" * 32), "/schedules/fresh/fire"),
        (signed(b"{}"), "/schedules/fresh/fire"),
        (signed(age_s=301), "/schedules/fresh/fire"),
        (signed(age_s=-7200), "/schedules/fresh/fire"),
        ({**signed(), "webhook-timestamp": "soon"}, "/schedules/fresh/fire"),
        ({**signed(), "webhook-id": "another"}, "/schedules/fresh/fire"),
        ({"Authorization": "Bearer "}, "/schedules/fresh/fire"),
        ({"Authorization": f"Bearer {KEY[:-1]}"}, "/schedules/fresh/fire"),
        (signed(), "/schedules/clock/fire"),
        (signed(), "/schedules/none/fire"),
        (signed(), "/schedules/..%2F..%2Fetc/fire"),
    ],
)
def test_without_the_key_of_the_schedule_nothing_is_left(
    port: str, tmp_path: Path, headers: dict[str, str], path: str
) -> None:
    assert post(port, headers, path=path) == 401
    assert waiting(tmp_path) == []


def test_what_is_no_request_is_refused(port: str, tmp_path: Path) -> None:
    assert post(port, signed(), path="/") == 404
    assert post(port, signed(b"[]"), b"[]") == 400
    large = b" " * (MAX_BODY_BYTES + 1)
    assert post(port, signed(large), large) == 413
    ScheduleStore(tmp_path).update("fresh", {"paused": True}, now=datetime.now(UTC))
    assert post(port, signed()) == 409
    assert waiting(tmp_path) == []


def test_a_port_in_use_is_refused(port: str, tmp_path: Path) -> None:
    with (
        pytest.raises(ServerError, match="cannot listen"),
        listening(ScheduleStore(tmp_path), "127.0.0.1", int(port.rpartition(":")[2])),
    ):
        pass


def test_no_secret_is_stored(port: str, tmp_path: Path) -> None:
    post(port, {"Authorization": f"Bearer {KEY}"})
    assert os.environ["DEPLOY_KEY"] == KEY
    assert KEY.encode() not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
