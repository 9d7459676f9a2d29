"""Users whom a trusted proxy names, their roles, and tokens of scripts."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rankline.errors import UsageError
from review.console.signin.roles import read_roles
from review.console.signin.tokens import add_token, read_tokens, revoke_token
from tests.cli.in_process import rankline
from tests.review.console.conftest import ROLES
from tests.review.console.process import RunningConsole
from tests.review.console.world import World


@pytest.fixture
def tokens(world: World) -> Path:
    return world.workspace / "review" / "tokens.json"


@pytest.fixture
def restored_roles(roles: Path) -> Iterator[Path]:
    yield roles
    roles.write_text(ROLES)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        ({"kubeflow_userid": "vera"}, 200, "viewer"),
        ({"kubeflow_userid": "idp:ada"}, 200, "operator"),
        ({"kubeflow_userid": "new", "kubeflow_groups": "others, ml-reviewers"}, 200, "reviewer"),
        ({"kubeflow_userid": "new", "kubeflow_groups": "others"}, 403, "ask the search team"),
        ({}, 401, "the proxy has signed nobody in"),
        ({"kubeflow_userid": "idp:"}, 401, "the proxy has signed nobody in"),
    ],
)
def test_the_proxy_says_who_asks(
    behind_proxy: RunningConsole, headers: dict[str, str], status: int, words: str
) -> None:
    page = behind_proxy.client(**headers).get("/")
    assert page.status_code == status
    assert words in page.text


@pytest.mark.parametrize("forwarded", [{}, {"x_forwarded_for": "127.0.0.1"}, {"forwarded": "for=127.0.0.1"}])
def test_others_may_not_say_who_they_are(behind_proxy: RunningConsole, forwarded: dict[str, str]) -> None:
    page = behind_proxy.client(address="127.0.0.2", kubeflow_userid="ada", **forwarded).get("/")
    assert page.status_code == 403
    assert "this address may not say who you are" in page.text


def test_a_header_that_comes_twice_is_refused(behind_proxy: RunningConsole) -> None:
    twice = [("kubeflow-userid", "ada"), ("kubeflow-userid", "vera")]
    assert behind_proxy.client().get("/", headers=twice).status_code == 403


def test_a_role_that_is_taken_away_ends_at_once(behind_proxy: RunningConsole, restored_roles: Path) -> None:
    vera = behind_proxy.client(kubeflow_userid="vera")
    assert vera.get("/").status_code == 200
    restored_roles.write_text(ROLES.replace('"vera" = "viewer"', ""))
    assert vera.get("/").status_code == 403
    restored_roles.write_text("users = 3")
    assert vera.get("/").status_code == 503, "nobody keeps a role that an unreadable file may have taken away"


@pytest.mark.integration
def test_another_host_is_refused(behind_proxy: RunningConsole, console: RunningConsole) -> None:
    for each in (behind_proxy, console):
        page = each.client(kubeflow_userid="ada", host="evil.example").get("/")
        assert page.status_code == 403
        assert "this console has another address" in page.text


def test_a_token_is_known_at_once_and_until_it_is_revoked(
    behind_proxy: RunningConsole, world: World, tokens: Path
) -> None:
    done = rankline("review", "token", "report", "-w", world.workspace, "--json")
    secret = json.loads(done.stdout)["token"]
    assert stat.S_IMODE(tokens.stat().st_mode) == 0o600
    assert secret not in tokens.read_text()
    script = behind_proxy.script(secret)
    assert script.get("/").json()["shows"] == "waiting"
    refused = script.post(f"/candidates/{world.waiting}/reject", json={"reason": "it is bad", "verdict": world.verdict})
    assert refused.status_code == 403
    assert refused.json()["found"] == "token:report is viewer"
    assert rankline("review", "token", "report", "-w", world.workspace, "--revoke").returncode == 0
    gone = script.get("/")
    assert gone.status_code == 401
    assert gone.headers["www-authenticate"] == "Bearer"


def test_a_token_does_not_need_the_proxy(behind_proxy: RunningConsole, tokens: Path) -> None:
    secret = add_token(tokens, "direct", "viewer")
    away = behind_proxy.client(address="127.0.0.2", authorization=f"Bearer {secret}", accept="application/json")
    assert away.get("/").status_code == 200
    basic = behind_proxy.client(address="127.0.0.2", authorization=f"Basic {secret}")
    assert basic.get("/").status_code == 401


def test_a_bearer_token_of_the_proxy_is_none_of_the_console(behind_proxy: RunningConsole) -> None:
    page = behind_proxy.client(kubeflow_userid="vera", authorization="Bearer eyJhbGciOi").get("/")
    assert page.status_code == 200


def test_a_token_that_was_never_one_is_refused(console: RunningConsole) -> None:
    response = console.script("rankline_nonsense").get("/")
    assert response.status_code == 401
    assert response.json()["error"] == "this token is not one of the console's"


def test_a_token_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    add_token(path, "one", "viewer")
    with pytest.raises(UsageError, match="already"):
        add_token(path, "one", "operator")
    with pytest.raises(UsageError, match="no token named"):
        revoke_token(path, "two")
    with pytest.raises(UsageError, match="a token needs a name"):
        add_token(path, " ", "viewer")
    path.chmod(0o640)
    with pytest.raises(UsageError, match="open to others"):
        read_tokens(path)


@pytest.mark.parametrize(
    "text", ['[users]\n"ada" = "owner"', "[people]", "[users", '[users]\n"ada" = 3', 'contact = ["a"]']
)
def test_a_roles_file_with_something_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "roles.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match="roles file cannot be read"):
        read_roles(path)
    with pytest.raises(UsageError, match="No such file"):
        read_roles(tmp_path / "none.toml")


def test_the_highest_role_counts(roles: Path) -> None:
    assert read_roles(roles).role("vera", ("ml-reviewers",)) == "reviewer"
    assert read_roles(roles).role("ada", ("ml-reviewers",)) == "operator"
    assert read_roles(roles).role("nobody", ()) is None


def test_health_needs_no_sign_in(behind_proxy: RunningConsole) -> None:
    response: httpx.Response = behind_proxy.client(address="127.0.0.2", host="10.1.2.3").get("/healthz")
    assert response.json() == {"ready": True}
