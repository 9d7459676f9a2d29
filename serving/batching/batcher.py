"""Answers requests in batches, around an engine's three steps.

A worker takes whatever waits, looks the features up, prepares, runs and finishes. On an idle server a request is a
batch of its own at once; on a busy one batches grow by themselves, because requests gather while the workers run. Two
workers overlap: one runs a graph, without the interpreter's lock, while the other one prepares or finishes.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from rankline.errors import RanklineError
from serving.batching.jobs import BatchSettings, Deadline, Job
from serving.batching.queue import JobQueue
from serving.engine import Engine, EngineRequest, EngineResponse
from serving.metrics import Metrics

log = logging.getLogger("rankline.serving")

WATCH_S = 0.05  # how often the requests that wait are checked: deadlines, and whether their callers are still there

Outcome = tuple[Engine, EngineResponse] | Exception


class CallerGone(Exception):
    """The client closed its connection before the answer."""


class Batcher:
    """Answers jobs with the engine that serves, in threads of its own."""

    def __init__(self, engine: Callable[[], Engine], metrics: Metrics, settings: BatchSettings) -> None:
        self._engine, self._metrics, self.settings = engine, metrics, settings
        self._queue = JobQueue(settings)
        self._is_started = False
        self._pending: set[Job] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._threads = [
            threading.Thread(target=self._work, name=f"batch-{n}", daemon=True) for n in range(settings.workers)
        ]
        metrics.queue.set_function(lambda: len(self._queue))

    def start(self) -> None:
        """Start the workers, if they are not started yet."""
        if not self._is_started:
            self._is_started = True
            for thread in self._threads:
                thread.start()

    def close(self) -> None:
        """Answer what waits, and end the workers."""
        self._queue.close()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=5)

    async def ask(
        self,
        look_up: Callable[[Engine], EngineRequest],
        *,
        weight: int,
        timeout_s: float,
        is_gone: Callable[[], Awaitable[bool]],
    ) -> tuple[Engine, EngineResponse]:
        """Answer one request; called on the event loop.

        Raises:
            Deadline: it was not answered in time.
            CallerGone: nobody waits for it any more.
            RanklineError: the request, or the model, is wrong.
        """
        timeout_s = min(timeout_s, self.settings.timeout_s)
        loop = asyncio.get_running_loop()
        job = Job(look_up, weight, time.monotonic() + timeout_s, is_gone, loop.create_future())
        self.start()
        self._pending.add(job)
        if self._watcher is None or self._watcher.done() or self._watcher.get_loop() is not loop:
            self._watcher = loop.create_task(self._watch())
        self._queue.put(job)
        try:
            return await job.answer
        except Deadline:
            raise _late(timeout_s) from None
        finally:
            job.answer.cancel()
            self._pending.discard(job)

    async def _watch(self) -> None:
        """End the jobs whose time is over or whose caller has gone; runs while there are any."""
        while self._pending:
            await asyncio.sleep(WATCH_S)
            now = time.monotonic()
            for job in [job for job in self._pending if job.queued_at < now - WATCH_S]:
                if job.answer.done():
                    continue
                if job.deadline <= now:
                    self._metrics.dropped.labels("deadline").inc()
                    job.answer.set_exception(Deadline("the request was not answered in time"))
                elif await job.is_gone() and not job.answer.done():
                    self._metrics.dropped.labels("caller_gone").inc()
                    job.answer.set_exception(CallerGone())

    def _work(self) -> None:
        while True:
            jobs, is_bulk = self._queue.take()
            if not jobs:
                return
            try:
                self._answer(jobs)
            except Exception:  # the thread must survive
                log.exception("a batch of %d requests was lost", len(jobs))
            finally:
                self._queue.done(is_bulk)

    def _answer(self, jobs: Sequence[Job]) -> None:
        """Answer a batch; each job ends with an answer or an error of its own."""
        now, waiting = time.monotonic(), []
        for job in jobs:
            self._metrics.stages["queue"].observe(now - job.queued_at)
            if job.is_waited_for and job.deadline > now:
                waiting.append(job)
        if not waiting:
            return
        self._metrics.batch_size.observe(len(waiting))
        outcomes: list[tuple[Job, Outcome]] = []
        try:
            engine = self._engine()
            outcomes = self._outcomes(engine, waiting)
        except Exception as error:
            outcomes = [(job, error) for job in waiting]
        for loop in {job.answer.get_loop() for job in waiting}:  # one wake-up for all
            loop.call_soon_threadsafe(_deliver, [each for each in outcomes if each[0].answer.get_loop() is loop])

    def _outcomes(self, engine: Engine, jobs: Sequence[Job]) -> list[tuple[Job, Outcome]]:
        outcomes: list[tuple[Job, Outcome]] = []
        ready: list[tuple[Job, Any]] = []
        with self._metrics.stages["prepare"].time():
            for job in jobs:
                try:
                    ready.append((job, engine.prepare(job.look_up(engine))))
                except Exception as error:
                    outcomes.append((job, error))
        if not ready:
            return outcomes
        with self._metrics.stages["run"].time():
            results = _run(engine, [prepared for _, prepared in ready])
        with self._metrics.stages["finish"].time():
            for (job, prepared), result in zip(ready, results):
                try:
                    if isinstance(result, Exception):
                        raise result
                    outcomes.append((job, (engine, engine.finish(prepared, result))))
                except Exception as error:
                    outcomes.append((job, error))
        return outcomes


def _run(engine: Engine, batch: Sequence[Any]) -> list[Any]:
    """The result of each prepared request; an error of a batch is that of the requests that fail alone as well."""
    try:
        return engine.run(batch)
    except Exception as error:
        if len(batch) == 1:
            return [error]
        log.warning("a batch of %d requests failed, and each is tried alone: %s", len(batch), error)
        return [result for prepared in batch for result in _run(engine, [prepared])]


def _deliver(outcomes: Sequence[tuple[Job, Outcome]]) -> None:
    for job, outcome in outcomes:
        if job.answer.done():  # its caller has gone
            continue
        if isinstance(outcome, Exception):
            job.answer.set_exception(outcome)
        else:
            job.answer.set_result(outcome)


def _late(timeout_s: float) -> RanklineError:
    return Deadline(
        "the request was not answered in time",
        expected=f"an answer within {timeout_s:g} s",
        found="a queue that is longer than that",
        hint="send it again after the seconds in Retry-After, or add replicas; "
        "rankline_queue_length says how many requests wait",
    )
