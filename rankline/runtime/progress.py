"""The progress of a step, in a small file that whoever watches the run reads."""

from __future__ import annotations

import time
from pathlib import Path

from rankline.io.files import read_json_object, write_json


class Progress:
    """Writes the progress of a step to a file, at most a few times a second; without a path it writes nothing."""

    def __init__(self, path: Path | None = None, *, interval_s: float = 0.25) -> None:
        self.path, self.interval_s = path, interval_s
        self._last = 0.0
        self._started = time.monotonic()  # unlike time.time() it is never set back
        self._phase = ""

    def phase(self, name: str) -> None:
        """Start a named part of the work, with a rate and an estimate of its own."""
        self._phase, self._started, self._last = name, time.monotonic(), 0.0
        self._write({"phase": name})

    def update(self, done: int, total: int, **numbers: float) -> None:
        """Report ``done`` of ``total``, and numbers (loss, lr…) to show beside the bar."""
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
                "numbers": {name: float(value) for name, value in numbers.items()},
            }
        )

    def _write(self, value: dict[str, object]) -> None:
        if self.path is not None:
            write_json(self.path, value)


def read_progress(path: Path) -> dict[str, object]:
    """The last progress written to ``path``; empty if there is none."""
    return read_json_object(path)
