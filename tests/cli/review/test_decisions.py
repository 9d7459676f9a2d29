"""`rankline review`, `status`, `lineage` and `history --at`, on a registry of tiny bundles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rankline.registry import anchor as anchors
from rankline.runtime.current_user import current_user
from tests.cli.in_process import rankline, refused
from tests.review.conftest import reviewed as reviewed
from tests.review.reviewed import REASON, Reviewed


def printed(*arguments: object) -> str:
    done = rankline(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def as_json(*arguments: object) -> object:
    return json.loads(printed(*arguments, "--json"))


def test_an_empty_registry(tmp_path: Path) -> None:
    assert "nothing waits" in printed("review", "list", "-w", tmp_path)
    assert as_json("review", "list", "--all", "-w", tmp_path) == []
    assert printed("status", "-w", tmp_path).startswith("no model serves yet")
    assert as_json("status", "-w", tmp_path) == {"serving": None, "waiting": [], "runs": []}
    assert as_json("history", "--at", "2026-01-01", "-w", tmp_path) is None
    assert "no model has been promoted" in refused("lineage", "-w", tmp_path, code=2)
    for command in ("show", "approve", "reject"):
        more = (
            []
            if command == "show"
            else ["--evidence", "0" * 12, *(["--reason", REASON] if command == "reject" else [])]
        )
        assert "no such candidate" in refused("review", command, "abc", *more, "-w", tmp_path, code=2)


def test_a_candidate_is_shown_with_the_commands_that_decide_on_it(reviewed: Reviewed) -> None:
    champion = reviewed.champion("a")
    waiting = reviewed.candidate("b", four_eyes=True, started_by="ann@laptop")
    header, row = printed("review", "list", "-w", reviewed.workspace).splitlines()
    assert header.split()[:3] == ["model", "status", "recipe"]
    assert row.split()[:3] == [waiting.model_id, "pending", "smoke"]
    shown = printed("review", "show", waiting.model_id[:6], "-w", reviewed.workspace)
    place = f" -w {reviewed.workspace}"
    assert shown.count(place) == 2
    for words in (
        waiting.command + place,
        champion,
        "ann@laptop",
        "four eyes",
        "rankline review reject",
        "evidence.html",
    ):
        assert words in shown
    payload = as_json("review", "show", waiting.model_id, "-w", reviewed.workspace)
    assert isinstance(payload, dict)
    assert (payload["approve"], payload["status"], payload["champion"]) == (
        waiting.command + place,
        "pending",
        champion,
    )
    assert payload["policy"]["four_eyes"] is True
    assert {check["status"] for check in payload["checks"]} == {"pass"}
    assert Path(payload["evidence"]["verdict"], "verdict.json").is_file()
    reviewed.champion("cc")
    stale = printed("review", "show", waiting.model_id, "-w", reviewed.workspace)
    assert f"rankline evaluate --candidate {waiting.model_id}{place}" in stale
    assert "review approve" not in stale


def test_a_rejection_and_what_follows_it(reviewed: Reviewed) -> None:
    waiting = reviewed.candidate("b")
    options = (waiting.model_id, "--evidence", waiting.verdict[:12], "-w", reviewed.workspace)
    assert "needs a reason" in refused("review", "reject", *options, "--reason", "no", code=2)
    event = as_json("review", "reject", *options, "--reason", REASON)
    assert isinstance(event, dict)
    assert (event["kind"], event["why"], event["who"]) == ("rejected", REASON, current_user())
    assert REASON in refused("review", "approve", *options, code=4)
    assert REASON in printed("review", "list", "--all", "-w", reviewed.workspace)
    assert as_json("review", "list", "-w", reviewed.workspace) == []


def test_the_evidence_of_another_verdict_is_refused(reviewed: Reviewed) -> None:
    waiting = reviewed.candidate("b")
    message = refused("review", "approve", waiting.model_id, "--evidence", "0" * 12, "-w", reviewed.workspace, code=2)
    assert "not the evidence" in message
    assert f"rankline review show {waiting.model_id}" in message


def test_who_may_not_approve_is_a_usage_error(reviewed: Reviewed) -> None:
    waiting = reviewed.candidate("b", four_eyes=True, started_by=current_user())
    message = refused(
        "review", "approve", waiting.model_id, "--evidence", waiting.verdict, "-w", reviewed.workspace, code=2
    )
    assert "may not approve" in message


def test_the_name_is_that_of_the_system_and_not_of_the_environment(
    reviewed: Reviewed, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = current_user()
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(variable, "rita")
    assert current_user() == name
    assert not name.startswith("rita@")
    waiting = reviewed.candidate("b", four_eyes=True, started_by=name)
    options = (waiting.model_id, "--evidence", waiting.verdict, "-w", reviewed.workspace)
    assert "may not approve" in refused("review", "approve", *options, code=2)


def test_what_served_at_a_time_and_what_serves(reviewed: Reviewed) -> None:
    first = reviewed.champion("a")
    waiting = reviewed.candidate("b", min_requests=10_000)
    anchors.break_glass(reviewed.models, waiting.model_id, who="ann", why=REASON, check=lambda model: None)
    history = reviewed.models.history()
    at = history[1].at  # of the first promotion
    assert printed("history", "--at", at, "-w", reviewed.workspace).startswith(f"{first} serves")
    then = as_json("history", "--at", at.replace("+00:00", ""), "-w", reviewed.workspace)
    assert isinstance(then, dict)
    assert (then["model_id"], then["event"], then["warning"]) == (first, 2, "")
    assert "no model served" in printed("history", "--at", "2020-01-01T00:00", "-w", reviewed.workspace)
    assert "no time" in refused("history", "--at", "yesterday", "-w", reviewed.workspace, code=2)
    shown = printed("status", "-w", reviewed.workspace)
    assert shown.startswith(f"{waiting.model_id} serves")
    assert "past the gates by ann" in shown


def test_the_lineage_of_a_model(reviewed: Reviewed) -> None:
    waiting = reviewed.candidate("b")
    text = printed("lineage", waiting.model_id[:7], "-w", reviewed.workspace)
    assert waiting.verdict in text
    assert "run-b" in text
    traced = as_json("lineage", waiting.model_id, "-w", reviewed.workspace)
    assert isinstance(traced, dict)
    assert (traced["run_id"], traced["data_digest"], traced["evaluation"]) == ("run-b", "d", waiting.evaluation)
    assert [event["kind"] for event in traced["events"]] == ["registered", "evaluated", "pending"]
    assert "no such model" in refused("lineage", "zzz", "-w", reviewed.workspace, code=2)


@pytest.mark.integration
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_models_are_compared_on_the_requests_that_they_share(reviewed: Reviewed, order: tuple[int, int]) -> None:
    ids = [reviewed.candidate(name).model_id for name in ("b", "c")]
    result = as_json("review", "compare", *(ids[n] for n in order), "-w", reviewed.workspace)
    assert isinstance(result, dict)
    assert (result["same_requests"], result["note"]) == (120, "")
    (metric,) = result["metrics"]
    assert (metric["metric"], metric["difference"]) == ("ndcg@10", 0.0)
    assert metric["low"] <= 0.0 <= metric["high"]
    assert "ndcg@10" in printed("review", "compare", ids[0][:8], ids[1][:8], "-w", reviewed.workspace)
