"""Tell a web address that a run failed: JSON by POST, tried again for a while, secrets from an environment variable."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rankline.errors import EXIT_REFUSED, UsageError

if TYPE_CHECKING:
    from pipelines.schedules.firings import Firing
    from pipelines.schedules.store import Schedule

NOT_REQUESTED = "not asked for"
MAX_ATTEMPTS = 5
FIRST_PAUSE_S = 1.0  # doubled after each try
TIMEOUT_S = 10.0


class _RefuseRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is no delivery: the headers, and the secrets among them, go to nobody else."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def headers_from_env(variable: str) -> dict[str, str]:
    """The headers that an environment variable holds, as a JSON object.

    Raises:
        UsageError: it is not set, or holds something else; what it holds is not told.
    """
    if not variable:
        return {}
    try:
        value = json.loads(os.environ[variable])
        if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
            raise ValueError
    except (KeyError, ValueError):
        raise UsageError(
            f"{variable} holds no headers",
            expected='a JSON object, such as {"Authorization": "Bearer …"}',
            found="something else" if variable in os.environ else "nothing",
            hint=f"set {variable} where the scheduler or the backfill is started",
        ) from None
    return value


def should_notify(firing: Firing, schedule: Schedule) -> bool:
    """Whether a schedule's webhook is to be told how this run ended."""
    refused = firing.status == "ended" and firing.exit_code == EXIT_REFUSED
    return bool(schedule.webhook) and (firing.failed or (refused and schedule.webhook_on_refusal))


def notify(firing: Firing, schedule: Schedule, *, wait: Callable[[float], object] = time.sleep) -> str:
    """Tell a schedule's webhook how this run ended; what became of that, as of `deliver`."""
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
        wait=wait,
    )


def deliver(
    url: str,
    message: dict[str, Any],
    *,
    key: str,
    variable: str = "",
    wait: Callable[[float], object] = time.sleep,
) -> str:
    """Post ``message``; "delivered", or why it was not after all tries.

    ``key`` is sent as Idempotency-Key, the same each time the same thing is told.
    """
    try:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key, **headers_from_env(variable)}
        request = urllib.request.Request(url, json.dumps(message).encode(), headers, method="POST")
    except (UsageError, ValueError) as error:
        return f"not delivered: {error}"
    opener, failure = urllib.request.build_opener(_RefuseRedirects), ""
    for attempts_left in reversed(range(MAX_ATTEMPTS)):
        try:
            with opener.open(request, timeout=TIMEOUT_S):
                return "delivered"
        except urllib.error.HTTPError as error:
            failure = f"it answered {error.code}"
            if error.code < 500 and error.code not in (408, 425, 429):
                break  # it would say the same again
        except (OSError, ValueError) as error:
            failure = str(getattr(error, "reason", error)) or type(error).__name__
        if attempts_left:
            wait(FIRST_PAUSE_S * 2 ** (MAX_ATTEMPTS - 1 - attempts_left))
    return f"not delivered: {failure}"
