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

from rankline.errors import UsageError

PREFIX = "whsec_"
_LEAST_BYTES = 24


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
