"""Post failed runs of schedules to a web address (rankline/notifications/delivery.py)."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rankline.errors import EXIT_REFUSED
from rankline.notifications.delivery import deliver

if TYPE_CHECKING:
    from pipelines.schedules.firing import Firing
    from pipelines.schedules.firings import Firings
    from pipelines.schedules.model import Schedule

NOT_REQUESTED = "not asked for"


class Notifier:
    """Calls the webhooks of failed firings in threads; only the thread that collects the results writes firings."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._results: queue.SimpleQueue[tuple[Firings, Firing, str]] = queue.SimpleQueue()
        self.pending = 0

    def notify(self, firings: Firings, firing: Firing, schedule: Schedule) -> None:
        """Call the schedule's webhook about a firing that has ended, unless that is done or not asked for."""
        if firing.exit_code == 0 or firing.notified:
            return
        if not should_notify(firing, schedule):
            firings.write(firing.replace(notified=NOT_REQUESTED))  # a webhook set later does not hear of it
            return
        self.pending += 1
        threading.Thread(
            target=lambda: self._results.put((firings, firing, notify(firing, schedule))), daemon=True
        ).start()

    def collect(self, *, timeout_s: float | None = 0.0) -> None:
        """Record the calls that have ended; wait up to ``timeout_s`` for the others (None: until they end).

        A call that is not recorded is made again after a restart, with the same Idempotency-Key.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self.pending:
            left_s = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            try:
                firings, firing, result = self._results.get(block=left_s != 0.0, timeout=left_s)
            except queue.Empty:
                return
            self.pending -= 1
            self._say(f"{firing.schedule}: webhook for {firing.scheduled_at}: {result}")
            firings.write(firing.replace(notified=result))


def should_notify(firing: Firing, schedule: Schedule) -> bool:
    """Whether a schedule's webhook is called about this firing."""
    refused = firing.status == "ended" and firing.exit_code == EXIT_REFUSED
    return bool(schedule.webhook) and (firing.failed or (refused and schedule.webhook_on_refusal))


def notify(firing: Firing, schedule: Schedule) -> str:
    """Call a schedule's webhook about a firing; the result is that of `deliver`."""
    return deliver(
        schedule.webhook,
        {
            "event": "run failed" if firing.failed else "model refused",
            **firing.trigger,
            "flow": schedule.flow,
            "recipe": schedule.recipe,
            "run": firing.run,
            "outcome": firing.outcome,
            "exit_code": firing.exit_code,
            "error": firing.error,
            "attempts": firing.attempts,
        },
        key=f"{firing.schedule}-{firing.scheduled_at}-{firing.attempts}",
        variable=schedule.webhook_headers,
    )
