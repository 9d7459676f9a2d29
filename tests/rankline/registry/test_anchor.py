"""The anchor and promotions past the gates, in a real registry."""

import json
from pathlib import Path

import pytest

from rankline.errors import RegistryError, StaleEvidence, UsageError
from rankline.registry import anchor as anchors
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.removal import remove
from tests.rankline.registry.test_model_registry import tiny_bundle

REASON = "the champion recommends recalled items"


@pytest.fixture
def registry(tmp_path):
    return ModelRegistry(tmp_path / "repository")


def added(registry, tmp_path: Path, name: str, *, promoted: bool = True) -> str:
    bundle = tiny_bundle(tmp_path / name, weights=name.encode())
    registry.add(bundle.folder)
    registry.append("registered", bundle.model_id, who="t", why="t")
    if promoted:
        registry.append("promoted", bundle.model_id, who="t", why="t")
    return bundle.model_id


def past_gates(registry, model, why=REASON, check=lambda model: None):
    return anchors.break_glass(registry, model, who="ann", why=why, check=check)


def test_the_first_champion_is_the_anchor_until_it_is_moved(registry, tmp_path):
    assert anchors.anchor(registry.history()) == ""
    first, second = (added(registry, tmp_path, name) for name in "ab")
    assert anchors.anchor(registry.history()) == first
    event = anchors.move_anchor(registry, second[:6], who="ann", why="a loss was accepted")
    assert (event.kind, event.who, anchors.anchor(registry.history())) == ("anchored", "ann", second)
    assert registry.champion() == second


def test_an_anchor_that_is_removed_gives_its_place_to_the_one_before(registry, tmp_path):
    first, second = (added(registry, tmp_path, name) for name in "ab")
    anchors.move_anchor(registry, second, who="t", why="t")
    remove(registry, second, who="t", why="t", skipped=lambda history: False)
    assert anchors.anchor(registry.history()) == first


@pytest.mark.parametrize("model", ["", "f" * 16, "unpromoted"])
def test_only_a_model_that_has_served_becomes_the_anchor(registry, tmp_path, model):
    added(registry, tmp_path, "a")
    waiting = added(registry, tmp_path, "b", promoted=False)
    with pytest.raises(UsageError):
        anchors.move_anchor(registry, waiting if model == "unpromoted" else model, who="t", why="t")
    assert [event.kind for event in registry.history()].count("anchored") == 0


def test_a_removed_model_does_not_become_the_anchor(registry, tmp_path):
    first, _ = (added(registry, tmp_path, name) for name in "ab")
    remove(registry, first, who="t", why="too old", skipped=lambda history: False)
    with pytest.raises(RegistryError, match="not kept any more"):
        anchors.move_anchor(registry, first, who="t", why="t")


def test_a_promotion_past_the_gates_is_shown_until_a_gate_passes_it(registry, tmp_path):
    first = added(registry, tmp_path, "a")
    refused = added(registry, tmp_path, "b", promoted=False)
    evidence = {"evaluation": "e" * 64, "verdict": "v" * 64}
    registry.append("rejected", refused, who="t", why="t", details={"failures": ["latency"]}, digests=evidence)
    event = past_gates(registry, refused)
    assert (registry.champion(), event.champion_before) == (refused, first)
    assert event.details == {"break_glass": True, "failures": ["latency"]}
    assert evidence.items() <= event.digests.items()
    assert "ann" in anchors.warning(registry.history())
    assert REASON in anchors.warning(registry.history())
    assert anchors.anchor(registry.history()) == first  # which no gate passed is nothing to measure against
    registry.append("confirmed", refused, who="the flow", why="proven")
    assert anchors.warning(registry.history()) == ""


@pytest.mark.parametrize("later", ["promoted", "rolled_back"])
def test_once_another_model_serves_there_is_nothing_to_show(registry, tmp_path, later):
    first = added(registry, tmp_path, "a")
    past_gates(registry, added(registry, tmp_path, "b", promoted=False))
    registry.append(later, first, who="t", why="t")
    assert anchors.warning(registry.history()) == ""


@pytest.mark.parametrize("why", ["", "because", "   "])
def test_a_promotion_past_the_gates_needs_a_reason(registry, tmp_path, why):
    model = added(registry, tmp_path, "a", promoted=False)
    with pytest.raises(UsageError, match="needs a reason"):
        past_gates(registry, model, why=why)
    assert registry.champion() == ""


def test_what_serves_or_is_unknown_or_cannot_serve_is_not_promoted_past_the_gates(registry, tmp_path):
    serving = added(registry, tmp_path, "a")
    waiting = added(registry, tmp_path, "b", promoted=False)

    def no_features(model: str) -> None:
        raise RegistryError("its features are not online")

    with pytest.raises(UsageError, match="already serves"):
        past_gates(registry, serving)
    with pytest.raises(UsageError, match="no such model"):
        past_gates(registry, "f" * 16)
    with pytest.raises(RegistryError, match="not online"):
        past_gates(registry, waiting, check=no_features)
    assert registry.champion() == serving


def test_a_champion_that_changes_meanwhile_stays(registry, tmp_path):
    added(registry, tmp_path, "a")
    waiting = added(registry, tmp_path, "b", promoted=False)
    with pytest.raises(StaleEvidence):
        past_gates(registry, waiting, check=lambda model: added(registry, tmp_path, "c") and None)
    assert anchors.warning(registry.history()) == ""


def test_events_of_earlier_versions_are_still_read(registry, tmp_path):
    model = added(registry, tmp_path, "a")
    for path in (tmp_path / "repository" / "events").glob("*.json"):
        assert set(json.loads(path.read_text())) >= {"n", "kind", "model_id", "at", "who", "why"}
    assert anchors.anchor(ModelRegistry(tmp_path / "repository").history()) == model
