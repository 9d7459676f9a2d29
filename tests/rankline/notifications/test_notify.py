"""Webhooks and mail, received by real servers on a port."""

from __future__ import annotations

import base64
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rankline.announcer import Announcer
from rankline.notifications import delivery, targets
from rankline.notifications.config import Email, NotifyConfig, Webhook
from rankline.notifications.notify import Resent, notify, notify_of_failure, resend
from rankline.notifications.spool import EXPIRY_S, FOLDER, read_entry
from rankline.registry.registry_state import Event, Kind
from tests.rankline.notifications.receivers import mail_server, refused_port, self_signed, web_server

ROOT = Path(__file__).resolve().parents[3]
KEY = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "BACKOFF_S", 0.0)
    monkeypatch.setattr(targets, "MAIL_PAUSES_S", (0.0, 0.0))


def event(kind: Kind = "pending", n: int = 3, **more: Any) -> Event:
    values = {"who": "the flow", "why": "every gate is met", "run_id": "run-1", "digests": {"verdict": "v" * 16}}
    return Event(n=n, kind=kind, model_id="m" * 16, at="2026-11-30T12:00:00.000+00:00", **{**values, **more})


def hooks(*webhooks: Webhook, timeout_s: float = 10.0, **more: Any) -> NotifyConfig:
    return NotifyConfig(webhooks=webhooks, timeout_s=timeout_s, **more)


def entries(workspace: Path) -> list[str]:
    read = [read_entry(path) for path in sorted((workspace / FOLDER).glob("*.json"))]
    return sorted(entry.state for entry in read if entry)


def test_a_webhook_gets_json_and_a_signature_that_the_documented_code_verifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_KEY", KEY)
    with web_server([200]) as (url, received):
        settings = hooks(Webhook(url=url, secret_variable="HOOK_KEY"), console_url="https://desk.example")
        assert notify(event(), settings=settings, workspace=tmp_path, recipe="smoke") == ""
    ((headers, body),) = received
    message = json.loads(body)
    assert message["title"] == "smoke: model mmmmmmmmmmmmmmmm waits for review"
    assert (message["event"], message["number"], message["why"]) == ("pending", 3, "every gate is met")
    assert message["link"] == "https://desk.example/candidates/" + "m" * 16
    assert headers["idempotency-key"] == headers["webhook-id"] == "event-3-pending-" + "m" * 16

    (code,) = re.findall(r"```python\n(def verify.*?|import.*?def verify.*?)```", _page(), re.DOTALL)
    scope: dict[str, Any] = {}
    exec(code, scope)
    verify = scope["verify"]
    assert verify(headers, body, KEY)
    assert not verify(headers, body + b" ", KEY)
    assert not verify(headers, body, "whsec_" + base64.b64encode(b"x" * 32).decode())
    assert not verify({**headers, "webhook-id": "another"}, body, KEY)
    assert not verify({**headers, "webhook-timestamp": str(int(time.time()) - 3600)}, body, KEY)


def _page() -> str:
    return (ROOT / "docs" / "notifications.md").read_text()


@pytest.mark.integration
@pytest.mark.parametrize(
    ("answers", "tries", "warning"),
    [
        ([500, 500, 200], 3, ""),
        ([500], 5, "it answered 500"),
        ([404], 1, "it answered 404"),
        ([302], 1, "answered 302"),
    ],
)
def test_what_is_not_delivered_is_sent_again_by_a_sync(
    tmp_path: Path, answers: list[int], tries: int, warning: str
) -> None:
    with web_server([*answers]) as (url, received):
        text = notify(event(), settings=hooks(Webhook(url=url)), workspace=tmp_path)
        assert len(received) == tries
        assert warning in text
        assert bool(text) is bool(warning)
        assert "s3cret" not in text
        assert entries(tmp_path) == ["not delivered" if warning else "delivered"]
    if warning:
        assert "`rankline sync` sends them again" in text


def test_a_sync_sends_once_more_and_then_never_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_URL", f"http://127.0.0.1:{refused_port()}/s3cret")
    settings = hooks(Webhook(url_variable="HOOK_URL"))
    text = notify(event(), settings=settings, workspace=tmp_path)
    assert "refused" in text.lower()
    assert "s3cret" not in text + "".join(path.read_text() for path in (tmp_path / FOLDER).iterdir())
    assert resend(settings, workspace=tmp_path).delivered == 0
    with web_server([200]) as (url, received):
        monkeypatch.setenv("HOOK_URL", url)
        assert resend(settings, workspace=tmp_path) == Resent(delivered=1)
        assert resend(settings, workspace=tmp_path) == Resent()
        assert notify(event(), settings=settings, workspace=tmp_path) == ""  # a retried step
    assert [each.headers["idempotency-key"] for each in received] == ["event-3-pending-" + "m" * 16]
    assert b"s3cret" not in b"".join(path.read_bytes() for path in (tmp_path / FOLDER).iterdir())


