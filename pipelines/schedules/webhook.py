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
    from pipelines.schedules.firings import Claim
    from pipelines.schedules.store import Schedule

NOT_ASKED = "not asked for"
TRIES = 5
FIRST_PAUSE_S = 1.0  # doubled after each try
TIMEOUT_S = 10.0


class _Stay(urllib.request.HTTPRedirectHandler):
    """A redirect is no delivery: the headers, and the secrets among them, go to nobody else."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def headers_of(variable: str) -> dict[str, str]:
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


def wanted(claim: Claim, schedule: Schedule) -> bool:
    """Whether a schedule's webhook is to be told how this run ended."""
    refused = claim.status == "ended" and claim.exit_code == EXIT_REFUSED
    return bool(schedule.webhook) and (claim.failed or (refused and schedule.webhook_on_refusal))


def tell(claim: Claim, schedule: Schedule, *, wait: Callable[[float], object] = time.sleep) -> str:
    """Tell a schedule's webhook how this run ended; what became of that, as of `deliver`."""
    return deliver(
        schedule.webhook,
        {
            "event": "run failed" if claim.failed else "model refused",
            **claim.trigger,
            "flow": schedule.flow,
            "recipe": schedule.recipe,
            "run": claim.run,
            "outcome": claim.outcome,
            "exit_code": claim.exit_code,
            "error": claim.error,
            "attempts": claim.attempts,
        },
        key=f"{claim.schedule}-{claim.scheduled_at}-{claim.attempts}",
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
        headers = {"Content-Type": "application/json", "Idempotency-Key": key, **headers_of(variable)}
        request = urllib.request.Request(url, json.dumps(message).encode(), headers, method="POST")
    except (UsageError, ValueError) as error:
        return f"not delivered: {error}"
    opener, why = urllib.request.build_opener(_Stay), ""
    for left in reversed(range(TRIES)):
        try:
            with opener.open(request, timeout=TIMEOUT_S):
                return "delivered"
        except urllib.error.HTTPError as error:
            why = f"it answered {error.code}"
            if error.code < 500 and error.code not in (408, 425, 429):
                break  # it would say the same again
        except (OSError, ValueError) as error:
            why = str(getattr(error, "reason", error)) or type(error).__name__
        if left:
            wait(FIRST_PAUSE_S * 2 ** (TRIES - 1 - left))
    return f"not delivered: {why}"
