"""Approving, rejecting and rolling back, in real registries."""

import json
import shutil
from pathlib import Path

import pytest

from pipelines.recipes import smoke
from pipelines.runs.evaluation import runs_of
from rankline.errors import EXIT_STALE, IntegrityError, NotPermitted, RegistryError, StaleEvidence, UsageError
from rankline.features import transforms
from rankline.io.digest import file_digest
from rankline.registry import anchor as anchors
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.removal import remove
from review.desk import Desk, same_user
from review.queue import candidates, find, queue
from tests.rankline.mirror.conftest import Gallery, tables  # noqa: F401
from tests.rankline.registry.test_catalogue_revisions import another_catalogue
from tests.review.reviewed import REASON, Reviewed


def status(reviewed: Reviewed, model: str) -> str:
    return find(reviewed.models.history(), model).status


def test_an_approval_is_one_event_with_the_reviewer_and_the_evidence(reviewed):
    first = reviewed.champion("a")
    waiting = reviewed.candidate("b")
    assert [each.model_id for each in queue(reviewed.models.history())] == [waiting.model_id]
    before = len(reviewed.models.history())
    event = reviewed.approve(waiting, why="better on new items")
    assert (event.kind, event.who, event.why, event.n) == ("promoted", "rita", "better on new items", before + 1)
    assert event.digests["verdict"] == waiting.verdict
    assert event.digests["evaluation"] == waiting.evaluation
    assert event.details["review"] == {"pending": waiting.verdict_event, "verdict": waiting.verdict, "approvals": []}
    assert (event.champion_before, reviewed.models.champion()) == (first, waiting.model_id)
    approved = find(reviewed.models.history(), waiting.model_id)
    assert (approved.status, approved.reviewer, approved.reason) == ("promoted", "rita", "better on new items")
    assert queue(reviewed.models.history()) == []
    reviewed.desk.announce(event)  # its MLflow is down
    assert any("`rankline sync`" in warning for warning in reviewed.warnings)


@pytest.mark.integration
def test_mlflow_follows_an_approval_and_a_rejection(reviewed, tables):  # noqa: F811
    shutil.copy(tables, reviewed.workspace / "mlflow.db")
    desk = Desk.open(reviewed.workspace, reviewed.repository, recipe=smoke(), warn=reviewed.warnings.append)
    first, second = reviewed.candidate("a"), reviewed.candidate("b")
    desk.announce(desk.reject(second.model_id, verdict=second.verdict, who="rita", why=REASON))
    shown = Gallery(reviewed.workspace)
    assert shown.aliases == {"candidate": first.model_id}
    desk.announce(desk.approve(first.model_id, verdict=first.verdict, who="rita"))
    assert shown.aliases == {"champion": first.model_id}
    assert shown.version(second.model_id).tags["outcome"] == "rejected"
    assert shown.version(first.model_id).tags["decided_by"] == "rita"


def test_the_ids_may_be_abbreviated_and_the_reason_left_out(reviewed):
    waiting = reviewed.candidate("b")
    event = reviewed.desk.approve(waiting.model_id[:5], verdict=waiting.verdict[:8], who="rita")
    assert waiting.sentence in event.why


@pytest.mark.parametrize("digest", ["", "1234567", "f" * 12])
def test_evidence_that_is_not_the_candidates_is_refused(reviewed, digest):
    waiting = reviewed.candidate("b")
    with pytest.raises(UsageError, match="not the evidence"):
        reviewed.desk.approve(waiting.model_id, verdict=digest or "", who="rita")
    with pytest.raises(UsageError, match="not the evidence"):
        reviewed.desk.approve(waiting.model_id, verdict=waiting.verdict[:7], who="rita")
    assert reviewed.models.champion() == ""


def test_the_evidence_of_another_candidate_is_named(reviewed):
    one, other = reviewed.candidate("b"), reviewed.candidate("cc")
    with pytest.raises(UsageError) as refused:
        reviewed.desk.approve(one.model_id, verdict=other.verdict, who="rita")
    assert other.model_id in refused.value.found
    assert reviewed.models.champion() == ""