def test_what_a_killed_process_was_sending_is_sent_and_what_is_old_or_of_another_recipe_is_not(tmp_path: Path) -> None:
    with web_server([200]) as (url, received):
        settings = hooks(Webhook(url=url))
        for n in (1, 2, 3):
            notify(event(n=n), settings=settings, workspace=tmp_path)
        paths = {
            int(json.loads(p.read_text())["notice"]["payload"]["number"]): p for p in (tmp_path / FOLDER).iterdir()
        }
        for n, age_s, target in ((1, 60, ""), (2, 2, ""), (3, 60, "webhook-of-another")):
            entry = json.loads(paths[n].read_text())
            entry |= {"state": "sending", "at": time.time() - age_s, "target": target or entry["target"]}
            paths[n].write_text(json.dumps(entry))
        received.clear()
        assert resend(settings, workspace=tmp_path) == Resent(delivered=1, waiting=1)
        assert [json.loads(each.body)["number"] for each in received] == [1]  # 2 may still be on its way
        for path in paths.values():
            if path.exists():
                path.write_text(json.dumps({**json.loads(path.read_text()), "at": time.time() - EXPIRY_S - 1}))
        assert resend(settings, workspace=tmp_path) == Resent()
        assert entries(tmp_path) == []


def test_a_slow_receiver_holds_nothing_up_and_does_not_delay_another(tmp_path: Path) -> None:
    with web_server([200], delay_s=30) as (slow, _), web_server([200]) as (fast, received):
        settings = hooks(Webhook(url=slow), Webhook(url=fast), timeout_s=1.0)
        started = time.monotonic()
        text = notify(event(), settings=settings, workspace=tmp_path)
        assert time.monotonic() - started < 20  # far from the 30 s and its retries
    assert "not delivered within 1 s" in text
    assert "1 of 2" in text
    assert len(received) == 1
    assert entries(tmp_path) == ["delivered", "not delivered"]


def test_each_receiver_gets_the_events_it_wants(tmp_path: Path) -> None:
    with web_server([200]) as (url, received):
        settings = hooks(Webhook(url=url, events=("rolled_back", "failed")))
        kinds: tuple[Kind, ...] = ("registered", "evaluated", "pending", "promoted", "rolled_back", "items_hidden")
        for n, kind in enumerate(kinds, start=1):
            notify(event(kind, n=n), settings=settings, workspace=tmp_path)
        summary = {"run": "run-9", "outcome": "failed", "failed_step": "finetune", "error": "the loss is no number"}
        notify_of_failure(summary, settings=settings, workspace=tmp_path)
    assert [json.loads(each.body)["event"] for each in received] == ["rolled_back", "failed"]
    assert json.loads(received[1].body)["step"] == "finetune"


def test_slack_and_teams_get_their_own_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    why = "see <http://evil.example|this> & [that](http://evil.example)"
    with web_server([200]) as (url, received):
        monkeypatch.setenv("CHAT_URL", url)
        formats = [Webhook(url_variable="CHAT_URL", format=each) for each in ("slack", "teams")]
        for each in formats:
            settings = hooks(each, console_url="https://desk.example/")
            assert notify(event(why=why, details={"break_glass": True}), settings=settings, workspace=tmp_path) == ""
    slack, teams = (json.loads(each.body) for each in received)
    assert "PAST THE GATES" in slack["blocks"][0]["text"]["text"]
    assert "<" not in slack["blocks"][1]["text"]["text"]
    assert "rankline review approve mmmmmmmmmmmmmmmm --evidence vvvv" in slack["blocks"][2]["text"]["text"]
    (card,) = teams["attachments"]
    assert card["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert "[that](" not in card["content"]["body"][1]["text"]
    assert card["content"]["actions"][0]["url"].startswith("https://desk.example/candidates/")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("HOOK_URL", None, "HOOK_URL is not set"),
        ("HOOK_URL", "s3cret", "HOOK_URL holds no address"),
        ("HOOK_URL", "http://[s3cret/", "HOOK_URL holds no address"),
        ("HOOK_KEY", "s3cret", "HOOK_KEY holds no key"),
        ("HOOK_HEADERS", "s3cret", "HOOK_HEADERS does not hold headers"),
        ("HOOK_HEADERS", '{"A": "s3cret\\nB: c"}', "a header cannot be sent"),
    ],
)
def test_a_missing_or_wrong_secret_is_a_warning_that_does_not_repeat_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str | None, message: str
) -> None:
    with web_server([200]) as (url, received):
        for name, right in (("HOOK_URL", url), ("HOOK_KEY", KEY), ("HOOK_HEADERS", "{}")):
            monkeypatch.setenv(name, right)
        monkeypatch.setenv(variable, value) if value is not None else monkeypatch.delenv(variable)
        hook = Webhook(url_variable="HOOK_URL", secret_variable="HOOK_KEY", headers_variable="HOOK_HEADERS")
        text = notify(event(), settings=hooks(hook), workspace=tmp_path)
    assert message in text
    assert "s3cret" not in text
    assert not received


def test_a_workspace_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("a file")
    with web_server([200]) as (url, _):
        assert "`rankline sync`" in notify(event(), settings=hooks(Webhook(url=url)), workspace=tmp_path)


