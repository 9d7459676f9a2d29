"""What can go wrong between here and a cluster, each as one message."""

from __future__ import annotations

import json
import ssl
from typing import Any

from rankline.errors import AccessError, RanklineError, UsageError


class Unreachable(AccessError):
    """The cluster does not answer at the moment."""


class NotFound(UsageError):
    """The cluster does not have what was asked for."""


class AlreadyExists(RanklineError):
    """Somebody else created it first."""


def signed_out_error(where: str) -> AccessError:
    """The error for a sign-in page in place of an answer."""
    return AccessError(
        "this host answers with a sign-in page: the session has expired, or there is none",
        expected="an answer of the Kubeflow Pipelines API",
        found="HTML",
        where=where,
        hint="a new cookie in RANKLINE_KFP_COOKIE, --auth dex, or the path that --host lacks (/pipeline)",
    )


def unreachable_error(error: Exception, where: str) -> AccessError:
    """The error for a host that does not answer, or whose certificate is not trusted."""
    reason: BaseException = getattr(error, "reason", None) or error
    text = f"{error} {reason}"
    if isinstance(reason, ssl.SSLError) or "SSLError" in text or "CERTIFICATE" in text:
        return AccessError(
            "the host's certificate is not trusted",
            found=text[text.find("[SSL") :].split("(_ssl")[0].strip() if "[SSL" in text else str(reason),
            where=where,
            hint="--ca FILE with the authority that signed it",
        )
    kind = type(reason).__name__
    return Unreachable(
        "Kubeflow Pipelines cannot be reached",
        found={"NewConnectionError": "connection refused", "NameResolutionError": "no such host"}.get(kind, kind),
        where=where,
        hint="check the address, the forwarded port and any proxy in between",
    )


def api_error(error: Any, where: str) -> RanklineError:
    """An error that the API answered (kfp_server_api.ApiException), as one of ours."""
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else error.body or ""
    message, is_api_answer = _message(body)
    status: int = error.status
    if status == 0:
        return unreachable_error(Exception(error.reason or ""), where)
    if status in (401, 403) and body.lstrip().startswith("<"):
        return signed_out_error(where)
    if status == 404 and is_api_answer and "not found" in message.lower():
        return NotFound("the cluster does not have it", found=message, where=where)
    if status in _REFUSALS:
        kind, text, default, hint = _REFUSALS[status]
        return kind(text, found=message or default, where=where, hint=hint)
    failure = Unreachable if status >= 500 else AccessError
    return failure(f"the cluster fails (HTTP {status})", found=message or error.reason or "", where=where)


# status -> the kind of error, its message, what was found where the answer says nothing, and what to try
_REFUSALS: dict[int, tuple[type[RanklineError], str, str, str]] = {
    400: (UsageError, "the cluster refuses this", "HTTP 400", ""),
    401: (
        AccessError,
        "the cluster does not know who asks (401)",
        "no identity, or an expired one",
        "--auth token, cookie or dex; a token expires, and needs the audience pipelines.kubeflow.org",
    ),
    403: (
        AccessError,
        "you may not do that there (403)",
        "no permission",
        "--namespace with one of your profiles; its owner adds contributors",
    ),
    404: (
        AccessError,
        "there is no Kubeflow Pipelines API at this address (404)",
        "HTTP 404",
        "for Kubeflow's gateway the URL ends in /pipeline",
    ),
    409: (AlreadyExists, "it exists already", "HTTP 409", ""),
}


def _message(body: str) -> tuple[str, bool]:
    """The first line of the message in an answer, and whether the answer is one of the API."""
    try:
        payload = json.loads(body)
        message = str(payload.get("error_message") or payload.get("message") or payload.get("error") or body)
        is_api_answer = True
    except (ValueError, AttributeError):
        message, is_api_answer = body.strip(), False
    if not message or message.lstrip().startswith("<"):
        return "", is_api_answer
    return message.splitlines()[0][:400], is_api_answer
