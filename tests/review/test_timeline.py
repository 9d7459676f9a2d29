"""The timeline, what served at a time, and the models that a model was started from."""

from datetime import UTC, datetime, timedelta

from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import Event
from review.timeline import lineage, serving_at, timeline
from tests.rankline.registry.test_model_registry import tiny_bundle

START = datetime(2026, 11, 1, tzinfo=UTC)


def history(*events: dict) -> list[Event]:
    """Events an hour apart."""
    return [
        Event(n=n, at=(START + timedelta(hours=n)).isoformat(), **{"who": "w", "why": "y", "model_id": "", **event})
        for n, event in enumerate(events, 1)
    ]


EVENTS = history(
    {"kind": "registered", "model_id": "a", "digests": {"catalogue": "a0"}},
    {"kind": "promoted", "model_id": "a"},
    {"kind": "catalogue_published", "model_id": "a", "digests": {"catalogue": "a1"}},
    {"kind": "items_hidden", "details": {"items": ["i1"]}},
    {"kind": "promoted", "model_id": "b", "champion_before": "a", "details": {"break_glass": True}},
    {"kind": "anchored", "model_id": "b"},
    {"kind": "rolled_back", "model_id": "a", "champion_before": "b"},
)


def test_every_event_says_what_it_changed():
    changes = [(each.kind, each.before, each.after) for each in timeline(EVENTS)]
    assert changes == [
        ("registered", "", ""),
        ("promoted", "", "a"),
        ("catalogue_published", "a0", "a1"),
        ("items_hidden", "", ""),
        ("promoted", "a", "b"),
        ("anchored", "a", "b"),
        ("rolled_back", "b", "a"),
    ]
    assert [each.n for each in timeline(EVENTS) if each.break_glass] == [5]
    assert timeline(EVENTS)[3].items == ("i1",)


def test_what_served_at_a_time():
    def served(hours: float):
        now = serving_at(EVENTS, START + timedelta(hours=hours))
        return (now.model_id, now.revision, now.hidden, now.event) if now else None

    assert served(1.9) is None
    assert served(2) == ("a", "", (), 2)
    assert served(3.5) == ("a", "a1", (), 2)
    assert served(4.5) == ("a", "a1", ("i1",), 2)
    assert served(5.5) == ("b", "", ("i1",), 5)
    assert served(99) == ("a", "a1", ("i1",), 7)
    unsafe = serving_at(EVENTS, START + timedelta(hours=5))
    assert unsafe is not None
    assert "past the gates" in unsafe.warning


def test_a_clock_that_was_set_back_changes_no_order():
    late = EVENTS[4].model_copy(update={"at": (START + timedelta(hours=1, minutes=30)).isoformat()})
    events = [*EVENTS[:4], late, *EVENTS[5:]]
    now = serving_at(events, START + timedelta(hours=1, minutes=40))
    assert now is not None
    assert now.model_id == "b"


def test_the_models_that_a_model_was_started_from(tmp_path):
    models = ModelRegistry(tmp_path / "repository")
    parent = "scratch"
    ids = []
    for name in "abc":
        bundle = tiny_bundle(tmp_path / name, weights=name.encode())
        models.add(bundle.folder)
        models.append("registered", bundle.model_id, who="t", why="t", run_id=name, details={"began_from": parent})
        parent = bundle.model_id
        ids.append(parent)
    traced = lineage(models, ids[2])
    assert traced.parents == (ids[1], ids[0])
    assert (traced.run_id, traced.recipe, traced.code_digest) == ("c", "smoke", "c")


def test_a_rollback_is_an_event_of_the_model_that_it_ended_too(reviewed):
    first, second = reviewed.champion("a"), reviewed.champion("aa")
    event = reviewed.desk.roll_back("", who="rita", why="complaints")
    for model in (first, second):
        last = lineage(reviewed.models, model).events[-1]
        assert (last.n, last.kind, last.before, last.after) == (event.n, "rolled_back", second, first)
