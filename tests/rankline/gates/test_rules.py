"""Every kind of gate passes on a good report, and fails alone where the report is broken at its place."""

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from rankline.errors import UsageError
from rankline.evaluation.report import Report
from rankline.gates.evidence import Evidence
from rankline.gates.measures import measures
from rankline.gates.policy import Gate
from rankline.gates.rules import Resampling, allowed, gate_checks

HOW = Resampling(resamples=500, confidence=0.95, seed=0)
COUNT = 400
GATES = [
    {"kind": "floor", "metric": "hr@10", "at_least": 0.5},
    {"kind": "floor", "metric": "coverage@10", "at_least": 0.2},
    {"kind": "floor", "metric": "latency.throughput_rps", "at_least": 50, "provider": "cpu"},
    {"kind": "ceiling", "metric": "latency.p99_ms", "at_most": 60, "provider": "cpu"},
    {"kind": "ceiling", "metric": "model.memory_bytes", "at_most": 1e9},
    {"kind": "ceiling", "metric": "calibration.like_ece", "at_most": 0.1},
    {"kind": "not_worse", "metric": "ndcg@10", "margin": 0.05},
    {"kind": "not_worse", "metric": "hr@10", "margin": 0.02, "margin_kind": "absolute", "than": "anchor"},
    {"kind": "better", "metric": "ndcg@10", "than": "popularity", "by": 0.1},
    {"kind": "not_worse", "metric": "ndcg@10", "margin": 0.1, "slice": "item: new"},
    {"kind": "not_worse", "metric": "ndcg@10", "margin": 0.1, "slice": "user: new"},
]


def gates_of(*settings):
    return TypeAdapter(tuple[Gate, ...]).validate_python(settings)


def scores(seed=0):
    rng = np.random.default_rng(seed)
    ease = rng.uniform(0.3, 0.9, COUNT)
    near = {name: ease + rng.normal(0, 0.01, COUNT) for name in ("candidate", "champion", "anchor")}
    near["popularity"] = ease * 0.5
    return {"ndcg@10": near, "hr@10": {name: values + 0.05 for name, values in near.items()}}


def world(by_metric=None, **changes):
    """A report and its evidence: the candidate is as good as champion and anchor, and better than popularity."""
    by_metric = by_metric or scores()
    systems = {
        name: {"metrics": {metric: {"mean": float(by_metric[metric][name].mean())} for metric in by_metric}}
        for name in by_metric["ndcg@10"]
    }
    systems["candidate"]["lists"] = {"coverage@10": 0.4}
    value = {
        "model_id": "m", "recipe": "r", "run_id": "run", "champion": "c", "anchor": "a", "requests": COUNT,
        "systems": systems,
        "latency": {"p99_ms": 40.0, "throughput_rps": 90.0, "provider": "cpu"},
        "model": {"memory_bytes": 500_000_000},
        "calibration": {"like_ece": 0.03, "like_auc": None},
    }  # fmt: skip
    for place, change in changes.items():
        value[place] = {**value.get(place, {}), **change} if isinstance(change, dict) else change
    half = np.arange(COUNT) % 2 == 0
    ids = [f"r{n:03}" for n in range(COUNT)]
    few = np.arange(COUNT) < 5
    slices = {"item: new": half, "user: new": ~half, "tiny": few, "item.category=Action": few}
    return Report.model_validate(value), Evidence(ids, ids, np.zeros(COUNT), by_metric, slices)


def statuses(gates, report, evidence):
    return {check.name: check.status for check in gate_checks(gates, report, evidence, HOW)}


def shifted(system, metric, shift, rows=slice(None)):
    changed = scores()
    changed[metric][system][rows] += shift
    return changed


