"""Records of the API, read from its JSON.

kfp's generated models take a fifth of a second for one run with its tasks, most of it for their times and for a
configuration per object. A run is requested every few seconds while it is watched, so it is read as it comes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

_TIMES = ("_at", "_time")


class Record:
    """An object of the API: its fields are attributes, None where the API leaves them out."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = {name: _value(name, value) for name, value in fields.items()}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)  # what copy and pickle ask for
        return self._fields.get(name)


def _value(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return value if name in ("pipeline_spec", "parameters") else Record(value)
    if isinstance(value, list):
        return [_value("", each) for each in value]
    if isinstance(value, str) and name.endswith(_TIMES):
        return datetime.fromisoformat(value)
    return value
