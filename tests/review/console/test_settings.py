"""What a console refuses to be started with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rankline.errors import UsageError
from review.console.settings import ConsoleSettings, OidcSettings, ProxySettings, checked, networks
from tests.cli.in_process import refused
from tests.review.console.process import running_console
from tests.review.console.world import World

ROLES = Path("roles.toml")
CLIENT = OidcSettings(issuer="https://id.example", client_id="console", client_secret="secret")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"host": "0.0.0.0"}, "for this machine alone"),
        ({"host": "192.0.2.1"}, "for this machine alone"),
        ({"auth": "proxy", "proxy": ProxySettings(trusted=networks(("127.0.0.1",)))}, "nobody would have a role"),
        ({"auth": "proxy", "roles": ROLES}, "anybody could send the headers"),
        ({"auth": "oidc", "roles": ROLES}, "cannot sign anybody in"),
        ({"auth": "oidc", "roles": ROLES, "oidc": CLIENT, "host": "0.0.0.0"}, "cannot tell its own pages"),
        ({"url": "review.example"}, "not an address"),
        ({"session_key": "secret"}, "can be guessed"),
        ({"auth": "oidc", "roles": ROLES, "oidc": CLIENT, "session_key": "k" * 31}, "can be guessed"),
    ],
)
def test_an_open_console_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        checked(ConsoleSettings(**settings))


def test_an_issuer_without_https_is_refused() -> None:
    client = OidcSettings(issuer="http://id.example", client_id="console", client_secret="secret")
    with pytest.raises(UsageError, match="not https"):
        checked(ConsoleSettings(auth="oidc", roles=ROLES, oidc=client))
    with pytest.raises(UsageError, match="no address or network"):
        networks(("10.0.0.0/99",))


def test_a_console_for_others_is_allowed_with_sign_in_and_an_address() -> None:
    settings = ConsoleSettings(auth="oidc", roles=ROLES, oidc=CLIENT, host="0.0.0.0", url="https://review.example/desk")
    assert checked(settings) is settings
    assert settings.is_secure
    assert settings.base_path == "/desk"
    assert settings.is_own_host("review.example")
    assert not settings.is_own_host("evil.example")
    assert settings.is_own_origin("https://review.example", "review.example")
    assert not settings.is_own_origin("http://review.example", "review.example")
    assert not settings.is_own_origin("null", "review.example")


def test_secrets_are_not_in_messages() -> None:
    assert "secret" not in repr(ConsoleSettings(oidc=CLIENT, session_key="secret")).replace("client_secret", "")


def test_the_command_says_what_is_wrong(world: World) -> None:
    message = refused("review", "serve", "-w", world.workspace, "--host", "0.0.0.0", code=2)
    assert "without sign-in the console is for this machine alone" in message
    message = refused("review", "serve", "-w", world.workspace, "--server", "localhost", code=2)
    assert "--server is not an address" in message


@pytest.mark.integration
def test_a_signal_ends_the_console_with_success(world: World) -> None:
    with running_console(world.workspace) as running:
        assert running.client().get("/healthz").status_code == 200
        running.process.terminate()
        assert running.process.wait(timeout=30) == 0
