"""Progress of long work: a step says how far it is, whoever watches the run's folder can draw it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path


class Progress:
    """Writes how far a step is to a small file, at most a few times a second; silent without a file."""

    def __init__(self, path: Path | None = None, *, interval_s: float = 0.25) -> None:
        self.path, self.interval_s = path, interval_s
        self._last = 0.0
        self._started = time.monotonic()  # a clock that is set back stops no bar
        self._phase = ""

    def phase(self, name: str) -> None:
        """Begin a named part of the work; its rate and estimate start afresh."""
        self._phase, self._started, self._last = name, time.monotonic(), 0.0
        self._write({"phase": name})

    def update(self, done: int, total: int, **numbers: float) -> None:
        """Say that ``done`` of ``total`` is done; ``numbers`` (loss, lr…) are shown beside the bar."""
        now = time.monotonic()
        if now - self._last < self.interval_s and done < total:
            return
        self._last = now
        rate = done / max(now - self._started, 1e-9)
        self._write(
            {
                "phase": self._phase,
                "done": done,
                "total": total,
                "rate": rate,
                "remaining_s": (total - done) / rate if rate else None,
                "numbers": {k: float(v) for k, v in numbers.items()},
            }
        )

    def _write(self, value: dict[str, object]) -> None:
        if self.path is None:
            return
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(value))
        os.replace(partial, self.path)


def read_progress(path: Path) -> dict[str, object]:
    """The last progress written to ``path``; empty where there is none yet."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