@pytest.mark.integration
def test_an_unknown_or_ambiguous_candidate_is_refused_with_the_near_ones(reviewed):
    models = [reviewed.candidate(f"m{n:02}").model_id for n in range(17)]  # of 17 ids two begin alike
    shared = next(model[0] for model in models if sum(each[0] == model[0] for each in models) > 1)
    with pytest.raises(UsageError, match="several candidates") as refused:
        find(reviewed.models.history(), shared)
    assert all(each in refused.value.expected for each in models if each[0] == shared)
    for unknown in ("", "x"):
        with pytest.raises(UsageError, match="no such candidate"):
            find(reviewed.models.history(), unknown)


def stale(reviewed: Reviewed, waiting, *words: str) -> None:
    """Approving is refused as stale, saying this and what to do; nothing is written."""
    before = reviewed.kinds
    assert status(reviewed, waiting.model_id) == "stale"
    with pytest.raises(StaleEvidence) as refused:
        reviewed.approve(waiting)
    assert refused.value.exit_code == EXIT_STALE
    assert f"rankline evaluate --candidate {waiting.model_id[:12]}" in refused.value.hint
    for word in words:
        assert word in refused.value.found
    assert reviewed.kinds == before
    assert waiting.model_id in [each.model_id for each in queue(reviewed.models.history())]


def test_it_is_stale_once_another_model_serves(reviewed):
    first = reviewed.champion("a")
    waiting = reviewed.candidate("b")
    second = reviewed.champion("cc")
    stale(reviewed, waiting, "the champion", first, second, "event")


def test_it_is_stale_after_a_rollback_and_not_once_the_champion_serves_again(reviewed):
    first, second = reviewed.champion("a"), reviewed.champion("aa")
    waiting = reviewed.candidate("b")
    reviewed.desk.roll_back("", who="rita", why="complaints")
    stale(reviewed, waiting, first, second, "rolled back by rita")
    reviewed.desk.roll_back(second, who="rita", why="no fault of the model")
    assert status(reviewed, waiting.model_id) == "pending"
    assert reviewed.approve(waiting).champion_before == second


def published(reviewed: Reviewed, model: str, folder: Path) -> str:
    """Another catalogue, which the model serves with from now on."""
    stored = reviewed.models.bundle(model, into=reviewed.root / "fetched")
    revision = reviewed.models.add_catalogue(model, another_catalogue(stored, folder))
    reviewed.models.publish(model, revision, who="feed", why="new prices")
    return revision


@pytest.mark.parametrize("subject", ["champion", "candidate"])
def test_measured_again_beside_another_catalogue_it_waits_even_with_the_same_evidence(reviewed, tmp_path, subject):
    champion = reviewed.champion("a")
    waiting = reviewed.candidate("b", four_eyes=True)
    reviewed.approve(waiting)
    published(reviewed, champion if subject == "champion" else waiting.model_id, tmp_path / "feed")
    assert status(reviewed, waiting.model_id) == "stale"
    again = reviewed.candidate("b", four_eyes=True)
    assert (again.verdict, again.status, again.approvals) == (waiting.verdict, "pending", ())
    reviewed.candidate("b", four_eyes=True)  # nothing changed since
    assert reviewed.kinds.count("pending") == 2
    reviewed.approve(again, who="rita")
    assert reviewed.approve(again, who="paul").kind == "promoted"


def test_a_bundle_that_was_registered_again_waits_once_it_is_measured_again(reviewed):
    waiting = reviewed.candidate("b")
    reviewed.models.append("registered", waiting.model_id, who="ann", why="copied here")
    stale(reviewed, waiting, "registered again")
    assert reviewed.candidate("b").status == "pending"


