"""The settings of notifications. Secrets, and addresses that are secrets, are in environment variables."""

from __future__ import annotations

import re
import urllib.parse
from typing import Literal

from pydantic import Field, model_validator

from rankline.contracts import FrozenModel

NoticeKind = Literal["pending", "approved", "promoted", "rejected", "rolled_back", "failed"]
EVERY_KIND: tuple[NoticeKind, ...] = ("pending", "approved", "promoted", "rejected", "rolled_back", "failed")
_VARIABLE = r"^([A-Za-z_][A-Za-z0-9_]*)?$"
_SECRET_HOSTS = (
    "hooks.slack.com", "hooks.slack-gov.com", ".webhook.office.com", ".logic.azure.com", ".powerplatform.com",
)  # fmt: skip
_EVENTS = "Events to send: pending, approved, promoted, rejected, rolled_back; and failed, for failed runs."


def is_address(url: str) -> bool:
    """Whether this is a web address that can be posted to."""
    try:
        parts = urllib.parse.urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and url.isascii() and url.isprintable()
    except ValueError:
        return False


def _is_secret_address(url: str) -> bool:
    """Whether the address alone lets its reader post: those of the chat services do."""
    host = (urllib.parse.urlsplit(url).hostname or "").rstrip(".")
    return host.endswith(_SECRET_HOSTS)


class Webhook(FrozenModel):
    """An address that gets a POST for each event."""

    url: str = Field("", description="The address, if it holds no secret.")
    url_variable: str = Field("", pattern=_VARIABLE, description="Environment variable that holds the address.")
    format: Literal["json", "slack", "teams"] = Field("json", description="What is posted.")
    events: tuple[NoticeKind, ...] = Field(EVERY_KIND, min_length=1, description=_EVENTS)
    secret_variable: str = Field(
        "", pattern=_VARIABLE, description="Environment variable that holds the key of the signature, in base64."
    )
    headers_variable: str = Field(
        "", pattern=_VARIABLE, description="Environment variable that holds further headers, as a JSON object."
    )

    @model_validator(mode="after")  # of the whole: the message of a field's validator would repeat its value
    def _has_one_address_without_a_secret(self) -> Webhook:
        if self.url and not is_address(self.url):
            raise ValueError("an address begins with http:// or https://")
        if "@" in self.url or "?" in self.url:
            raise ValueError("an address with a user or a query may hold a secret: name a variable in url_variable")
        if bool(self.url) == bool(self.url_variable):
            raise ValueError("a webhook has either a url or a url_variable")
        if self.url and (self.format != "json" or _is_secret_address(self.url)):
            raise ValueError("whoever knows an address of Slack or Teams can post there: name it in url_variable")
        return self


class Email(FrozenModel):
    """The mail server, and who gets a mail for each event."""

    host: str = Field("", description="The mail server; empty for no mail.")
    port: int = Field(587, ge=1, le=65535, description="Its port.")
    starttls: bool = Field(True, description="Whether the connection must be encrypted.")
    user: str = Field("", description="Who logs in; empty for nobody.")
    password_variable: str = Field("", pattern=_VARIABLE, description="Environment variable that holds the password.")
    sender: str = Field("", description="Address of the sender.")
    recipients: tuple[str, ...] = Field((), description="Addresses of the recipients.")
    events: tuple[NoticeKind, ...] = Field(EVERY_KIND, min_length=1, description=_EVENTS)

    @model_validator(mode="after")
    def _is_complete(self) -> Email:
        addresses = [*self.recipients, *([self.sender] if self.sender else [])]
        if wrong := [each for each in addresses if not re.fullmatch(r"[^@\s]+@[^@\s]+", each)]:
            raise ValueError(f"an address is name@host, unlike {wrong[0]!r}")
        if self.host and not (self.sender and self.recipients):
            raise ValueError("mail needs a sender and recipients")
        if bool(self.user) != bool(self.password_variable):
            raise ValueError("a user needs a password_variable, and a password a user")
        if self.user and not self.starttls:
            raise ValueError("a password is sent over an encrypted connection only: starttls=true")
        return self


class NotifyConfig(FrozenModel):
    """Who is notified of candidates, promotions, rollbacks and failed runs."""

    webhooks: tuple[Webhook, ...] = Field((), description="Addresses that get a POST for each event.")
    email: Email = Email()
    console_url: str = Field("", pattern=r"^(https?://[^@?#\s]+)?$", description="Address of the console, for links.")
    timeout_s: float = Field(
        20.0, gt=0, le=600, description="Longest time that a run or a command waits for deliveries, in seconds."
    )
