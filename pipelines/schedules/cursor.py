"""Up to when the fire times of a schedule have been handled: `schedules/NAME/handled.json`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rankline.io import files

MAX_SKIPPED = 200


class Cursor:
    """Every fire time up to ``until`` has a firing or was skipped."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, *, latest: datetime | None) -> dict[str, Any]:
        """`until` (ISO, UTC; empty before the first firing) and `skipped`: the skipped fire times, newest last.

        Where the file is damaged, ``latest`` (the newest firing) takes its place and `skipped` says so.
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
        value = {
            "until": max(until.astimezone(UTC).isoformat(), before["until"]),
            "skipped": [*before["skipped"], *([skipped] if skipped else [])][-MAX_SKIPPED:],
        }
        files.write_json(self.path, value, durable=True)

    def _parse(self) -> tuple[dict[str, Any], str]:
        try:
            value = json.loads(self.path.read_text())
            if value["until"] and datetime.fromisoformat(value["until"]).tzinfo is None:
                raise ValueError(f"{value['until']} names no time zone")
            if not all(isinstance(each, dict) for each in value["skipped"]):
                raise ValueError("skipped is not a list of objects")
        except FileNotFoundError:
            return {"until": "", "skipped": []}, ""
        except (OSError, ValueError, KeyError, TypeError) as error:
            return {}, f"{self.path.name} cannot be read ({files.first_line(error)})"
        return value, ""
