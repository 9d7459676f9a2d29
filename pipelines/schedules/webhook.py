"""Post failed runs to a web address: JSON, with retries, and secrets from an environment variable."""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rankline.errors import EXIT_REFUSED, UsageError

if TYPE_CHECKING:
    from pipelines.schedules.firing import Firing
    from pipelines.schedules.firings import Firings
    from pipelines.schedules.model import Schedule

NOT_REQUESTED, DELIVERED = "not asked for", "delivered"
MAX_RETRIES = 4
BACKOFF_S = 1.0  # urllib3 retries at once, then after 2, 4 and 8 times as long
TIMEOUT_S = 10.0
_RETRIED_STATUS = (408, 425, 429, *range(500, 600))


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


def headers_from_env(variable: str) -> dict[str, str]:
    """The headers in an environment variable, a JSON object.

    Raises:
        UsageError: it is not set or holds something else; the message does not repeat its value.
    """
    if not variable:
        return {}
    try:
        value = json.loads(os.environ[variable])
        if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
            raise ValueError
    except (KeyError, ValueError):
        raise UsageError(
            f"{variable} does not hold headers",
            expected='a JSON object, such as {"Authorization": "Bearer …"}',
            found="something else" if variable in os.environ else "nothing",
            hint=f"set {variable} where you start the scheduler or the backfill",
        ) from None
    return value


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


def deliver(url: str, message: dict[str, Any], *, key: str, variable: str = "") -> str:
    """Post ``message``; "delivered", or why it was not after all retries.

    ``key`` is sent as Idempotency-Key, so that the receiver can tell a retry from a new message.
    """
    import urllib3

    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # no line for each retry
    retries = urllib3.Retry(
        MAX_RETRIES,
        allowed_methods=None,  # POST, too
        status_forcelist=_RETRIED_STATUS,
        raise_on_status=False,
        backoff_factor=BACKOFF_S,
        respect_retry_after_header=False,
    )
    try:
        headers = {"Idempotency-Key": key, **headers_from_env(variable)}
        with urllib3.PoolManager(timeout=TIMEOUT_S) as pool:
            # a redirect counts as a refusal: the headers may be secret and go to nobody else
            response = pool.request("POST", url, json=message, headers=headers, retries=retries, redirect=False)
    except UsageError as error:
        return f"not delivered: {error}"
    except (urllib3.exceptions.HTTPError, OSError) as error:
        return f"not delivered: {getattr(error, 'reason', None) or error}"
    except ValueError:  # its message would repeat a header
        return "not delivered: a header cannot be sent"
    return DELIVERED if 200 <= response.status < 300 else f"not delivered: it answered {response.status}"
