"""Approve, reject, roll back and promote past the gates: forms of one's own session, each an event with a name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from rankline.registry.registry_state import Event
from review.console.signin.tokens import add_token
from tests.review.console.process import RunningConsole, form_of
from tests.review.console.world import World

REASON = "it recommends new items"
Candidates = Callable[..., Event]


def send(
    client: httpx.Client, page: str, action: str, *, headers: dict[str, str] | None = None, **fields: str
) -> httpx.Response:
    """The form of a page, filled in and sent as a browser does."""
    origin = {"origin": str(client.base_url).rstrip("/"), "sec-fetch-site": "same-origin"}
    form = form_of(client.get(page), action)
    return client.post(action, data={**form, **fields}, headers={**origin, **(headers or {})})


@pytest.mark.integration
def test_an_approval_is_an_event_with_the_reviewers_name(
    behind_proxy: RunningConsole, world: World, candidate: Candidates
) -> None:
    model = candidate().model_id
    rob = behind_proxy.client(kubeflow_userid="rob")
    answer = send(rob, f"/candidates/{model}", f"/candidates/{model}/approve", approval=REASON)
    event = world.models.history()[-1]
    assert answer.status_code == 303, answer.text
    assert answer.headers["location"] == f"/candidates/{model}?event={event.n}"
    assert (event.kind, event.model_id, event.who, event.why) == ("promoted", model, "rob", REASON)
    assert world.models.champion() == model
    page = rob.get(answer.headers["location"]).text
    assert f"Event {event.n} is recorded" in page
    assert "the online store" in page, "the desk's warning"
    assert "the online store" not in rob.get(f"/candidates/{model}").text
    again = rob.post(f"/candidates/{model}/approve", data={})
    assert again.status_code == 403


def test_a_rejection_needs_a_reason_and_what_was_typed_stays(
    behind_proxy: RunningConsole, world: World, candidate: Candidates
) -> None:
    model = candidate().model_id
    path, rob = f"/candidates/{model}", behind_proxy.client(kubeflow_userid="rob")
    for typed in ("", "bad", "x " * 1500):
        page = send(rob, path, f"{path}/reject", rejection=typed)
        assert page.status_code == 422
        assert '<a href="#rejection">' in page.text
        assert 'aria-invalid="true"' in page.text
        assert f">{typed}</textarea>" in page.text
    assert world.models.history()[-1].kind == "pending"
    assert send(rob, path, f"{path}/reject", rejection=REASON).status_code == 303
    assert world.models.history()[-1].kind == "rejected"
    assert world.models.history()[-1].who == "rob"


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({"origin": "https://evil.example"}, None),
        ({"origin": "null"}, None),
        ({"sec-fetch-site": "cross-site"}, None),
        ({"sec-fetch-site": "same-site"}, None),
        ({}, ""),
        ({}, "0" * 64),
    ],
)
def test_a_form_of_another_site_is_refused(
    behind_proxy: RunningConsole, world: World, candidate: Candidates, headers: dict[str, str], token: str | None
) -> None:
    model = candidate().model_id
    path, events = f"/candidates/{model}", len(world.models.history())
    fields = {} if token is None else {"token": token}
    rob = behind_proxy.client(kubeflow_userid="rob")
    page = send(rob, path, f"{path}/reject", headers=headers, rejection=REASON, **fields)
    assert page.status_code == 403
    assert len(world.models.history()) == events


def test_a_form_of_another_session_or_user_is_refused(behind_proxy: RunningConsole, candidate: Candidates) -> None:
    model = candidate().model_id
    path, rob = f"/candidates/{model}", behind_proxy.client(kubeflow_userid="rob")
    form = {**form_of(rob.get(path), f"{path}/reject"), "rejection": REASON}
    without_cookies = behind_proxy.client(kubeflow_userid="rob")
    assert without_cookies.post(f"{path}/reject", data=form).status_code == 403
    without_cookies.get(path)
    assert without_cookies.post(f"{path}/reject", data=form).status_code == 403
    rob.headers["kubeflow-userid"] = "ada"
    assert rob.post(f"{path}/reject", data=form).status_code == 403
    rob.headers["kubeflow-userid"] = "rob"
    rob.cookies.set("rankline", rob.cookies["rankline"][:-2] + "xx")
    assert rob.post(f"{path}/reject", data=form).status_code == 403


def test_a_viewer_reads_and_a_reviewer_does_not_roll_back(
    behind_proxy: RunningConsole, world: World, candidate: Candidates
) -> None:
    model, events = candidate().model_id, len(world.models.history())
    vera, rob = (behind_proxy.client(kubeflow_userid=name) for name in ("vera", "rob"))
    page = vera.get(f"/candidates/{model}")
    assert "a reviewer or an operator decides" in page.text
    assert "<form" not in page.text.partition("<main")[2]
    token = form_of(rob.get(f"/candidates/{model}"), "/reject")
    assert "an operator rolls back" in rob.get("/serving").text
    refused = rob.post("/roll-back", data={**token, "model": world.former, "reason": REASON})
    assert refused.status_code == 403
    assert "rob is reviewer" in refused.text
    assert rob.post(f"/candidates/{model}/break-glass", data={**token, "reason": REASON}).status_code == 403
    assert vera.post(f"/candidates/{model}/approve", data={}).status_code == 403
    assert len(world.models.history()) == events


def test_an_operator_rolls_back_and_promotes_past_the_gates(
    behind_proxy: RunningConsole, world: World, candidate: Candidates
) -> None:
    model = candidate("rejected").model_id
    path, ada = f"/candidates/{model}", behind_proxy.client(kubeflow_userid="ada")
    page = send(ada, path, f"{path}/break-glass", emergency=REASON)
    assert page.status_code == 422
    assert '<a href="#confirm">' in page.text
    assert "<details open>" in page.text
    assert send(ada, path, f"{path}/break-glass", emergency=REASON, confirm="yes").status_code == 303
    event = world.models.history()[-1]
    assert (event.who, event.model_id, event.details["break_glass"]) == ("ada", model, True)
    for shown in ("/", "/serving", "/timeline"):
        assert "No gate has passed the champion." in ada.get(shown).text
    answer = send(ada, "/serving", "/roll-back", model=event.champion_before, reason=REASON)
    assert answer.status_code == 303
    assert world.models.champion() == event.champion_before
    assert "No gate has passed the champion." not in ada.get("/serving").text


def test_a_rollback_from_an_old_page_is_refused(
    behind_proxy: RunningConsole, world: World, candidate: Candidates
) -> None:
    ada = behind_proxy.client(kubeflow_userid="ada")
    form = {**form_of(ada.get("/serving"), "/roll-back"), "reason": REASON}
    world.models.append("promoted", candidate().model_id, who="test", why="another one")
    page = ada.post("/roll-back", data={**form, "model": world.former})
    assert page.status_code == 409
    assert "the champion changed since" in page.text
    assert REASON in page.text


def test_evidence_that_cannot_be_read_is_not_offered_for_approval(
    behind_proxy: RunningConsole, world: World, candidate: Candidates
) -> None:
    chosen = candidate()
    rob, path = behind_proxy.client(kubeflow_userid="rob"), f"/candidates/{chosen.model_id}"
    assert f"{path}/approve" in rob.get(path).text
    folder = Path(world.models.evidence(chosen.digests["verdict"]))
    folder.rename(folder.with_name("gone"))
    try:
        page = rob.get(path).text
    finally:
        folder.with_name("gone").rename(folder)
    assert "The evidence cannot be read." in page
    assert f"{path}/approve" not in page
    assert f"{path}/reject" in page


def test_stale_evidence_is_a_conflict_that_says_what_changed(
    behind_proxy: RunningConsole, world: World, candidate: Candidates
) -> None:
    model = candidate().model_id
    path, rob = f"/candidates/{model}", behind_proxy.client(kubeflow_userid="rob")
    form = {**form_of(rob.get(path), f"{path}/approve"), "approval": REASON}
    other = world.former if world.models.champion() != world.former else world.champion
    event = world.models.append("rolled_back", other, who="test", why="it was better")
    page = rob.post(f"{path}/approve", data=form)
    assert page.status_code == 409
    assert f"since event {event.n}" in page.text
    assert f"rankline evaluate --candidate {model[:12]}" in page.text
    assert f"{path}/approve" not in page.text, "what would be refused is not offered"
    for text in (page.text, rob.get("/").text):
        assert not re.search(r"at \d{4}-\d\d-\d\dT", text), "every time is written in one way"
    assert send(rob, path, f"{path}/reject", rejection=REASON).status_code == 303


def test_four_eyes_are_shown_and_kept(behind_proxy: RunningConsole, world: World, candidate: Candidates) -> None:
    model = candidate(started_by="rob@laptop", four_eyes=True).model_id
    path, rob = f"/candidates/{model}", behind_proxy.client(kubeflow_userid="rob")
    assert "A second reviewer is needed: you started this run." in rob.get(path).text
    page = send(rob, path, f"{path}/approve", approval=REASON)
    assert page.status_code == 403
    assert "who started a run may not approve its model" in page.text
    assert world.models.history()[-1].kind == "pending"


def test_two_reviewers_approve_where_nobody_knows_who_started(
    behind_proxy: RunningConsole, world: World, candidate: Candidates
) -> None:
    model = candidate(four_eyes=True).model_id
    path = f"/candidates/{model}"
    rob, ada = (behind_proxy.client(kubeflow_userid=name) for name in ("rob", "ada"))
    assert "Two reviewers are needed" in rob.get(path).text
    assert send(rob, path, f"{path}/approve", approval=REASON).status_code == 303
    assert world.models.history()[-1].kind == "approved"
    assert "A second reviewer is needed: you approved" in rob.get(path).text
    assert send(rob, path, f"{path}/approve", approval=REASON).status_code == 403
    assert "your approval is the second" in ada.get(path).text


def test_a_script_acts_without_a_form_and_gets_json(
    behind_proxy: RunningConsole, world: World, candidate: Candidates, tmp_path: Path
) -> None:
    event = candidate()
    script = behind_proxy.script(add_token(world.workspace / "review" / "tokens.json", f"bot-{event.n}", "operator"))
    path, body = f"/candidates/{event.model_id}", {"reason": REASON, "verdict": event.digests["verdict"][:12]}
    refused = script.post(f"{path}/reject", json={**body, "reason": "bad"})
    assert refused.status_code == 422
    assert refused.json()["error"] == "Enter a reason"
    assert script.post(f"{path}/reject", json={**body, "verdict": "0" * 12}).status_code == 404
    assert script.post(f"{path}/reject", json={"reason": REASON}).json()["error"] == "Name the evidence"
    answer = script.post(f"{path}/reject", json=body)
    assert answer.status_code == 200
    assert answer.json()["who"] == f"token:bot-{event.n}"
    assert answer.json()["kind"] == "rejected"
    conflict = script.post(f"{path}/reject", json=body)
    assert conflict.status_code == 409


def test_a_script_is_no_second_pair_of_eyes(behind_proxy: RunningConsole, world: World, candidate: Candidates) -> None:
    event = candidate(four_eyes=True)
    script = behind_proxy.script(add_token(world.workspace / "review" / "tokens.json", f"bot-{event.n}", "operator"))
    body = {"reason": REASON, "verdict": event.digests["verdict"]}
    refused = script.post(f"/candidates/{event.model_id}/approve", json=body)
    assert refused.status_code == 403
    assert world.models.history()[-1].n == event.n


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"a=" + b"x" * 40_000, "application/x-www-form-urlencoded", 413),
        (b"&".join(b"a%d=1" % n for n in range(50)), "application/x-www-form-urlencoded", 400),
        (b"\xff\xfe=1", "application/x-www-form-urlencoded", 400),
        (b"{", "application/json", 400),
        (b'{"reason": 1}', "application/json", 400),
        (b"[" * 30_000, "application/json", 400),
        (b'{"a":' * 6_000, "application/json", 400),
        (b'{"reason": "a \\ud800 b"}', "application/json", 400),
        (b'{"token": "\\udfff"}', "application/json", 400),
        (b"reason=%ED%A0%80", "application/x-www-form-urlencoded", 400),
        (b"a=1", "text/plain", 400),
        (b"a=1", "multipart/form-data; boundary=x", 400),
    ],
)
def test_a_body_that_is_no_small_form_is_refused(
    behind_proxy: RunningConsole, world: World, content: bytes, kind: str, status: int
) -> None:
    rob = behind_proxy.client(kubeflow_userid="rob")
    page = rob.post(f"/candidates/{world.waiting}/reject", content=content, headers={"content-type": kind})
    assert page.status_code == status
    assert "Traceback" not in page.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 401), ({"kubeflow_userid": "vera"}, 403), ({"kubeflow_userid": "rob", "host": "x"}, 403)],
)
def test_a_body_is_not_read_of_somebody_who_may_not_send_it(
    behind_proxy: RunningConsole, world: World, headers: dict[str, str], status: int
) -> None:
    client = behind_proxy.client(**headers)
    for body in (b"[" * 30_000, b"x" * 40_000):
        page = client.post(
            f"/candidates/{world.waiting}/reject", content=body, headers={"content-type": "application/json"}
        )
        assert page.status_code == status


def test_damaged_and_missing_evidence_are_conflicts(
    behind_proxy: RunningConsole, world: World, candidate: Candidates
) -> None:
    event, rob = candidate(), behind_proxy.client(kubeflow_userid="rob")
    report = Path(world.models.evidence(event.digests["evaluation"])) / "report.json"
    for damage in (lambda: report.write_text("{"), report.unlink):
        damage()
        page = rob.get(f"/candidates/{event.model_id}/evidence")
        assert page.status_code == 409
        page = rob.get(f"/candidates/{event.model_id}")
        assert page.status_code == 200
        assert "The evidence cannot be read." in page.text
        assert "/approve" not in page.text


def test_the_emergency_is_not_offered_where_an_approval_is_enough(
    behind_proxy: RunningConsole, candidate: Candidates
) -> None:
    ada = behind_proxy.client(kubeflow_userid="ada")
    page = ada.get(f"/candidates/{candidate().model_id}").text
    assert "/approve" in page
    assert "break-glass" not in page
    assert "No gate has passed this model" in ada.get(f"/candidates/{candidate('rejected').model_id}").text


def test_the_emergency_says_what_is_so_where_all_gates_are_met(
    behind_proxy: RunningConsole, candidate: Candidates
) -> None:
    page = behind_proxy.client(kubeflow_userid="ada").get(f"/candidates/{candidate(four_eyes=True).model_id}").text
    assert "break-glass" in page
    assert "No gate has passed this model" not in page


def test_a_get_changes_nothing(behind_proxy: RunningConsole, world: World) -> None:
    ada, events = behind_proxy.client(kubeflow_userid="ada"), len(world.models.history())
    for path in (f"/candidates/{world.waiting}/approve", f"/candidates/{world.waiting}/reject", "/roll-back"):
        assert ada.get(path).status_code in (404, 405)
    assert len(world.models.history()) == events
