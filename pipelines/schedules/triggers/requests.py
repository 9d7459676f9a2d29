"""Requests for a firing, as a webhook left them: `schedules/NAME/need/requests/`.

A request waits there until it starts a run. Several that wait start one run together. The file of one that was served
stays as long as its sender may repeat it, so that a recorded request starts nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from pipelines.schedules.triggers.observation import Observation
from pipelines.schedules.triggers.spec import Trigger
from pipelines.schedules.triggers.subject import Subject
from rankline.contracts import FrozenModel
from rankline.io.files import create_exclusively

REQUESTS = "requests"
MAX_WHY = 200
REMEMBERED = timedelta(days=1)


class Request(FrozenModel):
    """A request for a firing."""

    at: str
    trigger: str
    why: str = ""

    @property
    def instant(self) -> datetime:
        """When it came."""
        return datetime.fromisoformat(self.at)


def leave_request(folder: Path, message_id: str, request: Request) -> bool:
    """Leave a request; False where the message has been received before."""
    name = hashlib.sha256(message_id.encode()).hexdigest()[:32]
    path = folder / REQUESTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.with_suffix(".served").exists():
        return False
    return create_exclusively(path, request.model_dump_json().encode() + b"\n", durable=True)


def waiting_requests(folder: Path) -> list[tuple[Path, Request]]:
    """The requests that wait, oldest first."""
    requests = []
    for path in (folder / REQUESTS).glob("*.json"):
        with contextlib.suppress(OSError, ValidationError, ValueError):
            requests.append((path, Request.model_validate_json(path.read_bytes())))
    return sorted(requests, key=lambda each: (each[1].at, each[0].name))


def mark_served(paths: list[Path], *, now: datetime) -> None:
    """Note that these requests have started a run, and forget old ones."""
    for path in paths:
        path.rename(path.with_suffix(".served"))
    for path in {each for first in paths[:1] for each in first.parent.glob("*.served")}:
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < (now - REMEMBERED).timestamp():
                path.unlink()


def describe(requests: list[tuple[Path, Request]]) -> str:
    """Why these requests start a run."""
    first = requests[0][1]
    more = f", and {len(requests) - 1} more requests" if len(requests) > 1 else ""
    return f"{first.trigger}: {first.why or 'no reason given'}{more}"


def observe_webhook(trigger: Trigger, subject: Subject) -> Observation:
    """How many requests wait; the scheduler serves them at once, and no check does."""
    waiting = [each for _, each in waiting_requests(subject.folder) if each.trigger == str(trigger)]
    return Observation(
        trigger=str(trigger),
        observed=f"{len(waiting)} requests wait",
        threshold="1 request",
        why="the scheduler starts a run when a request comes, and no check does",
    )
