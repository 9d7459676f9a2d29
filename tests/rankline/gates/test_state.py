"""The state of earlier nights, from a registry's events."""

import pytest

from rankline.gates.state import AnchorState, anchor_state
from rankline.registry.registry_state import Event
from tests.rankline.gates.test_nights import block


def history(*lines):
    """Events of (kind, model, look or None), in order."""
    events = []
    for n, (kind, model, *more) in enumerate(lines, 1):
        details = {"night": more[0].model_dump(mode="json")} if more and more[0] else {}
        events.append(Event(n=n, kind=kind, model_id=model, at="2026-01-01", who="t", why="t", details=details))
    return events


def night(model, since, until, *, champion="c", anchor="a", recipe="r", metric="ndcg@10"):
    changes = {"champion": champion, "anchor": anchor, "recipe": recipe, "metric": metric}
    return ("evaluated", model, block(since, until, model).model_copy(update=changes))


def state(events, *, until=100.0, model="new", champion="c"):
    return anchor_state(events, champion=champion, model_id=model, recipe="r", metric="ndcg@10", until=until)


BEGIN = (("promoted", "a"), ("promoted", "c"))


def test_without_a_champion_there_is_no_anchor():
    assert state([]) == AnchorState()


def test_nights_since_the_promotion_add_up():
    result = state(history(*BEGIN, night("x", 0, 10), night("y", 10, 20)))
    assert (result.anchor, result.promotions, result.since, result.before.nights, result.trials) == ("a", 1, 20.0, 2, 1)
    assert result.champion_before.nights == 2


@pytest.mark.parametrize(
    "other",
    [
        night("x", 0, 10, recipe="another"),
        night("x", 0, 10, metric="hr@10"),
        night("x", 0, 10, champion="before"),
        night("x", 0, 10, anchor="before"),
        night("x", 0, 100),
        night("new", 0, 10),
        ("evaluated", "x"),
    ],
)
def test_what_is_no_earlier_night_of_these_candidates_does_not_count(other):
    result = state(history(*BEGIN, other))
    assert (result.before.nights, result.since) == (0, 0.0)


@pytest.mark.parametrize("after", ["promoted", "rolled_back", "anchored"])
def test_a_promotion_a_rollback_and_another_anchor_begin_again(after):
    events = history(
        ("promoted", "a"), ("promoted", "b"), night("x", 0, 10), (after, "a" if after == "anchored" else "c")
    )
    assert state(events, champion="b" if after == "anchored" else "c").before.nights == 0


def test_each_promotion_leaves_a_smaller_share_of_the_error_until_the_anchor_moves():
    events = [("promoted", "a"), ("promoted", "b"), ("promoted", "c")]
    assert state(history(*events)).promotions == 2
    assert state(history(*events, ("anchored", "c"))).promotions == 0
    assert state(history(*events, ("anchored", "c"), ("promoted", "d"))).promotions == 1


def test_models_on_the_same_requests_are_trials_and_none_of_them_an_earlier_night():
    result = state(history(*BEGIN, night("x", 0, 100), night("y", 0, 100, recipe="another"), night("x", 0, 100)))
    assert (result.trials, result.before.nights) == (3, 0)
    assert state(history(*BEGIN, night("new", 0, 100))).trials == 1


def test_a_night_of_another_version_is_left_out():
    events = history(*BEGIN, night("x", 0, 10))
    broken = events[-1].model_copy(update={"details": {"night": {"of": "another version"}}})
    assert state([*events[:-1], broken]).before.nights == 0
