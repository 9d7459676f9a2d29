"""Work that is repeated in the background."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def repeated(action: Callable[[], object], *, interval_s: float, name: str) -> Iterator[None]:
    """Call ``action`` every few seconds, in a thread of this name, while the block runs."""
    done = threading.Event()

    def run() -> None:
        while not done.wait(interval_s):
            action()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