# -- mail ----------------------------------------------------------------------------------------------------------


def mail_settings(port: int, **more: Any) -> NotifyConfig:
    values = {"host": "127.0.0.1", "port": port, "sender": "rankline@here.example", "recipients": ("a@b.example",)}
    return NotifyConfig(email=Email(**{**values, "starttls": False, **more}), timeout_s=10.0)


def test_a_mail_is_sent_with_an_id_of_the_event(tmp_path: Path) -> None:
    with mail_server() as (port, mails):
        settings = mail_settings(port, recipients=("a@b.example", "c@d.example"))
        assert notify(event(why="line\nline"), settings=settings, workspace=tmp_path, recipe="smoke") == ""
    (mail,) = mails
    assert "Subject: smoke: model mmmmmmmmmmmmmmmm waits for review" in mail.text
    assert f"Message-ID: <event-3-pending-{'m' * 16}@rankline>" in mail.text
    assert len(mail.recipients) == 2
    assert not mail.encrypted


def test_a_login_is_sent_over_a_trusted_encrypted_connection_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = self_signed(tmp_path)
    monkeypatch.setenv("MAIL_PASSWORD", "s3cret")
    login = {"starttls": True, "user": "me", "password_variable": "MAIL_PASSWORD"}
    with mail_server(certificate=certificate) as (port, mails):
        assert "certificate" in notify(event(), settings=mail_settings(port, **login), workspace=tmp_path)
        assert not mails
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        assert resend(mail_settings(port, **login), workspace=tmp_path).delivered == 1
    (mail,) = mails
    assert mail.encrypted
    assert base64.b64decode(mail.login.split()[-1]) == b"\0me\0s3cret"
    with mail_server() as (port, mails):  # a server that offers no encryption gets nothing
        assert "does not offer" in notify(event(), settings=mail_settings(port, **login), workspace=tmp_path)
        assert not mails


@pytest.mark.parametrize(("code", "tries"), [("451 later", 2), ("550 never", 1)])
def test_a_mail_server_that_says_later_is_asked_again(tmp_path: Path, code: str, tries: int) -> None:
    commands: list[str] = []

    def answer(command: str) -> str:
        commands.append(command.upper())
        return code if command.upper().startswith("MAIL") else ""

    with mail_server(answer=answer) as (port, mails):
        text = notify(event(), settings=mail_settings(port), workspace=tmp_path)
    assert f"answered {code[:3]}" in text
    assert sum(command.startswith("MAIL") for command in commands) == tries
    assert not mails


def test_a_recipient_that_is_refused_does_not_keep_the_mail_from_the_others(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"recipients": ("a@b.example", "nobody@b.example")}
    with mail_server(answer=lambda line: "550 who?" if "nobody" in line else "") as (port, mails):
        assert notify(event(), settings=mail_settings(port, **settings), workspace=tmp_path) == ""
    assert len(mails) == 1
    assert entries(tmp_path) == ["delivered"]


def test_a_mail_server_that_is_away_is_a_warning(tmp_path: Path) -> None:
    text = notify(event(), settings=mail_settings(refused_port()), workspace=tmp_path)
    assert "refused" in text.lower()


# -- settings and runs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (Webhook, {}),
        (Webhook, {"url": "https://a.example", "url_variable": "A"}),
        (Webhook, {"url": "ftp://a.example"}),
        (Webhook, {"url": "https://me:s3cret@a.example"}),
        (Webhook, {"url": "https://a.example/?token=s3cret"}),
        (Webhook, {"url": "https://hooks.slack.example/s3cret", "format": "slack"}),
        (Webhook, {"url_variable": "not a name"}),
        (Webhook, {"url": "https://a.example", "events": ["pendign"]}),
        (Webhook, {"url": "https://a.example", "events": []}),
        (Email, {"host": "mail.example"}),
        (Email, {"sender": "nobody"}),
        (Email, {"host": "m", "sender": "a@b", "recipients": ["c@d"], "user": "me"}),
        (Email, {"host": "m", "sender": "a@b", "recipients": ["c@d"], "user": "me", "password_variable": "P",
                 "starttls": False}),
    ],
)  # fmt: skip
def test_settings_that_name_a_secret_or_nobody_are_refused(kind: type[Webhook], settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        kind(**settings)


@pytest.mark.parametrize(
    ("outcome", "count"), [("failed", 1), ("stale", 1), ("incomplete", 1), ("cancelled", 0), ("promoted", 0)]
)
def test_a_run_that_fails_is_announced_and_one_that_a_user_ends_is_not(
    tmp_path: Path, outcome: str, count: int
) -> None:
    with web_server([200]) as (url, received):
        announcer = Announcer(tmp_path, notify=hooks(Webhook(url=url)), recipe="smoke")
        if announcer.hears_of(outcome):
            announcer.announce_failure({"run": "run-1", "outcome": outcome, "failed_step": "", "error": "e"})
    assert len(received) == count
    assert not Announcer(tmp_path).hears_of("failed")
