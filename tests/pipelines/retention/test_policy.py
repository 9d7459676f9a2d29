"""What is kept and what goes, as a table of cases: pure planning, nothing on a disk."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.retention.policy import DAY_S, Keep, Plan, plan, retained_models
from pipelines.retention.resources import Inode, Inventory, Resource, StepWork
from rankline.registry.registry_state import Event

NOW = 1_800_000_000.0
OLD = NOW - 30 * DAY_S


def resource(kind: Any, name: str, *, at: float = OLD, files: tuple[Inode, ...] = ()) -> Resource:
    return Resource(kind, name, f"{kind}/{name}", at, files)


def history(*lines: tuple[str, str] | tuple[str, str, dict[str, str]], at: float = OLD) -> tuple[Event, ...]:
    timestamp = datetime.fromtimestamp(at, UTC).isoformat()
    return tuple(
        Event(n=n, kind=kind, model_id=model, at=timestamp, who="t", why="t", run_id=f"run-{model}",
              digests=more[0] if more else {})
        for n, (kind, model, *more) in enumerate(lines, 1)
    )  # fmt: skip


def goes(result: Plan) -> list[str]:
    return [decision.resource.name for decision in result.decisions if decision.remove]


def why(result: Plan, name: str) -> str:
    return next(decision.why for decision in result.decisions if decision.resource.name == name)


# models -------------------------------------------------------------------------------------------------------


def promoted(*models: str) -> tuple[Event, ...]:
    return history(*((kind, model) for model in models for kind in ("registered", "promoted")))


def test_the_champion_and_those_before_it_stay_and_older_ones_go() -> None:
    result = retained_models(promoted("a", "b", "c", "d"), Keep(bundles=2), now=NOW)
    assert list(result.items()) == [
        ("d", "it serves"),
        ("c", "served before, among the last 2"),
        ("a", "it is the anchor: losses are measured against it"),
    ]


def test_the_anchor_stays_however_long_ago_it_served_and_goes_once_another_takes_its_place() -> None:
    events = promoted(*"abcdef")
    assert "a" in retained_models(events, Keep(bundles=2), now=NOW)
    moved = history(*((event.kind, event.model_id) for event in events), ("anchored", "c"))
    retained = retained_models(moved, Keep(bundles=2), now=NOW)
    assert ("c" in retained, "a" in retained, "b" in retained) == (True, False, False)


def test_an_anchor_that_an_earlier_version_removed_is_none_and_the_next_champion_takes_its_place() -> None:
    events = history(*((kind, model) for model in "abcde" for kind in ("registered", "promoted")), ("removed", "a"))
    assert set(retained_models(events, Keep(bundles=2), now=NOW)) == {"e", "d", "b"}


def test_a_rollback_counts_as_serving_and_each_model_counts_once() -> None:
    events = history(("promoted", "a"), ("promoted", "b"), ("promoted", "c"), ("rolled_back", "b"))
    assert list(retained_models(events, Keep(bundles=2), now=NOW)) == ["b", "c", "a"]  # a is the anchor
    assert list(retained_models(events, Keep(bundles=3), now=NOW)) == ["b", "c", "a"]


def test_the_one_before_cannot_be_given_up() -> None:
    with pytest.raises(ValidationError):
        Keep(bundles=1)


@pytest.mark.parametrize(
    ("last", "retained"),
    [("pending", True), ("approved", True), ("rejected", False), ("evaluated", False), ("removed", False)],
)
def test_a_model_that_waits_for_a_review_stays(last: str, retained: bool) -> None:
    events = history(("promoted", "champion"), ("registered", "x"), (last, "x"))
    assert ("x" in retained_models(events, Keep(), now=NOW)) is retained


def test_a_young_refused_model_stays_for_its_days() -> None:
    events = history(("promoted", "champion"), ("registered", "x"), ("rejected", "x"), at=NOW - 2 * DAY_S)
    assert retained_models(events, Keep(days=3), now=NOW)["x"] == "younger than 3 days"
    assert "x" not in retained_models(events, Keep(days=1), now=NOW)


def test_a_model_that_was_taken_away_and_registered_again_is_there_again() -> None:
    before = (("promoted", "a"), ("promoted", "b"), ("removed", "a"))
    assert "a" not in retained_models(history(*before), Keep(), now=NOW)
    assert "a" in retained_models(history(*before, ("registered", "a"), ("pending", "a")), Keep(), now=NOW)


def test_weights_and_evidence_stay_as_long_as_their_model() -> None:
    events = history(
        ("promoted", "a", {"evaluation": "of-a"}), ("promoted", "b", {"evaluation": "of-both"}),
        ("evaluated", "x", {"evaluation": "of-x"}), ("evaluated", "x", {"evaluation": "of-both"}),
    )  # fmt: skip
    resources = [resource(kind, model) for kind in ("bundle", "weights") for model in ("a", "b", "x")]
    resources += [resource("evidence", name) for name in ("of-a", "of-both", "of-x", "unnamed")]
    resources += [resource("evidence", "unnamed-yet", at=NOW - 60), resource("bundle", "unnamed-yet", at=NOW - 60)]
    result = plan(Inventory(tuple(resources), history=events), Keep(days=0), now=NOW)
    assert goes(result) == ["x", "x", "of-x", "unnamed"]
    assert why(result, "of-both") == "event 2 of model b refers to it"


def test_files_of_a_model_that_an_event_took_away_go_however_young() -> None:
    events = history(("promoted", "a"), ("registered", "x"), ("removed", "x"), at=NOW - 60)
    result = plan(
        Inventory((resource("bundle", "x", at=NOW - 60), resource("weights", "x")), history=events), Keep(), now=NOW
    )
    assert goes(result) == ["x", "x"]


def test_the_last_revisions_that_were_published_stay() -> None:
    published = [("catalogue_published", "a", {"catalogue": r}) for r in ("r1", "r2", "r3", "r1")]
    events = history(("promoted", "a"), ("registered", "x"), *published)  # type: ignore[arg-type]
    resources = [resource("catalogue", f"a/{r}") for r in ("r1", "r2", "r3", "unpublished")]
    resources += [resource("catalogue", "a/coming", at=NOW - 60), resource("catalogue", "x/r1")]
    result = plan(Inventory(tuple(resources), history=events), Keep(catalogues=2, days=0), now=NOW)
    assert goes(result) == ["a/r2", "a/unpublished", "x/r1"]
    assert why(result, "a/r1") == "it is published"


def test_online_features_that_a_kept_model_reads_stay() -> None:
    resources = (resource("online", "ranking_v1"), resource("online", "ranking_v2"))
    observed = Inventory(resources, history=promoted("a", "b"), services={"a": "ranking_v1", "b": "ranking_v1"})
    assert goes(plan(observed, Keep(), now=NOW)) == ["ranking_v2"]
    unknown = Inventory(resources, history=promoted("a", "b"), services={"a": "ranking_v1", "b": ""})
    assert goes(plan(unknown, Keep(), now=NOW)) == []
    assert goes(plan(Inventory(resources), Keep(), now=NOW)) == []


# runs and their work ------------------------------------------------------------------------------------------

DONE = StepWork("k1", {"features": "f1"}, finished=True)
RUNS = tuple(resource("run", f"2026010{day}-000000-smoke") for day in range(1, 6))
FIRST, SECOND, LAST = RUNS[0].name, RUNS[1].name, RUNS[4].name


def test_the_latest_runs_and_their_inputs_stay() -> None:
    cache = (resource("cache", "featurize/k1"), resource("cache", "featurize/k2"), resource("cache", "featurize/k3"))
    observed = Inventory(
        (*RUNS, *cache),
        work={LAST: {"featurize": DONE}, FIRST: {"featurize": StepWork("k2", {"features": "f2"}, True)}},
        latest={"cache/featurize/k3"},
    )
    result = plan(observed, Keep(runs=2), now=NOW)
    assert goes(result) == [run.name for run in RUNS[:3]] + ["featurize/k2"]
    assert why(result, "featurize/k1") == f"run {LAST} uses it"


def test_an_hourly_flow_does_not_push_out_the_nightly_ones() -> None:
    hourly = tuple(resource("run", f"2026010{day}-010000-smoke") for day in range(1, 6))
    groups = {run.name: "smoke train" for run in RUNS} | {run.name: "smoke refresh" for run in hourly}
    result = plan(Inventory((*RUNS, *hourly), groups=groups), Keep(runs=2), now=NOW)
    assert goes(result) == sorted(run.name for run in (*RUNS[:3], *hourly[:3]))


def test_a_cache_entry_of_another_champion_is_found_by_its_outputs() -> None:
    observed = Inventory(
        (*RUNS, resource("cache", "featurize/other")),
        work={LAST: {"featurize": DONE}},
        cache_outputs={"cache/featurize/other": {"features": "f1"}},
    )
    assert "featurize/other" not in goes(plan(observed, Keep(runs=1), now=NOW))


def test_a_running_or_awaited_run_and_its_cache_entries_stay() -> None:
    cache = resource("cache", "featurize/k2")
    observed = Inventory((*RUNS, cache), running={FIRST}, awaited_runs={SECOND})
    result = plan(observed, Keep(runs=1), now=NOW)
    assert goes(result) == [RUNS[2].name, RUNS[3].name]
    assert "is running and may reuse it" in why(result, "featurize/k2")


@pytest.mark.parametrize("waits", [(("pending", "x"),), (("pending", "x"), ("approved", "x"))])
def test_the_run_that_made_what_serves_stays_and_so_does_one_that_a_reviewer_looks_at(waits: Any) -> None:
    runs = tuple(resource("run", name) for name in ("run-a", "run-b", "run-x", "run-y", "z"))
    events = history(("promoted", "a"), ("promoted", "b"), ("registered", "x"), *waits, ("registered", "y"))
    result = plan(Inventory(runs, history=events), Keep(runs=1, bundles=2), now=NOW)
    assert goes(result) == ["run-a", "run-y"]  # one can go back to a, and needs no run for that


def test_nothing_recent_is_removed() -> None:
    young = tuple(Resource(run.kind, run.name, run.path, NOW - DAY_S) for run in RUNS)
    assert goes(plan(Inventory(young), Keep(runs=1, days=2), now=NOW)) == []
    assert len(goes(plan(Inventory(young), Keep(runs=1, days=0.5), now=NOW))) == 4


def test_a_checkpoint_in_use_stays() -> None:
    half = StepWork("0123456789abcdef-rest", {}, finished=False)
    checkpoint = resource("checkpoint", "finetune/0123456789abcdef")
    assert goes(plan(Inventory((*RUNS, checkpoint), work={LAST: {"finetune": half}}), Keep(), now=NOW)) == []
    finished = {SECOND: {"finetune": StepWork(half.key, {}, True)}, LAST: {"finetune": half}}
    assert goes(plan(Inventory((*RUNS, checkpoint), work=finished), Keep(), now=NOW)) == [checkpoint.name]
    assert goes(plan(Inventory((*RUNS, checkpoint)), Keep(), now=NOW)) == [checkpoint.name]
    fresh = resource("checkpoint", "finetune/0123456789abcdef", at=NOW - 60)
    assert goes(plan(Inventory((*RUNS, fresh)), Keep(days=0), now=NOW)) == []


def test_a_file_is_freed_with_the_last_of_its_names() -> None:
    shared, own = Inode((1, 7), 2, 1000), Inode((1, 8), 1, 10)
    run, cache = resource("run", "a", files=(shared, own)), resource("cache", "featurize/k", files=(shared,))
    assert plan(Inventory((run, *RUNS, cache), latest={cache.path}), Keep(runs=5), now=NOW).freed() == 0
    old = resource("run", "0", files=(shared, own))
    retained = plan(Inventory((old, *RUNS, cache), latest={cache.path}), Keep(runs=5), now=NOW)
    assert (goes(retained), retained.freed()) == (["0"], 10)
    both = plan(Inventory((old, *RUNS, cache)), Keep(runs=5), now=NOW)
    assert (both.freed(), both.freed(["run"]), both.freed(["cache"])) == (1010, 1010, 0)