@pytest.mark.parametrize("subject", ["champion", "candidate"])
def test_it_is_stale_once_a_catalogue_changes(reviewed, tmp_path, subject):
    champion = reviewed.champion("a")
    waiting = reviewed.candidate("b")
    model = champion if subject == "champion" else waiting.model_id
    revision = published(reviewed, model, tmp_path / "feed")
    stale(reviewed, waiting, "catalogue", revision, "feed")
    own = reviewed.models.bundle(model, revision="", into=reviewed.root / "fetched").revision
    reviewed.models.publish(model, own, who="feed", why="the feed was wrong")
    assert status(reviewed, waiting.model_id) == "pending"  # what it was measured with serves again


def test_a_bundle_whose_bytes_changed_is_refused_as_stale(reviewed):
    waiting = reviewed.candidate("b")
    file = reviewed.workspace / "repository" / "bundles" / waiting.model_id / "scorer.onnx"
    file.write_bytes(b"?")
    with pytest.raises(StaleEvidence, match="bundle") as refused:
        reviewed.approve(waiting)
    assert "scorer.onnx" in refused.value.message
    assert reviewed.models.champion() == ""


def test_evidence_whose_bytes_changed_is_refused(reviewed):
    waiting = reviewed.candidate("b")
    file = Path(reviewed.models.evidence(waiting.verdict)) / "verdict.json"
    file.write_text(file.read_text().replace('"four_eyes": false', '"four_eyes": true'))
    with pytest.raises(IntegrityError, match="evidence changed"):
        reviewed.approve(waiting)


@pytest.mark.parametrize("name", ["report.json", "name.txt", "per_request.parquet"])
def test_an_evaluation_whose_bytes_changed_is_refused(reviewed, name):
    waiting = reviewed.candidate("b")
    file = Path(reviewed.models.evidence(waiting.evaluation)) / name
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(IntegrityError, match="evidence changed"):
        reviewed.approve(waiting)
    assert reviewed.models.champion() == ""


def test_an_evaluation_that_is_gone_is_refused(reviewed):
    waiting = reviewed.candidate("b")
    shutil.rmtree(reviewed.models.evidence(waiting.evaluation))
    with pytest.raises(RegistryError, match="not in the registry"):
        reviewed.approve(waiting)
    assert reviewed.models.champion() == ""


def test_evidence_without_erased_users_is_approved(reviewed):
    waiting = reviewed.candidate("b")
    folder = Path(reviewed.models.evidence(waiting.evaluation))
    was = {name: file_digest(folder / name) for name in ("name.txt", "report.json")}
    (folder / "name.txt").unlink()
    (folder / "report.json").write_text((folder / "report.json").read_text() + " ")
    (folder / "erased.json").write_text(json.dumps({"name.txt": "removed", "digests": was}))
    assert reviewed.approve(waiting).kind == "promoted"


@pytest.mark.parametrize("note", [{}, {"per_request.parquet": "removed"}, {"digests": "all"}])
def test_a_note_of_erasure_excuses_no_other_file(reviewed, note):
    waiting = reviewed.candidate("b")
    folder = Path(reviewed.models.evidence(waiting.evaluation))
    (folder / "report.json").write_text((folder / "report.json").read_text() + " ")
    (folder / "erased.json").write_text(json.dumps(note))
    with pytest.raises(IntegrityError, match="evidence changed"):
        reviewed.approve(waiting)


def test_a_note_of_erasure_does_not_excuse_the_verdict(reviewed):
    waiting = reviewed.candidate("b", four_eyes=True)
    file = Path(reviewed.models.evidence(waiting.verdict)) / "verdict.json"
    note = {"verdict.json": "redacted", "digests": {"verdict.json": file_digest(file)}}
    file.write_text(file.read_text().replace('"four_eyes": true', '"four_eyes": false'))
    (file.parent / "erased.json").write_text(json.dumps(note))
    with pytest.raises(IntegrityError, match="evidence changed"):
        reviewed.approve(waiting)