# the gate that fails, and what is broken
MUTATIONS = [
    (
        "floor hr@10",
        {"systems": {"candidate": {"metrics": {"hr@10": {"mean": 0.4}}, "lists": {"coverage@10": 0.4}}}},
        None,
    ),
    ("floor coverage@10", {}, "coverage"),
    ("floor latency.throughput_rps", {"latency": {"throughput_rps": 10.0}}, None),
    ("ceiling latency.p99_ms", {"latency": {"p99_ms": 80.0}}, None),
    ("ceiling model.memory_bytes", {"model": {"memory_bytes": 2_000_000_000}}, None),
    ("ceiling calibration.like_ece", {"calibration": {"like_ece": 0.3}}, None),
    ("ndcg@10 not worse than champion", {}, shifted("champion", "ndcg@10", 0.045)),
    ("hr@10 not worse than anchor", {}, shifted("anchor", "hr@10", 0.1)),
    ("ndcg@10 better than popularity", {}, shifted("popularity", "ndcg@10", 0.5)),
    ("ndcg@10 not worse than champion on item: new", {}, "item: new"),
    ("ndcg@10 not worse than champion on user: new", {}, "user: new"),
]


def test_a_good_report_passes_every_gate():
    assert set(statuses(gates_of(*GATES), *world()).values()) == {"pass"}


@pytest.mark.parametrize(("name", "changes", "by_metric"), MUTATIONS, ids=[name for name, _, _ in MUTATIONS])
def test_what_is_broken_fails_its_gate_and_no_other(name, changes, by_metric):
    gates = list(GATES)
    if by_metric == "coverage":
        report, evidence = world()
        report.systems["candidate"].lists["coverage@10"] = 0.1
    elif isinstance(by_metric, str):  # the slice loses what the rest gains, so that the overall mean stays
        half = np.arange(COUNT) % 2 == (0 if by_metric == "item: new" else 1)
        changed = scores()
        changed["ndcg@10"]["candidate"] += np.where(half, -0.2, 0.2)
        report, evidence = world(changed)
    else:
        report, evidence = world(by_metric, **changes)
    result = statuses(gates_of(*gates), report, evidence)
    assert {each for each, status in result.items() if status != "pass"} == {name}
    assert result[name] == "fail"


@pytest.mark.parametrize("provider", ["cuda", None])
def test_a_latency_of_another_provider_is_insufficient_data(provider):
    result = statuses(gates_of(*GATES), *world(latency={"provider": provider}))
    unmet = {name for name, status in result.items() if status != "pass"}
    assert unmet == {"floor latency.throughput_rps", "ceiling latency.p99_ms"}
    assert {result[name] for name in unmet} == {"insufficient data"}


def test_a_number_that_was_not_measured_fails():
    gates = gates_of({"kind": "floor", "metric": "calibration.like_auc", "at_least": 0.5})
    assert statuses(gates, *world()) == {"floor calibration.like_auc": "fail"}


@pytest.mark.parametrize(
    ("gate", "near"),
    [
        ({"kind": "floor", "metric": "ndgc@10", "at_least": 0}, "ndcg@10"),
        ({"kind": "ceiling", "metric": "latency.p9_ms", "at_most": 9}, "latency.p99_ms"),
        ({"kind": "better", "metric": "hr@1O", "than": "champion"}, "hr@10"),
        ({"kind": "better", "metric": "hr@10", "than": "popularty"}, "popularity"),
        ({"kind": "better", "metric": "hr@10", "slice": "item: nwe"}, "item: new"),
        ({"kind": "better", "metric": "hr@10", "slice": "item.categry=Action"}, "item.category=Action"),
    ],
)
def test_an_unknown_name_is_refused_with_those_that_are_like_it(gate, near):
    with pytest.raises(UsageError) as refusal:
        gate_checks(gates_of(gate), *world(), HOW)
    assert near in refusal.value.expected
    assert near in refusal.value.hint


@pytest.mark.parametrize("name", ["tiny", "item: tail", "item.category=Drama"])
def test_a_slice_that_is_too_small_is_insufficient_data_and_may_be_allowed(name):
    gate = {"kind": "not_worse", "metric": "ndcg@10", "margin": 0.5, "slice": name}
    (strict,), (lenient,) = gates_of(gate), gates_of({**gate, "when_insufficient": "allow"})
    (check,) = gate_checks([strict], *world(), HOW)
    assert check.status == "insufficient data"
    assert (allowed(strict, check), allowed(lenient, check)) == (False, True)


