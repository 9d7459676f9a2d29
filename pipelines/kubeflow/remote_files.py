"""Files of a cluster that this machine may not reach: each place is asked until it once does not answer."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

TIMEOUT_S = 10.0  # a bucket that is not reachable from here must not hold up a command

Content = TypeVar("Content")


@dataclass
class RemoteFiles:
    """The places that one command reads; one that fails or does not answer in time is not asked again."""

    timeout_s: float = TIMEOUT_S
    _unreachable: set[str] = field(default_factory=set)

    def ask(self, place: str, action: Callable[[], Content]) -> Content | None:
        """What ``action`` reads at a place; None where it does not answer.

        A call that takes too long goes on in the background.
        """
        if place in self._unreachable:
            return None
        answers: list[Content] = []

        def run() -> None:
            with contextlib.suppress(Exception):  # whatever a client of a store raises: the place does not answer
                answers.append(action())

        thread = threading.Thread(target=run, name=f"asks {place}", daemon=True)
        thread.start()
        thread.join(self.timeout_s)
        if not answers:
            self._unreachable.add(place)
            return None
        return answers[0]
