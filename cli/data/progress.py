"""The progress of reading a source, as lines on the error output of a command."""

from __future__ import annotations

import time

import typer

from rankline.runtime.progress import Progress

AFTER_S, EVERY_S = 1.0, 5.0


class EchoedProgress(Progress):
    """Prints what is read, and how far, once it takes more than a second."""

    def __init__(self, *, after_s: float = AFTER_S) -> None:
        super().__init__()
        self._next_s = time.monotonic() + after_s

    def line(self, text: str) -> None:
        """Print a line, unless one was printed in the last seconds."""
        if time.monotonic() >= self._next_s:
            typer.echo(text, err=True)
            self._next_s = time.monotonic() + EVERY_S

    def _write(self, value: dict[str, object]) -> None:
        done, total = value.get("done"), value.get("total")
        share = f" {done / total:.0%}" if isinstance(done, int) and isinstance(total, int) and total else ""
        self.line(f"{value['phase']}{share}")
