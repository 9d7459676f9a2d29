"""The fields of a form or of a script's JSON, within limits."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl

from starlette.requests import Request

from review.console.errors import ConsoleError, InvalidForm, TooLarge

MAX_BODY_BYTES = 32 * 1024
MAX_FIELDS = 20
MAX_REASON = 2000  # characters


async def read_form(request: Request) -> dict[str, str]:
    """The fields of the request's body.

    Raises:
        TooLarge: the body has more bytes than any form of the console.
        ConsoleError: it is neither a form nor a JSON object of strings.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise TooLarge("the request is too large", expected=f"up to {MAX_BODY_BYTES} bytes", found="more")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == "application/json":
            fields = json.loads(body)
            if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
                raise ValueError("it has values that are no strings")
            "".join([*fields, *fields.values()]).encode()  # half of a surrogate pair is no text
            return fields
        if kind == "application/x-www-form-urlencoded" or not body:
            pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
            return dict(pairs)
    except (ValueError, RecursionError) as error:
        raise ConsoleError("the form cannot be read", expected="its fields", found=str(error)[:200]) from error
    raise ConsoleError(
        "this is no form",
        expected="application/x-www-form-urlencoded or application/json",
        found=kind[:200] or "no Content-Type",
    )


def reason_of(form: dict[str, str], field: str) -> str:
    """The reason in this field of a form, or in `reason` as scripts send it, on one line.

    Raises:
        InvalidForm: it is no sentence, or too long.
    """
    reason = " ".join((form.get(field) or form.get("reason", "")).split())
    if len(reason.split()) < 2:
        raise InvalidForm(
            "Enter a reason",
            field=field,
            expected="a sentence that others will understand",
            found=reason or "nothing",
        )
    if len(reason) > MAX_REASON:
        raise InvalidForm(
            "The reason is too long", field=field, expected=f"up to {MAX_REASON} characters", found=str(len(reason))
        )
    return reason
