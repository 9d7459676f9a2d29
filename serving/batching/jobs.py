"""A request on its way through the batcher, and the settings of batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from rankline.errors import ServerError
from serving.engine import Engine, EngineRequest, EngineResponse


class Deadline(ServerError):
    """The request waited for longer than its caller or the server allows."""


@dataclass(frozen=True)
class BatchSettings:
    """How requests are put together."""

    workers: int = 2  # batches in progress at once
    max_batch: int = 32  # requests; 1 answers each alone
    max_candidates: int = 16_384  # of all requests of a batch together
    max_wait_ms: float = 1.0  # for more requests, where the batch before had more; none on an idle server
    timeout_s: float = 10.0  # of a request, unless its caller allows less


@dataclass(frozen=True, eq=False)
class Job:
    """One request: ``look_up`` completes it with features, in the batcher's thread; ``answer`` ends on the event loop.

    ``weight`` is the number of its candidates, ``deadline`` on the monotonic clock; ``is_gone`` asks for its caller.
    """

    look_up: Callable[[Engine], EngineRequest]
    weight: int
    deadline: float
    is_gone: Callable[[], Awaitable[bool]]
    answer: asyncio.Future[tuple[Engine, EngineResponse]]
    queued_at: float = field(default_factory=time.monotonic)

    @property
    def is_waited_for(self) -> bool:
        """Whether its caller is still there."""
        return not self.answer.done()
