"""Post JSON to a web address, with retries; secrets come from environment variables and appear in no message."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from typing import Any

from rankline.errors import UsageError

DELIVERED = "delivered"
MAX_RETRIES = 4
BACKOFF_S = 1.0  # urllib3 retries at once, then after 2, 4 and 8 times as long
TIMEOUT_S = 10.0
_RETRIED_STATUS = (408, 425, 429, *range(500, 600))


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
            hint=f"set {variable} in the environment of the process that sends",
        ) from None
    return value


def deliver(url: str, message: dict[str, Any], *, key: str, variable: str = "") -> str:
    """Post ``message``; "delivered", or why it was not after all retries.

    ``key`` is sent as Idempotency-Key, so that the receiver can tell a retry from a new message. ``variable`` names
    further headers.
    """
    try:
        headers = {"Idempotency-Key": key, **headers_from_env(variable)}
    except UsageError as error:
        return f"not delivered: {error}"
    return post(url, json.dumps(message).encode(), headers=headers)


def post(url: str, body: bytes, *, headers: Mapping[str, str]) -> str:
    """Post a body of JSON; "delivered", or why it was not after all retries, without the address."""
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
    sent = {"Content-Type": "application/json", **headers}
    try:
        with urllib3.PoolManager(timeout=TIMEOUT_S) as pool:
            # a redirect counts as a refusal: the headers may be secret and go to nobody else
            response = pool.request("POST", url, body=body, headers=sent, retries=retries, redirect=False)
    except (urllib3.exceptions.LocationValueError, urllib3.exceptions.URLSchemeUnknown):
        return "not delivered: its address is none"
    except (urllib3.exceptions.HTTPError, OSError) as error:
        return f"not delivered: {_reason(error)}"
    except ValueError:  # its message would repeat a header
        return "not delivered: a header cannot be sent"
    return DELIVERED if 200 <= response.status < 300 else f"not delivered: it answered {response.status}"


def _reason(error: BaseException) -> str:
    """Why a connection failed, without the address, which may be a secret."""
    from urllib3 import exceptions

    cause = getattr(error, "reason", None) or error
    if isinstance(cause, exceptions.NameResolutionError):
        return "its host name is unknown"
    if isinstance(cause, exceptions.NewConnectionError):
        return getattr(cause.__cause__, "strerror", None) or "no connection"
    if isinstance(cause, exceptions.TimeoutError):
        return f"no answer within {TIMEOUT_S:g} s"
    if isinstance(cause, exceptions.SSLError):
        return "its certificate is not trusted, or it speaks no TLS"
    return getattr(cause, "strerror", None) or type(cause).__name__
