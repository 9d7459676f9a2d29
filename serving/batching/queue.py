"""The queue of requests, from which workers take batches.

It has two lanes: one for requests of few candidates, and one for those of many (`/v1/rank` over a whole list). Batches
come from one lane, the lanes take turns, and one worker is always left to the short lane where there are several. A
caller of long lists therefore costs the others at most the rest of one batch.

It is bounded by the limit of pending requests (serving/api/middleware.py), which refuses before a request is parsed.
"""

from __future__ import annotations

import threading
import time
from collections import deque

from serving.batching.jobs import BatchSettings, Job

BULK = 1_000  # candidates of one request; twice what a usual catalogue draws


class JobQueue:
    """Takes jobs one by one and gives them out in batches; safe to use from several threads."""

    def __init__(self, settings: BatchSettings) -> None:
        self._settings = settings
        self._short: deque[Job] = deque()
        self._bulk: deque[Job] = deque()
        self._changed = threading.Condition()
        self._bulk_in_progress = 0
        self._is_bulks_turn = False
        self._last_size = 1
        self._closed = False

    def __len__(self) -> int:
        return len(self._short) + len(self._bulk)

    def put(self, job: Job) -> None:
        """Add a job."""
        with self._changed:
            (self._bulk if job.weight > BULK else self._short).append(job)
            self._changed.notify()

    def close(self) -> None:
        """Let `take` return nothing from now on, once the queue is empty."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self) -> tuple[list[Job], bool]:
        """The next batch, and whether it is of the bulk lane; waits for one. Empty: the queue is closed.

        `done` must be called for it.
        """
        with self._changed:
            while True:
                lane = self._next_lane()
                if lane is self._short and self._short:
                    self._wait_for_more()
                if lane and (batch := self._cut(lane)):  # another worker may have been faster
                    break
                if self._closed and not len(self):
                    return [], False
                if lane is None:
                    self._changed.wait()
            is_bulk = lane is self._bulk
            self._is_bulks_turn = not is_bulk
            self._bulk_in_progress += is_bulk
            if self._next_lane() is not None:
                self._changed.notify()
            return batch, is_bulk

    def done(self, is_bulk: bool) -> None:
        """Report that a batch is answered."""
        if is_bulk:
            with self._changed:
                self._bulk_in_progress -= 1
                self._changed.notify()

    def _next_lane(self) -> deque[Job] | None:
        may_bulk = self._bulk and self._bulk_in_progress < max(1, self._settings.workers - 1)
        if may_bulk and (self._is_bulks_turn or not self._short):
            return self._bulk
        return self._short or None

    def _wait_for_more(self) -> None:
        """Wait a moment for as many requests as the last batch had: callers of a busy server come back together."""
        end = time.monotonic() + self._settings.max_wait_ms / 1000
        expected = min(self._last_size, self._settings.max_batch)
        while 0 < len(self._short) < expected and not self._closed and (left := end - time.monotonic()) > 0:
            self._changed.wait(left)

    def _cut(self, lane: deque[Job]) -> list[Job]:
        """Take a batch from a lane: at least one job, and no more than the settings allow."""
        batch: list[Job] = []
        weight = 0
        while lane and len(batch) < self._settings.max_batch:
            weight += lane[0].weight
            if batch and weight > self._settings.max_candidates:
                break
            batch.append(lane.popleft())
        if lane is self._short:
            self._last_size = len(batch)
        return batch
