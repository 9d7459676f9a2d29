"""Sign-in at a real issuer, which lies in one respect at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from review.console.app import create_app
from review.console.routes.sign_in import own_path
from review.console.settings import ConsoleSettings, OidcSettings
from review.desk import Desk
from tests.review.console.issuer import CLIENT, SECRET, Issuer, running_issuer
from tests.review.console.process import RunningConsole, form_of, running_console
from tests.review.console.world import World

SESSION_HOURS = 0.01  # 36 seconds, the shortest


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with running_issuer() as running:
        yield running


@pytest.fixture(scope="module")
def signed(world: World, roles: Path, issuer: Issuer) -> Iterator[RunningConsole]:
    options = ("--auth", "oidc", "--roles", roles, "--issuer", issuer.url, "--client-id", CLIENT)
    with running_console(world.workspace, *options, RANKLINE_OIDC_SECRET=SECRET) as running:
        yield running


@pytest.fixture
def browser(signed: RunningConsole, issuer: Issuer) -> httpx.Client:
    issuer.honest(email="ada", email_verified=True)
    client = signed.client()
    client.follow_redirects = True
    return client


@pytest.mark.integration
def test_a_user_signs_in_and_comes_back_to_the_page(browser: httpx.Client, world: World) -> None:
    page = browser.get("/timeline", params={"kind": "promoted"})
    assert page.status_code == 200
    assert page.url.path == "/timeline"
    assert page.url.query == b"kind=promoted"
    assert "operator" in page.text
    (cookie,) = [each for each in browser.cookies.jar if each.name == "rankline"]
    assert cookie.has_nonstandard_attr("httponly")
    assert not cookie.secure, "on this machine there is no HTTPS"


def test_groups_give_roles(browser: httpx.Client, issuer: Issuer) -> None:
    issuer.honest(email="new", email_verified=True, groups=["others", "ml-reviewers"])
    assert "reviewer" in browser.get("/").text


def test_a_user_without_a_role_is_signed_in_and_sees_whom_to_ask(browser: httpx.Client, issuer: Issuer) -> None:
    issuer.honest(email="new", email_verified="true")
    page = browser.get("/")
    assert page.status_code == 403
    assert "ask the search team" in page.text
    page = browser.post("/sign-out", data=form_of(page, "/sign-out"))
    assert "You are signed out" in page.text, "another account may have a role"


@pytest.mark.parametrize(
    "overrides",
    [
        {"nonce": "another"}, {"nonce": None}, {"iss": "https://evil.example"}, {"iss": None},
        {"aud": "another-client"}, {"aud": None}, {"aud": ["another", "third"]}, {"azp": "another-client"},
        {"exp": int(time.time()) - 3600}, {"exp": None}, {"iat": int(time.time()) + 3600}, {"sub": None},
    ],
)  # fmt: skip
def test_an_id_token_that_is_not_for_this_sign_in_is_refused(
    browser: httpx.Client, issuer: Issuer, overrides: dict[str, Any]
) -> None:
    issuer.overrides = overrides
    page = browser.get("/")
    assert page.status_code == 401
    assert "the sign-in was not accepted" in page.text
    issuer.honest(email="ada", email_verified=True)
    assert browser.get("/").status_code == 200


@pytest.mark.parametrize("signed_by", ["another", "secret", "none"])
def test_an_id_token_with_a_wrong_signature_is_refused(browser: httpx.Client, issuer: Issuer, signed_by: str) -> None:
    issuer.signed_by = signed_by
    page = browser.get("/")
    assert page.status_code == 401
    assert "Traceback" not in page.text


def test_a_wrong_state_is_refused(browser: httpx.Client, issuer: Issuer) -> None:
    issuer.state = "another"
    assert browser.get("/").status_code == 401


def test_a_code_of_another_browser_is_refused(browser: httpx.Client, signed: RunningConsole, issuer: Issuer) -> None:
    """An attacker's own answer of the issuer, which a victim's browser is sent to."""
    attacker = signed.client()
    location = attacker.get(attacker.get("/").headers["location"]).headers["location"]
    back = httpx.get(location).headers["location"]
    victim = signed.client()
    assert victim.get(back).status_code == 401
    assert attacker.get(back).status_code == 303
    assert attacker.get(back).status_code == 401, "a code counts once"


def test_the_issuers_refusal_is_shown(browser: httpx.Client, issuer: Issuer) -> None:
    issuer.refusal = "access_denied"
    page = browser.get("/")
    assert page.status_code == 401
    assert "access_denied" in page.text


@pytest.mark.parametrize(
    ("userinfo", "words"),
    [
        *[({"email": "ada", "email_verified": each}, "not verified") for each in (False, "false", 0, 1, "", ["true"])],
        ({"email": "ada"}, "the issuer does not say"),
        ({"name": "Ada"}, "says no email of you"),
    ],
)
def test_an_address_that_the_issuer_does_not_vouch_for_is_refused(
    browser: httpx.Client, issuer: Issuer, userinfo: dict[str, Any], words: str
) -> None:
    issuer.honest(**userinfo)
    page = browser.get("/")
    assert page.status_code == 403
    assert words in page.text


@pytest.mark.parametrize(
    ("sent", "is_accepted"), [({}, True), ({"email_verified": True}, True), ({"email_verified": False}, False)]
)
def test_an_issuer_that_does_not_verify_addresses_can_be_trusted(
    roles: Path, issuer: Issuer, world: World, sent: dict[str, Any], is_accepted: bool
) -> None:
    """The option accepts an absent claim alone."""
    oidc = OidcSettings(issuer=issuer.url, client_id=CLIENT, client_secret=SECRET, unverified_email=True)
    app = create_app(Desk(world.models, world.workspace), ConsoleSettings(auth="oidc", roles=roles, oidc=oidc))
    issuer.honest(email="ada", **sent)
    with TestClient(app, base_url="http://127.0.0.1:8010", follow_redirects=False) as client:
        location = client.get("/sign-in").headers["location"]
        back = httpx.get(location).headers["location"]
        assert (client.get(back).status_code == 303) is is_accepted


def test_signing_out_ends_the_session_and_every_copy_of_its_cookie(browser: httpx.Client, issuer: Issuer) -> None:
    token = form_of(browser.get("/"), "/sign-out")
    copied = browser.cookies["rankline"]
    assert browser.post("/sign-out", data={}).status_code == 403
    page = browser.post("/sign-out", data=token)
    assert page.status_code == 200
    assert "You are signed out" in page.text
    thief = httpx.Client(base_url=browser.base_url, cookies={"rankline": copied})
    assert thief.get("/").status_code == 303


def test_a_script_is_not_sent_to_sign_in(signed: RunningConsole) -> None:
    response = signed.client(accept="application/json").get("/")
    assert response.status_code == 401
    assert response.json()["hint"] == "sign in"
    assert signed.client().post("/roll-back", data={}).status_code == 401


def test_a_session_ends(world: World, roles: Path, issuer: Issuer) -> None:
    """The shortest session lasts 36 seconds: its end is checked where it is decided."""
    from starlette.requests import Request

    from review.console.settings import ConsoleSettings
    from review.console.signin.session import Sessions

    sessions = Sessions(ConsoleSettings(session_hours=SESSION_HOURS), "key")
    request = Request({"type": "http", "session": {}, "headers": []})
    sessions.begin(request, "ada", ())
    assert sessions.user(request) == ("ada", ())
    request.session["until"] = time.time() - 1
    assert sessions.user(request) is None


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example", "evil", "/a\nb", ""])
def test_nobody_is_sent_to_another_site_after_sign_in(target: str) -> None:
    assert own_path(target) == "/"
    assert own_path("/timeline?kind=promoted") == "/timeline?kind=promoted"
