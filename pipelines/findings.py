"""Findings of `rankline doctor`: one line for one thing that was checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """What was checked, its status, what was found, and what to do if it is not ok."""

    check: str
    status: Status
    found: str
    hint: str = ""
