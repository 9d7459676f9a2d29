"""What was held back, and why: `schedules/NAME/need/held.json`, newest last."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from rankline.contracts import FrozenModel
from rankline.io.files import read_json_object, write_json

FILE = "held.json"
MOST = 100


class Held(FrozenModel):
    """A need that started no run, from its first check to its last."""

    triggers: tuple[str, ...]
    need: str  # what the first check observed
    why: str
    first: str
    last: str
    count: int = 1


def read_held(folder: Path) -> list[Held]:
    """Everything that was held back; nothing where the file cannot be read."""
    try:
        return [Held(**each) for each in (read_json_object(folder / FILE) or {}).get("held", ())]
    except (ValidationError, TypeError):
        return []


def record_held(folder: Path, triggers: Sequence[str], need: str, why: str, *, now: datetime) -> Held:
    """Record that a need was held back; one of the same triggers for the same reason is counted."""
    held, at = read_held(folder), now.isoformat(timespec="seconds")
    if held and (held[-1].triggers, held[-1].why) == (tuple(triggers), why):
        entry = held.pop().model_copy()
        entry = entry.model_copy(update={"last": at, "count": entry.count + 1})
    else:
        entry = Held(triggers=tuple(triggers), need=need, why=why, first=at, last=at)
    write_json(folder / FILE, {"held": [each.model_dump() for each in [*held, entry][-MOST:]]})
    return entry
