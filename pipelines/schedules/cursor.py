"""Up to when the fire times of a schedule have been handled: `schedules/NAME/handled.json`.

A clock that is set back leaves the cursor in the future. The fire times up to there are still to come, and those that
have no firing run when they do. So the cursor is set back with the clock. For a day it remembers where it was: if it is
the new time that is wrong, as on a machine that has just started, it goes on from there.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rankline.io import files

MAX_SKIPPED = 200
FAR_AHEAD = timedelta(days=7)  # a schedule dated further ahead was created or updated by a clock that was wrong
TRUSTED_AFTER = timedelta(days=1)  # a clock that was set back and has not been set forward by then is right


class Cursor:
    """Every fire time up to ``until`` has a firing or was skipped."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, *, latest: datetime | None) -> dict[str, Any]:
        """`until` (ISO, UTC; empty before the first firing) and `skipped`: the skipped fire times, newest last.

        After the clock was set back, `ahead` has the `until` of before, and when that was seen (`seen_at`). Where the
        file is damaged, ``latest`` (the newest firing) takes its place and `skipped` says so.
        """
        value, problem = self._parse()
        if not problem:
            return value
        try:
            written_at = datetime.fromtimestamp(self.path.stat().st_mtime, UTC)
        except OSError:
            written_at = datetime.now(UTC)
        until = (latest or written_at).astimezone(UTC).isoformat()
        unknown = {"first": until, "last": until, "count": "unknown", "why": problem, "at": written_at.isoformat()}
        return {"until": until, "skipped": [unknown]}

    def problem(self) -> str:
        """What is wrong with the file; empty where nothing is."""
        return self._parse()[1]

    def advance(self, until: datetime, before: dict[str, Any], *, skipped: dict[str, Any] | None = None) -> None:
        """Move the cursor forward, never back."""
        value = before | {
            "until": max(until.astimezone(UTC).isoformat(), before["until"]),
            "skipped": [*before["skipped"], *([skipped] if skipped else [])][-MAX_SKIPPED:],
        }
        files.write_json(self.path, value, durable=True)

    def follow_clock(self, before: dict[str, Any], *, since: datetime, now: datetime) -> datetime:
        """Up to when fire times are handled, never later than ``now``; before the first firing it is ``since``."""
        until, ahead = datetime.fromisoformat(before["until"] or since.isoformat()), before.get("ahead")
        value = {"skipped": before["skipped"]}
        if until > now + (timedelta(0) if before["until"] else FAR_AHEAD):
            latest = max(until, datetime.fromisoformat(ahead["until"])) if ahead else until
            value["ahead"] = {"until": latest.isoformat(), "seen_at": now.isoformat()}
            until = now
        elif not ahead:
            return until
        elif (latest := datetime.fromisoformat(ahead["until"])) <= now:
            until = max(until, latest)
        elif now - datetime.fromisoformat(ahead["seen_at"]) < TRUSTED_AFTER:
            return until
        files.write_json(self.path, value | {"until": until.astimezone(UTC).isoformat()}, durable=True)
        return until

    def _parse(self) -> tuple[dict[str, Any], str]:
        try:
            value = json.loads(self.path.read_text())
            until, ahead = value["until"], value.get("ahead") or {"until": "", "seen_at": ""}
            for instant in filter(None, (until, ahead["until"], ahead["seen_at"])):
                if datetime.fromisoformat(instant).tzinfo is None:
                    raise ValueError(f"{instant} names no time zone")
            if not all(isinstance(each, dict) for each in value["skipped"]):
                raise ValueError("skipped is not a list of objects")
        except FileNotFoundError:
            return {"until": "", "skipped": []}, ""
        except (OSError, ValueError, KeyError, TypeError) as error:
            return {}, f"{self.path.name} cannot be read ({files.first_line(error)})"
        return value, ""
