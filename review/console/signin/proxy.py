"""Users whom a proxy in front of the console has signed in, such as Kubeflow's."""

from __future__ import annotations

import ipaddress

from starlette.requests import Request

from review.console.errors import Forbidden, NotSignedIn
from review.console.settings import ProxySettings


def user_of(request: Request, settings: ProxySettings) -> tuple[str, tuple[str, ...]]:
    """The user and the groups in the proxy's headers.

    Raises:
        Forbidden: the request does not come from the proxy, or has a header twice.
        NotSignedIn: the header of the user is missing.
    """
    address = request.client.host if request.client else ""
    if not is_trusted(address, settings):
        raise Forbidden(
            "this address may not say who you are",
            expected="a request through the proxy that signs users in",
            found=f"a request from {address or 'nowhere'}",
            hint="open the console through the proxy; --trusted-proxy names the proxy's address",
        )
    users, groups = (request.headers.getlist(name) for name in (settings.user_header, settings.groups_header))
    if len(users) > 1 or len(groups) > 1:
        raise Forbidden(
            "the proxy did not remove the header of the client",
            expected=f"one header {settings.user_header} and one {settings.groups_header}",
            found="several",
            hint="let the proxy replace the headers instead of adding to them",
        )
    user = users[0].strip().removeprefix(settings.user_prefix) if users else ""
    if not user:
        raise NotSignedIn(
            "the proxy has signed nobody in",
            expected=f"the header {settings.user_header}",
            found="none",
            hint="--user-header names the header of your proxy",
        )
    names = groups[0].split(",") if groups else []
    return user, tuple(name.strip() for name in names if name.strip())


def is_trusted(address: str, settings: ProxySettings) -> bool:
    """Whether the proxy has this address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in settings.trusted)
