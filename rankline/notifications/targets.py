"""Who gets a notice: each webhook and the mail server of the settings, by a name that outlives the process."""

from __future__ import annotations

import json
import os
import smtplib
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

from rankline.errors import UsageError
from rankline.io import digest
from rankline.notifications import delivery
from rankline.notifications.config import Email, NoticeKind, NotifyConfig, Webhook, is_address
from rankline.notifications.notice import Notice, mail, slack_message, teams_message
from rankline.notifications.signature import signed_headers, signing_key

MAIL_PAUSES_S = (0.0, 2.0, 4.0)  # before each attempt


@dataclass(frozen=True)
class Target:
    """A receiver: ``name`` is the digest of its settings, ``send`` returns "delivered" or why it was not."""

    name: str
    events: tuple[NoticeKind, ...]
    send: Callable[[Notice], str]


def targets(settings: NotifyConfig) -> list[Target]:
    """The receivers of the settings."""
    listed = [Target(_name("webhook", hook), hook.events, _poster(hook)) for hook in settings.webhooks]
    email = settings.email
    if email.host:
        listed.append(Target(_name("email", email), email.events, lambda notice: _send_mail(notice, email)))
    return listed


def _name(kind: str, settings: Webhook | Email) -> str:
    return f"{kind}-{digest.json_digest(settings.model_dump(mode='json', exclude={'events'}))[:12]}"


def _poster(hook: Webhook) -> Callable[[Notice], str]:
    return lambda notice: _post(notice, hook)


def _post(notice: Notice, hook: Webhook) -> str:
    message = {"json": lambda n: {**n.payload, "title": n.title}, "slack": slack_message, "teams": teams_message}
    body = json.dumps(message[hook.format](notice), ensure_ascii=False).encode()
    try:
        headers = {"Idempotency-Key": notice.key, **delivery.headers_from_env(hook.headers_variable)}
        if hook.secret_variable:
            key, now = signing_key(hook.secret_variable), int(time.time())
            headers |= signed_headers(body, key=key, message_id=notice.key, timestamp=now)
        url = hook.url or _address(hook.url_variable)
    except UsageError as error:
        return f"not delivered: {error.message}"
    return delivery.post(url, body, headers=headers)


def _address(variable: str) -> str:
    url = os.environ.get(variable, "")
    if not is_address(url):
        raise UsageError(f"{variable} holds no address" if url else f"{variable} is not set")
    return url


def _send_mail(notice: Notice, email: Email) -> str:
    """Send a mail, with further attempts where the server is away or says to try later."""
    password = os.environ.get(email.password_variable, "") if email.user else ""
    if email.user and not password:
        return f"not delivered: {email.password_variable} is not set"
    result = ""
    for pause_s in MAIL_PAUSES_S:
        time.sleep(pause_s)
        result, is_final = _try_mail(notice, email, password)
        if is_final:
            break
    return result


def _try_mail(notice: Notice, email: Email, password: str) -> tuple[str, bool]:
    """The result of one attempt, and whether another one would end alike."""
    message = mail(notice, sender=email.sender, recipients=email.recipients)
    try:
        with smtplib.SMTP(email.host, email.port, timeout=delivery.TIMEOUT_S) as server:
            if email.starttls:
                server.starttls(context=ssl.create_default_context())
            if email.user:
                server.login(email.user, password)
            refused = server.send_message(message)
    except smtplib.SMTPResponseException as error:
        return f"not delivered: the mail server answered {error.smtp_code}", error.smtp_code >= 500
    except smtplib.SMTPRecipientsRefused as error:
        codes = sorted({code for code, _ in error.recipients.values()})
        return f"not delivered: the mail server refused every recipient ({codes[0]})", codes[0] >= 500
    except smtplib.SMTPNotSupportedError:
        return "not delivered: the mail server does not offer what is set (starttls, or a login)", True
    except ssl.SSLError:
        return "not delivered: the certificate of the mail server is not trusted", True
    except (OSError, smtplib.SMTPException) as error:
        return f"not delivered: {getattr(error, 'strerror', None) or type(error).__name__}", False
    return delivery.DELIVERED + (f", not to {len(refused)} of the recipients" if refused else ""), True
