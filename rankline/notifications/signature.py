"""The signature of a webhook, as the Standard Webhooks specification has it (https://www.standardwebhooks.com).

webhook-id         the key of the message, the same each time it is sent
webhook-timestamp  unix seconds
webhook-signature  v1,<base64 of HMAC-SHA256 over "<id>.<timestamp>.<body>">
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Mapping

from rankline.errors import UsageError

PREFIX = "whsec_"
_LEAST_BYTES = 24
TOLERANCE_S = 300  # a message that was signed longer ago may be a recording
_LONGEST_TIMESTAMP = 12  # digits


def signing_key(variable: str) -> bytes:
    """The key in an environment variable, in base64 with or without the prefix `whsec_`.

    Raises:
        UsageError: it is not set or holds something else; the message does not repeat its value.
    """
    value = os.environ.get(variable, "").removeprefix(PREFIX)
    try:
        key = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) < _LEAST_BYTES:
        raise UsageError(
            f"{variable} holds no key for signatures",
            expected=f"at least {_LEAST_BYTES} random bytes in base64",
            found="something else" if value else "nothing",
            hint=f'export {variable}="{PREFIX}$(openssl rand -base64 32)", and give the receiver the same value',
        )
    return key


def signed_headers(body: bytes, *, key: bytes, message_id: str, timestamp: int) -> dict[str, str]:
    """The headers by which a receiver knows who sent this body, and when."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{signature}",
    }


def is_signed(headers: Mapping[str, str], body: bytes, *, key: bytes, now: float) -> bool:
    """Whether a body was signed with this key in the last five minutes; header names are in lower case."""
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not message_id or not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > _LONGEST_TIMESTAMP:
        return False
    expected = signed_headers(body, key=key, message_id=message_id, timestamp=int(timestamp))["webhook-signature"]
    signatures = headers.get("webhook-signature", "").encode(errors="replace").split()
    is_genuine = any([hmac.compare_digest(expected.encode(), each) for each in signatures])
    return is_genuine and abs(now - int(timestamp)) <= TOLERANCE_S
