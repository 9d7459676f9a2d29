"""The notices of a workspace: `notifications/<key and target>.json`, written before they are sent.

A process that is killed while it sends loses nothing, `rankline sync` sends again what was not delivered, and what was
delivered is not sent twice. An entry holds neither an address nor a secret: only the digest of the target's settings.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from rankline.contracts import FrozenModel
from rankline.io import digest
from rankline.io.files import write_bytes
from rankline.notifications.notice import Notice

FOLDER = "notifications"
EXPIRY_S = 30 * 86400.0  # then an entry is removed, whatever became of it


class Entry(FrozenModel):
    """A notice for one target, and what has become of it."""

    target: str
    notice: Notice
    at: float
    state: Literal["sending", "not delivered", "delivered"] = "sending"
    result: str = ""


def entry_path(workspace: Path, target: str, notice: Notice) -> Path:
    """The file of a notice for a target."""
    return workspace / FOLDER / f"{digest.json_digest([target, notice.key])[:24]}.json"


def write_entry(workspace: Path, entry: Entry) -> None:
    """Write or replace an entry."""
    write_bytes(entry_path(workspace, entry.target, entry.notice), entry.model_dump_json(indent=2).encode())


def read_entry(path: Path) -> Entry | None:
    """An entry; None where there is none that this version can read."""
    try:
        return Entry.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def undelivered(workspace: Path, *, in_flight_s: float) -> Iterator[Entry]:
    """What was not delivered, oldest first; not what another process may be sending. Old entries are removed."""
    now, entries = time.time(), []
    for path in (workspace / FOLDER).glob("*.json"):
        entry = read_entry(path)
        age_s = now - (entry.at if entry else path.stat().st_mtime)
        if age_s > EXPIRY_S:
            with contextlib.suppress(OSError):
                path.unlink()
        elif entry and (entry.state == "not delivered" or (entry.state == "sending" and age_s > in_flight_s)):
            entries.append(entry)
    yield from sorted(entries, key=lambda entry: entry.at)
