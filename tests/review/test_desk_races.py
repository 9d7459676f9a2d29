"""Several reviewers at once, a promotion beside an approval, and approvals that are killed."""

import contextlib
import multiprocessing
import os
import random
import signal
import time

import pytest

from rankline.errors import StaleEvidence
from rankline.features import transforms
from rankline.registry.model_registry import ModelRegistry
from review.queue import find, queue
from tests.race import race
from tests.review.reviewed import Reviewed

pytestmark = pytest.mark.integration

ROUNDS = 8


def _approve_or_reject(gate, root, repository, names, who):
    """Approve the candidates one after the other, each beside the other reviewers; what became of each."""
    reviewed, ended = Reviewed(root, repository), []
    for model, verdict in names:
        gate.wait()
        try:
            if who == "no":
                reviewed.desk.reject(model, verdict=verdict, who=who, why="it recommends recalled items")
            else:
                reviewed.desk.approve(model, verdict=verdict, who=who)
            ended.append(who)
        except StaleEvidence:
            ended.append("stale")
    return ended


def _racers(reviewed, waiting, reviewers):
    names = [(each.model_id, each.verdict) for each in waiting]
    arguments = [(reviewed.root, reviewed.repository, names, who) for who in reviewers]
    return race("fork", _approve_or_reject, arguments)


@pytest.mark.parametrize("reviewers", [("rita", "paul"), ("rita", "no")])
def test_of_two_decisions_at_once_on_one_candidate_one_wins(reviewed, reviewers):
    """Each candidate is judged beside no champion, so that only the first one that is approved may be."""
    for n in range(ROUNDS // 2):
        waiting = reviewed.candidate(f"m{n}")
        ended = _racers(reviewed, [waiting], reviewers)
        assert sorted(each[0] == "stale" for each in ended) == [False, True]
        decided = find(reviewed.models.history(), waiting.model_id)
        (winner,) = (each[0] for each in ended if each[0] != "stale")
        assert (decided.reviewer, decided.status) == (winner, "rejected" if winner == "no" else "promoted")
    assert sum("review" in event.details for event in reviewed.models.history()) == ROUNDS // 2


def test_of_approvals_at_once_of_several_candidates_one_wins(reviewed):
    waiting = [reviewed.candidate(f"m{n}") for n in range(4)]
    arguments = [
        (reviewed.root, reviewed.repository, [(each.model_id, each.verdict)], f"reviewer-{n}")
        for n, each in enumerate(waiting)
    ]
    ended = [each for (each,) in race("fork", _approve_or_reject, arguments)]
    assert ended.count("stale") == 3
    assert reviewed.kinds.count("promoted") == 1
    winner = next(n for n, each in enumerate(ended) if each != "stale")
    assert reviewed.models.champion() == waiting[winner].model_id
    assert {each.status for each in queue(reviewed.models.history())} == {"stale"}


def test_two_first_approvals_at_once_are_a_promotion(reviewed):
    for n in range(ROUNDS // 4):
        waiting = reviewed.candidate(f"m{n}", four_eyes=True)
        _racers(reviewed, [waiting], ("rita", "paul"))
        kinds = [event.kind for event in reviewed.models.history() if "review" in event.details]
        assert kinds[-2:] == ["approved", "promoted"]
        promotion = reviewed.models.history()[-1]
        (first,) = promotion.details["review"]["approvals"]
        assert {promotion.who, first["who"]} == {"rita", "paul"}


def test_in_a_bucket_one_wins_too(url, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tmp_path / "workspace" / "online" / transforms.SERVICE).mkdir(parents=True)
    (tmp_path / "workspace" / "online" / transforms.SERVICE / "feature_store.yaml").touch()
    reviewed = Reviewed(tmp_path, url)
    waiting = reviewed.candidate("m")
    arguments = [(tmp_path, url, [(waiting.model_id, waiting.verdict)], who) for who in ("rita", "no")]
    ended = [each for (each,) in race("spawn", _approve_or_reject, arguments)]
    assert ended.count("stale") == 1
    assert sum("review" in event.details for event in ModelRegistry(url).history()) == 1


def _promote(gate, root, repository, model, _):
    """A promotion of the flow, as its step appends it."""
    models = ModelRegistry(repository)
    gate.wait()
    try:
        models.append("promoted", model, who="the flow", why="because", expected_champion="")
    except StaleEvidence:
        return ["stale"]
    return ["the flow"]


def _either(gate, flow, *arguments):
    return (_promote if flow else _approve_or_reject)(gate, *arguments)


def test_an_approval_beside_a_promotion_of_a_run(reviewed):
    """Whichever comes first, the other one is stale: both were judged beside no champion."""
    waiting, flows = reviewed.candidate("m"), reviewed.candidate("flow")
    names = [(waiting.model_id, waiting.verdict)]
    place = (reviewed.root, reviewed.repository)
    ended = race("fork", _either, [(False, *place, names, "rita"), (True, *place, flows.model_id, "")])
    assert sorted(each == ["stale"] for each in ended) == [False, True]
    winner = waiting if ended[1] == ["stale"] else flows
    assert reviewed.models.champion() == winner.model_id
    assert reviewed.kinds.count("promoted") == 1


# -- approvals that are killed -------------------------------------------------------------------------------


def _approve(root, repository, model, verdict):
    os.setsid()
    Reviewed(root, repository).desk.approve(model, verdict=verdict, who="rita")


def _kill_after(seconds: float, *arguments) -> None:
    """Approve in a process that is killed after so many seconds, if it has not ended by then."""
    process = multiprocessing.get_context("fork").Process(target=_approve, args=arguments)
    process.start()
    process.join(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.join()


@pytest.mark.parametrize("kills", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_an_approval_that_is_killed_leaves_the_registry_before_or_after_it(reviewed, kills):
    """Wherever it was killed, the candidate waits or serves, and the next approval ends what it began."""
    reviewed.approve(reviewed.candidate("first"))  # imports what the processes need
    waiting, started = reviewed.candidate("second"), time.monotonic()
    _kill_after(60, reviewed.root, reviewed.repository, *_named(waiting))
    usual_s, draw = time.monotonic() - started, random.Random(kills)
    outcomes: set[str] = set()
    # the first is killed before it does anything, the last one ends by itself
    for n, seconds in enumerate([0.0, *(draw.uniform(0, usual_s) for _ in range(kills - 2)), 60.0]):
        before = reviewed.models.champion()
        waiting = reviewed.candidate(f"m{n}")
        events = len(reviewed.models.history())
        _kill_after(seconds, reviewed.root, reviewed.repository, *_named(waiting))
        history = ModelRegistry(reviewed.repository).history()  # every event is whole, and none is missing
        status = find(history, waiting.model_id).status
        assert status in ("pending", "promoted")
        assert len(history) - events == (status == "promoted")
        assert ModelRegistry(reviewed.repository).champion() == (waiting.model_id if status == "promoted" else before)
        outcomes.add(status)
        if status == "pending":
            assert reviewed.approve(waiting).kind == "promoted"
    assert outcomes == {"pending", "promoted"}


def _named(candidate) -> tuple[str, str]:
    return candidate.model_id, candidate.verdict