@pytest.mark.integration
def test_a_removed_model_waits_no_more(reviewed):
    waiting = reviewed.candidate("b")
    remove(reviewed.models, waiting.model_id, who="gc", why="too old", skipped=lambda history: False)
    assert status(reviewed, waiting.model_id) == "superseded"
    with pytest.raises(StaleEvidence) as refused:
        reviewed.approve(waiting)
    assert "removed by gc" in refused.value.found
    # made and judged again with the same result it waits again
    again = reviewed.candidate("b")
    assert again.verdict == waiting.verdict
    assert status(reviewed, again.model_id) == "pending"
    assert reviewed.approve(again).kind == "promoted"


def test_a_rejected_candidate_is_not_approved(reviewed):
    waiting = reviewed.candidate("b")
    event = reviewed.desk.reject(waiting.model_id, verdict=waiting.verdict, who="rita", why=REASON)
    assert (event.kind, event.who, event.why) == ("rejected", "rita", REASON)
    assert event.details["review"]["pending"] == waiting.verdict_event
    with pytest.raises(StaleEvidence) as refused:
        reviewed.approve(waiting, who="paul")
    assert "rejected by rita" in refused.value.found
    assert REASON in refused.value.found
    with pytest.raises(StaleEvidence):
        reviewed.desk.reject(waiting.model_id, verdict=waiting.verdict, who="paul", why="me too indeed")
    assert reviewed.models.champion() == ""


def test_the_same_verdict_after_a_rejection_waits_again(reviewed):
    waiting = reviewed.candidate("b")
    reviewed.desk.reject(waiting.model_id, verdict=waiting.verdict, who="rita", why=REASON)
    again = reviewed.candidate("b")
    assert (again.verdict, again.status) == (waiting.verdict, "pending")
    assert reviewed.approve(again).kind == "promoted"


@pytest.mark.parametrize("why", ["", "no", "   "])
def test_a_rejection_needs_a_sentence(reviewed, why):
    waiting = reviewed.candidate("b")
    with pytest.raises(UsageError, match="needs a reason"):
        reviewed.desk.reject(waiting.model_id, verdict=waiting.verdict, who="rita", why=why)
    assert status(reviewed, waiting.model_id) == "pending"


def test_a_stale_candidate_can_be_rejected(reviewed):
    waiting = reviewed.candidate("b")
    reviewed.champion("a")
    assert reviewed.desk.reject(waiting.model_id, verdict=waiting.verdict, who="rita", why=REASON).kind == "rejected"


def test_an_approval_of_what_the_gates_rejected_is_refused(reviewed):
    refused_by_gates = reviewed.candidate("b", min_requests=10_000)
    assert refused_by_gates.status == "rejected"
    with pytest.raises(StaleEvidence, match="does not wait"):
        reviewed.approve(refused_by_gates)


def test_a_newer_verdict_supersedes_the_one_before(reviewed):
    before = reviewed.candidate("b")
    after = reviewed.candidate("b2", weights="b")
    assert (before.model_id, before.verdict != after.verdict) == (after.model_id, True)
    assert [each.status for each in candidates(reviewed.models.history())] == ["pending", "superseded"]
    with pytest.raises(StaleEvidence) as refused:
        reviewed.approve(before)
    assert "judged again" in refused.value.found
    assert reviewed.approve(after).kind == "promoted"


def test_a_promotion_past_the_gates_ends_the_wait(reviewed):
    waiting = reviewed.candidate("b")
    anchors.break_glass(reviewed.models, waiting.model_id, who="ann", why=REASON, check=lambda model: None)
    with pytest.raises(StaleEvidence) as refused:
        reviewed.approve(waiting)
    assert "past the gates" in refused.value.found


# -- four eyes -----------------------------------------------------------------------------------------------


def test_with_four_eyes_who_started_the_run_may_not_approve_it(reviewed):
    waiting = reviewed.candidate("b", four_eyes=True, started_by="ann@laptop")
    for same in ("ann@laptop", "Ann@example.com"):
        with pytest.raises(NotPermitted) as refused:
            reviewed.approve(waiting, who=same)
        assert "ann@laptop" in refused.value.found
    assert status(reviewed, waiting.model_id) == "pending"
    assert reviewed.approve(waiting, who="rita@example.com").kind == "promoted"