def test_a_gate_that_allows_insufficient_data_still_refuses_a_proven_loss():
    gates = gates_of(
        {"kind": "not_worse", "metric": "ndcg@10", "margin": 0.05, "slice": "item: new", "when_insufficient": "allow"}
    )
    (check,) = gate_checks(gates, *world(shifted("candidate", "ndcg@10", -0.2)), HOW)
    assert check.status == "fail"
    assert not allowed(gates[0], check)


def test_few_users_are_insufficient_data_however_many_their_requests():
    report, evidence = world()
    few = Evidence(evidence.request_ids, [f"u{n % 5}" for n in range(COUNT)], evidence.at_R, evidence.scores)
    assert set(statuses(gates_of(GATES[6]), report, few).values()) == {"insufficient data"}


@pytest.mark.parametrize(("looks", "trials"), [(1, 1), (3, 1), (1, 6)])
def test_the_best_of_several_models_must_be_further_above_to_be_better(looks, trials):
    """A lead that is proven for one model, and not for the best of six or the third on the same requests."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, COUNT)
    by_metric = scores()
    by_metric["ndcg@10"]["candidate"] = by_metric["ndcg@10"]["champion"] + (noise - noise.mean()) + 0.0115
    better, not_worse = {"kind": "better", "metric": "ndcg@10"}, {"kind": "not_worse", "metric": "ndcg@10", "margin": 0}
    how = Resampling(resamples=4000, confidence=0.95, seed=0, looks=looks, trials=trials)
    first, second = gate_checks(gates_of(better, not_worse), *world(by_metric), how)
    alone = (looks, trials) == (1, 1)
    assert first.status == ("pass" if alone else "insufficient data")
    assert ("corrected" in first.sentence) is not alone
    assert second.status == "pass"  # what may be worse is no prize to win


@pytest.mark.integration
def test_one_slice_of_many_that_looks_bad_by_chance_is_no_failure():
    """Twenty slices with no true loss: singly one in ten runs would fail one of them, with Holm's method far fewer."""
    failed, singly = 0, 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        base = rng.uniform(0.3, 0.9, COUNT)
        by_metric = {"ndcg@10": {"candidate": base + rng.normal(0, 0.1, COUNT), "champion": base}}
        slices = {f"s{n}": np.arange(COUNT) % 20 == n for n in range(20)}
        ids = [f"r{n:03}" for n in range(COUNT)]
        gates = [
            {"kind": "not_worse", "metric": "ndcg@10", "margin": 0.0, "slice": name, "min_requests": 10}
            for name in slices
        ]
        systems = {name: {"metrics": {}} for name in ("candidate", "champion")}
        report = Report(model_id="m", recipe="r", run_id="", champion="c", requests=COUNT, systems=systems)
        evidence = Evidence(ids, ids, np.zeros(COUNT), by_metric, slices)
        failed += "fail" in statuses(gates_of(*gates), report, evidence).values()
        singly += "fail" in {s for gate in gates for s in statuses(gates_of(gate), report, evidence).values()}
    assert singly >= 10
    assert failed <= 4


@pytest.mark.parametrize(("shift", "status"), [(-0.2, "fail"), (0.0, "pass")])
def test_a_difference_without_any_spread_is_certain(shift, status):
    by_metric = scores()
    by_metric["ndcg@10"]["candidate"] = by_metric["ndcg@10"]["champion"] + shift
    assert list(statuses(gates_of(GATES[6]), *world(by_metric)).values()) == [status]


def test_the_first_model_has_no_champion_to_be_compared_with():
    report, evidence = world()
    alone = report.model_copy(update={"champion": "", "anchor": ""})
    assert set(statuses(gates_of(GATES[6], GATES[7]), alone, evidence).values()) == {"pass"}


