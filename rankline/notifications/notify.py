"""Send notices to everyone who asked for them, in bounded time; a failure is one sentence and never an error."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankline.errors import StorageError
from rankline.io.files import first_line
from rankline.notifications import spool
from rankline.notifications.config import NotifyConfig
from rankline.notifications.delivery import DELIVERED
from rankline.notifications.notice import Notice, notice_of_event, notice_of_failed_run
from rankline.notifications.spool import Entry
from rankline.notifications.targets import Target, targets
from rankline.registry.registry_state import Event
from rankline.runtime.run_summary import why_started

if TYPE_CHECKING:
    from rankline.runtime.bucket_workspace import BucketWorkspace


@dataclass(frozen=True)
class Resent:
    """What `resend` did: how many were delivered, how many wait for a receiver of other settings, what failed."""

    delivered: int = 0
    waiting: int = 0
    problems: tuple[str, ...] = ()


def notify(
    event: Event, *, settings: NotifyConfig, workspace: Path, bucket: BucketWorkspace | None = None, recipe: str = ""
) -> str:
    """Notify of a registry event; a warning if something was not delivered, else nothing."""
    why = why_started(workspace / "runs" / event.run_id) if event.run_id else ""
    notice = notice_of_event(event, recipe=recipe, console_url=settings.console_url, why_started=why)
    return _send(notice, settings, workspace, bucket)


def notify_of_failure(
    summary: Mapping[str, Any],
    *,
    settings: NotifyConfig,
    workspace: Path,
    bucket: BucketWorkspace | None = None,
    recipe: str = "",
) -> str:
    """Notify of a run without a verdict; ``summary`` is that of its folder."""
    return _send(notice_of_failed_run(summary, recipe=recipe), settings, workspace, bucket)


def resend(settings: NotifyConfig, *, workspace: Path, bucket: BucketWorkspace | None = None) -> Resent:
    """Send again what was not delivered."""
    known = {target.name: target for target in targets(settings)}
    with _shared(workspace, bucket):
        undelivered = list(spool.undelivered(workspace, in_flight_s=settings.timeout_s))
        sendings = [(known[entry.target], entry.notice) for entry in undelivered if entry.target in known]
        problems = _deliver(sendings, settings, workspace)
    return Resent(len(sendings) - len(problems), len(undelivered) - len(sendings), tuple(problems))


def _send(notice: Notice | None, settings: NotifyConfig, workspace: Path, bucket: BucketWorkspace | None) -> str:
    interested = [each for each in targets(settings) if notice and notice.kind in each.events]
    if notice is None or not interested:
        return ""
    try:
        with _shared(workspace, bucket):
            problems = _deliver([(target, notice) for target in interested], settings, workspace)
    except OSError as error:  # the workspace cannot be written
        problems = [first_line(error)]
    if not problems:
        return ""
    return f"{len(problems)} of {len(interested)} notifications: {problems[0]}; `rankline sync` sends them again"


@contextlib.contextmanager
def _shared(workspace: Path, bucket: BucketWorkspace | None) -> Iterator[None]:
    """The notices of a workspace in a bucket are copied before and after; a bucket that is away stops no delivery."""
    if bucket is not None:
        with contextlib.suppress(StorageError, OSError):
            bucket.download(spool.FOLDER)
    try:
        yield
    finally:
        if bucket is not None and (workspace / spool.FOLDER).is_dir():
            with contextlib.suppress(StorageError, OSError):
                bucket.upload(spool.FOLDER)


def _deliver(sendings: Sequence[tuple[Target, Notice]], settings: NotifyConfig, workspace: Path) -> list[str]:
    """Send in threads until the time is over; returns why each of the others was not delivered."""
    results: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
    entries: dict[int, Entry] = {}
    for number, (target, notice) in enumerate(sendings):
        earlier = spool.read_entry(spool.entry_path(workspace, target.name, notice))
        if earlier and earlier.state == "delivered":
            continue
        entries[number] = Entry(target=target.name, notice=notice, at=earlier.at if earlier else time.time())
        spool.write_entry(workspace, entries[number])
        threading.Thread(target=_attempt, args=(number, target, notice, results), daemon=True).start()
    deadline = time.monotonic() + settings.timeout_s
    outcomes: dict[int, str] = {}
    while len(outcomes) < len(entries):
        try:
            number, result = results.get(timeout=max(deadline - time.monotonic(), 0.0))
        except queue.Empty:
            break
        outcomes[number] = result
    problems = []
    for number, entry in entries.items():
        result = outcomes.get(number, f"not delivered within {settings.timeout_s:g} s")
        state = "delivered" if result.startswith(DELIVERED) else "not delivered"
        spool.write_entry(workspace, entry.model_copy(update={"state": state, "result": result}))
        if state != "delivered":
            problems.append(f"{entry.target}: {result}")
    return problems


def _attempt(number: int, target: Target, notice: Notice, results: queue.SimpleQueue[tuple[int, str]]) -> None:
    try:
        results.put((number, target.send(notice)))
    except Exception as error:  # a library's own errors: nothing here may end a run
        results.put((number, f"not delivered: {type(error).__name__}"))
