"""Processes that do something at the same time."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from typing import Any


def race(
    method: str, work: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], timeout_s: float = 120
) -> list[Any]:
    """Call ``work(gate, *each)`` in a process for each of the arguments; what they return, in their order.

    ``work`` calls ``gate.wait()`` where all have to be ready; ``method`` is how multiprocessing starts a process.
    """
    context = multiprocessing.get_context(method)
    gate, results = context.Barrier(len(arguments)), context.Queue()
    racers = [context.Process(target=_run, args=(results, n, work, gate, *each)) for n, each in enumerate(arguments)]
    for racer in racers:
        racer.start()
    received = dict(results.get(timeout=180) for _ in racers)
    for racer in racers:
        racer.join(60)
        assert racer.exitcode == 0
    return [received[n] for n in range(len(racers))]


def _run(results: Any, n: int, work: Callable[..., Any], *arguments: Any) -> None:
    results.put((n, work(*arguments)))