def test_with_four_eyes_and_a_run_that_nobody_started_two_reviewers_approve(reviewed):
    waiting = reviewed.candidate("b", four_eyes=True)
    first = reviewed.approve(waiting, who="rita")
    assert waiting.sentence in first.why
    assert (first.kind, first.who, reviewed.models.champion()) == ("approved", "rita", "")
    assert first.digests["verdict"] == waiting.verdict
    now = find(reviewed.models.history(), waiting.model_id)
    assert (now.status, [each.who for each in now.approvals]) == ("approved", ["rita"])
    with pytest.raises(NotPermitted, match="second reviewer"):
        reviewed.approve(waiting, who="rita")
    second = reviewed.approve(waiting, who="paul")
    assert (second.kind, second.who) == ("promoted", "paul")
    assert second.details["review"]["approvals"] == [{"who": "rita", "at": first.at, "event": first.n}]


def test_the_first_approval_stands_when_the_run_decides_again(reviewed):
    waiting = reviewed.candidate("b", four_eyes=True)
    first = reviewed.approve(waiting, who="rita")
    again = reviewed.candidate("b", four_eyes=True)
    assert (again.status, [each.event for each in again.approvals]) == ("approved", [first.n])
    assert reviewed.kinds.count("pending") == 1
    assert reviewed.approve(waiting, who="paul").kind == "promoted"


@pytest.mark.parametrize("policy", [{"four_eyes": False}, {"mode": "auto"}, {"mode": "auto", "four_eyes": True}])
def test_measuring_again_does_not_end_four_eyes(reviewed, policy):
    first = reviewed.candidate("b", four_eyes=True, started_by="ann@laptop")
    again = reviewed.candidate("b2", weights="b", started_by="ann@laptop", **policy)
    assert (again.model_id, again.status, again.four_eyes) == (first.model_id, "pending", True)
    with pytest.raises(NotPermitted):
        reviewed.approve(again, who="ann@laptop")
    assert reviewed.approve(again, who="rita").kind == "promoted"


def test_four_eyes_bind_after_a_refusal_by_the_gates_and_for_that_model_alone(reviewed):
    reviewed.candidate("b", four_eyes=True, started_by="ann@laptop", min_requests=10_000)
    again = reviewed.candidate("b2", weights="b", started_by="ann@laptop")
    with pytest.raises(NotPermitted):
        reviewed.approve(again, who="ann@laptop")
    other = reviewed.candidate("other", started_by="ann@laptop")
    assert reviewed.approve(other, who="ann@laptop").kind == "promoted"


def test_attempts_of_one_run_come_to_one_verdict_though_time_passes(reviewed):
    gates = {"ceilings": {"freshness.training_hours": 1e9}}
    first, second = reviewed.candidate("b", **gates), reviewed.candidate("b", **gates)
    assert reviewed.models.read_evidence(first.verdict, "run_measures.json")
    assert (first.verdict, first.event) == (second.verdict, second.event)
    assert reviewed.kinds.count("pending") == 1


def test_runs_of_other_models_are_not_those_of_a_champion(reviewed):
    champion = reviewed.champion("a")
    for kind in ("confirmed", "anchored"):
        reviewed.models.append(kind, champion, who="the flow", why="because", run_id="run-other")
    assert runs_of(reviewed.models.history(), champion) == ["run-a"]


@pytest.mark.parametrize("seen", ["", "another"])
def test_a_rollback_is_of_the_champion_that_the_reader_saw(reviewed, seen):
    reviewed.champion("a")
    serving = reviewed.champion("aa")
    with pytest.raises(StaleEvidence, match="champion changed"):
        reviewed.desk.roll_back("", who="rita", why="complaints", champion=seen)
    assert reviewed.desk.roll_back("", who="rita", why="complaints", champion=serving).champion_before == serving