@pytest.mark.parametrize(
    ("anchor", "details", "status"),
    [("", {}, "pass"), ("", {"anchor_catalogue": "not replayed: it is too old"}, "insufficient data")],
)
def test_without_scores_of_its_own_the_anchor_is_the_champion_or_unknown(anchor, details, status):
    by_metric = scores()
    for values in by_metric.values():
        del values["anchor"]
    report, evidence = world(by_metric)
    report = report.model_copy(update={"anchor": anchor, "details": details})
    assert list(statuses(gates_of(GATES[7]), report, evidence).values()) == [status]


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "roof", "metric": "hr@10", "at_most": 1},
        {"kind": "floor", "metric": "hr@10", "at_most": 1},
        {"kind": "floor", "metric": "hr@10"},
        {"kind": "not_worse", "metric": "hr@10", "margin": -0.1},
        {"kind": "better", "metric": "", "than": "champion"},
        {"kind": "better", "metric": "hr@10", "then": "champion"},
    ],
)
def test_a_gate_that_is_none_is_refused(wrong):
    with pytest.raises(ValidationError):
        gates_of(wrong)


def test_every_number_of_a_report_has_a_name():
    report, _ = world(details={"lean_latency": {"p50_ms": 3.0}, "settings": {"top_k": 100}})
    names = measures(report)
    assert names["ndcg@10"] == report.systems["candidate"].metrics["ndcg@10"].mean
    assert names["popularity.hr@10"] == report.systems["popularity"].metrics["hr@10"].mean
    assert names["details.lean_latency.p50_ms"] == 3.0
    assert names["calibration.like_auc"] is None
    assert "details.settings.top_k" not in names


def with_systems(**shifts):
    """The world with more systems, each so far below the candidate."""
    changed = scores()
    for metric in changed.values():
        metric |= {name: metric["candidate"] - shift for name, shift in shifts.items()}
    return changed


STRICT = {"kind": "better", "metric": "ndcg@10", "than": "strongest"}


@pytest.mark.parametrize(
    ("shifts", "than", "status"),
    [
        ({"ease": 0.05, "bm25": 0.2}, "ease", "pass"),
        ({"ease": -0.05, "bm25": 0.2}, "ease", "fail"),
        ({"bm25": 0.05, "source_towers": -0.1, "teacher": -0.1, "control_words": -0.1}, "bm25", "pass"),
    ],
)
def test_the_strongest_baseline_is_named_and_no_model_nor_part_of_one(shifts, than, status):
    (check,) = gate_checks(gates_of(STRICT), *world(with_systems(**shifts)), HOW)
    assert (check.than, check.status) == (than, status)
    assert check.sentence.startswith(f"Candidate minus {than}, the strongest baseline, is ")


def test_the_strongest_baseline_of_a_slice_is_the_one_that_is_strongest_there():
    changed = with_systems(ease=0.05, tfidf=0.1)
    half = np.arange(COUNT) % 2 == 0
    changed["ndcg@10"]["tfidf"][half] += 0.2
    gates = gates_of(STRICT, {**STRICT, "slice": "item: new"}, {**STRICT, "slice": "user: new"})
    checks = gate_checks(gates, *world(changed), HOW)
    assert [(check.than, check.status) for check in checks[1:]] == [("tfidf", "fail"), ("ease", "pass")]
    assert "tfidf, the strongest baseline, on item: new" in checks[1].sentence


def test_the_best_single_source_is_a_part_of_the_model_and_may_be_absent():
    gate = {"kind": "not_worse", "metric": "ndcg@10", "than": "best_source", "margin": 0.05}
    (check,) = gate_checks(gates_of(gate), *world(with_systems(source_towers=0.0, source_bm25=0.3)), HOW)
    assert (check.than, check.status) == ("source_towers", "pass")
    (check,) = gate_checks(gates_of(gate), *world(with_systems(source_towers=-0.2)), HOW)
    assert check.status == "fail"
    (check,) = gate_checks(gates_of(gate), *world(), HOW)
    assert check.status == "insufficient data"
    assert check.sentence == "The evaluation has no best single source."
