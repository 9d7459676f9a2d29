"""How a console is started, and what it refuses to be started with."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from rankline.errors import UsageError

Auth = Literal["none", "proxy", "oidc"]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MIN_KEY_BYTES = 32
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, kw_only=True)
class ProxySettings:
    """The headers of a proxy that signs users in, and the addresses that may set them."""

    user_header: str = "kubeflow-userid"
    groups_header: str = "kubeflow-groups"
    user_prefix: str = ""  # left out of the user's name, such as accounts.google.com:
    trusted: tuple[Network, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OidcSettings:
    """An OpenID Connect client."""

    issuer: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    user_claim: str = "email"
    groups_claim: str = "groups"
    scope: str = "openid email profile"
    unverified_email: bool = False  # the issuer sends no email_verified, and lets nobody choose an address


@dataclass(frozen=True, kw_only=True)
class ConsoleSettings:
    """How to start a console."""

    host: str = "127.0.0.1"
    port: int = 8010  # 0: any free port
    url: str = ""  # where people open it; empty: http://host:port
    auth: Auth = "none"
    roles: Path | None = None
    tokens: Path | None = None
    proxy: ProxySettings = ProxySettings()
    oidc: OidcSettings = OidcSettings()
    servers: tuple[str, ...] = ()
    session_hours: float = 8.0
    session_key: str = field(default="", repr=False)  # signs cookies; empty: a new one at each start
    ready_file: Path | None = None

    @cached_property
    def opened_at(self) -> SplitResult:
        """The address in the browser, in parts."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return urlsplit(self.url or f"http://{host}:{self.port}")

    @property
    def is_secure(self) -> bool:
        """Whether cookies are for HTTPS alone: everywhere but on this machine."""
        return self.opened_at.scheme == "https" or self.opened_at.hostname not in LOOPBACK_NAMES

    @property
    def base_path(self) -> str:
        """What comes before every path in the browser, where a proxy serves the console below a path."""
        return self.opened_at.path.rstrip("/")

    def is_own_host(self, header: str) -> bool:
        """Whether a Host header names this console; a name that someone points at this machine does not."""
        parts = urlsplit(f"//{header}")
        if self.url:
            return parts.netloc.lower() == self.opened_at.netloc.lower()
        return parts.hostname in (*LOOPBACK_NAMES, self.opened_at.hostname)

    def is_own_origin(self, origin: str, host: str) -> bool:
        """Whether an Origin header is that of this console's pages, opened at ``host``."""
        own = f"{self.opened_at.scheme}://{self.opened_at.netloc if self.url else host}"
        return origin.lower() == own.lower()


def checked(settings: ConsoleSettings) -> ConsoleSettings:
    """The settings, if a console can be started with them.

    Raises:
        UsageError: they would let anybody in, or lack what their way to sign in needs.
    """
    if settings.url and (settings.opened_at.scheme not in ("http", "https") or not settings.opened_at.hostname):
        raise UsageError("--url is not an address", expected="https://HOST or https://HOST/PATH", found=settings.url)
    if settings.session_key and len(settings.session_key.encode()) < MIN_KEY_BYTES:
        raise UsageError(
            "the key that signs sessions can be guessed",
            expected=f"RANKLINE_REVIEW_KEY of at least {MIN_KEY_BYTES} bytes",
            found=f"{len(settings.session_key.encode())} bytes",
            hint="`openssl rand -hex 32` makes one",
        )
    if settings.auth == "none":
        _refuse_strangers(settings)
        return settings
    if settings.roles is None:
        raise UsageError(
            "nobody would have a role",
            expected="--roles FILE, which says who is viewer, reviewer and operator",
            found=f"--auth {settings.auth} without --roles",
            hint="docs/console.md has an example of the file",
        )
    if settings.host not in LOOPBACK_NAMES and not settings.url:
        raise UsageError(
            "the console cannot tell its own pages from those of other sites",
            expected="--url, the address at which people open the console",
            found=f"--host {settings.host} without --url",
            hint="--url https://review.example.com",
        )
    if settings.auth == "proxy" and not settings.proxy.trusted:
        raise UsageError(
            "anybody could send the headers of the proxy",
            expected="--trusted-proxy, the address or network of the proxy",
            found="--auth proxy without it",
            hint="--trusted-proxy 127.0.0.6/32 for Istio's sidecar, or the network of the gateway's pods",
        )
    if settings.auth == "oidc":
        _require_client(settings.oidc)
    return settings


def _refuse_strangers(settings: ConsoleSettings) -> None:
    if settings.host not in LOOPBACK_NAMES:
        raise UsageError(
            "without sign-in the console is for this machine alone",
            expected=f"one of {', '.join(LOOPBACK_NAMES)}",
            found=f"--host {settings.host} with --auth none",
            hint="--auth oidc or --auth proxy let other machines in",
        )


def _require_client(oidc: OidcSettings) -> None:
    named = {"--issuer": oidc.issuer, "--client-id": oidc.client_id, "a client secret": oidc.client_secret}
    if absent := [name for name, value in named.items() if not value]:
        raise UsageError(
            "the console cannot sign anybody in",
            expected=", ".join(named),
            found=f"no {' and no '.join(absent)}",
            hint="the variable RANKLINE_OIDC_SECRET, or the one that --secret-variable names, has the secret",
        )
    issuer = urlsplit(oidc.issuer)
    if issuer.scheme != "https" and issuer.hostname not in LOOPBACK_NAMES:
        raise UsageError("the issuer is not https", expected="https://…", found=oidc.issuer)


def networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """Addresses and networks of proxies.

    Raises:
        UsageError: one is neither.
    """
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as error:
        raise UsageError(
            "this is no address or network", expected="such as 10.0.0.0/8 or 127.0.0.1", found=str(error)
        ) from error