def test_a_first_approval_ends_with_its_evidence(reviewed):
    waiting = reviewed.candidate("b", four_eyes=True)
    reviewed.approve(waiting, who="rita")
    reviewed.champion("a")
    with pytest.raises(StaleEvidence):
        reviewed.approve(waiting, who="paul")
    again = reviewed.candidate("b2", weights="b", four_eyes=True)
    assert (again.status, again.approvals) == ("pending", ())
    assert reviewed.approve(again, who="paul").kind == "approved"


def test_who_started_the_run_may_reject_its_model(reviewed):
    waiting = reviewed.candidate("b", four_eyes=True, started_by="ann@laptop")
    assert reviewed.desk.reject(waiting.model_id, verdict=waiting.verdict, who="ann@laptop", why=REASON)


def test_without_four_eyes_one_may_do_both(reviewed):
    assert reviewed.approve(reviewed.candidate("b", started_by="ann@laptop"), who="ann@laptop").kind == "promoted"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("ann@a", "ann@b", True),
        ("Ann", "ann@b", True),
        ("ann@a", "anna@a", False),
        ("accounts.google.com:ann@a", "ann", True),
        ("ann+tag@a", "oidc:Ann@b", True),
        ("oidc:ann", "oidc:paul", False),
        ("ann.lee@a", "ann.kim@a", False),
    ],
)
def test_names_of_one_user(one, other, same):
    assert same_user(one, other) is same


def test_a_decision_has_a_name(reviewed):
    waiting = reviewed.candidate("b")
    with pytest.raises(UsageError, match="name"):
        reviewed.approve(waiting, who=" ")


# -- the features --------------------------------------------------------------------------------------------


def test_without_features_anywhere_nothing_is_approved(reviewed):
    waiting = reviewed.candidate("b")
    shutil.rmtree(reviewed.workspace / "online")
    with pytest.raises(RegistryError, match="are not online") as refused:
        reviewed.approve(waiting)
    assert transforms.SERVICE in refused.value.expected
    assert reviewed.models.champion() == ""
    assert status(reviewed, waiting.model_id) == "pending"


def test_evidence_that_is_gone_is_refused(reviewed):
    waiting = reviewed.candidate("b")
    shutil.rmtree(reviewed.models.evidence(waiting.verdict))
    with pytest.raises(RegistryError, match="not in the registry"):
        reviewed.approve(waiting)


def test_the_evidence_of_a_candidate(reviewed):
    waiting = reviewed.candidate("b")
    evidence = reviewed.desk.evidence(waiting)
    assert (evidence.report.model_id, evidence.verdict.outcome) == (waiting.model_id, "pending")
    assert evidence.page is not None
    assert evidence.page.startswith(b"<!doctype html>")
    assert waiting.model_id in (evidence.card or "")
    path = Path(reviewed.models.evidence(waiting.evaluation)) / "report.json"
    path.write_text(json.dumps({"of": "another version"}))
    with pytest.raises(IntegrityError, match=r"report\.json"):
        reviewed.desk.evidence(waiting)


@pytest.mark.integration
def test_a_registry_in_a_bucket(url, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    reviewed = Reviewed(tmp_path, url)
    (reviewed.workspace / "online" / transforms.SERVICE).mkdir(parents=True)
    (reviewed.workspace / "online" / transforms.SERVICE / "feature_store.yaml").touch()
    waiting = reviewed.candidate("b", four_eyes=True)
    assert reviewed.approve(waiting, who="rita").kind == "approved"
    assert reviewed.approve(waiting, who="paul").kind == "promoted"
    assert ModelRegistry(url).champion() == waiting.model_id
    other = reviewed.candidate("c2")
    reviewed.desk.reject(other.model_id, verdict=other.verdict, who="rita", why=REASON)
    with pytest.raises(StaleEvidence):
        reviewed.approve(other)
    assert reviewed.desk.evidence(other).verdict.outcome == "pending"
