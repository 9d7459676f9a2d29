import json

import numpy as np
import pytest

from rankline.contracts import Manifest, Parity, Precision
from rankline.errors import IntegrityError, StaleEvidence, UsageError
from rankline.evaluation import decision
from rankline.evaluation.decision import PromotionPolicy
from rankline.evaluation.report import Report, read_report, write_report
from rankline.gates.evidence import Evidence
from rankline.model.scoring import feature_names

REQUESTS = 300
OWN, CHAMPION = "a" * 16, "b" * 16


def scores_of(seed=0, **shifts):
    """Per-request scores of some systems: the same hard and easy requests, a shift, noise of their own."""
    rng = np.random.default_rng(seed)
    ease = rng.beta(2, 2, REQUESTS) * 0.5
    return {
        system: {f"r{i}": float(v) for i, v in enumerate(ease + shift + rng.normal(0, 0.02 if shift else 0, REQUESTS))}
        for system, shift in shifts.items()
    }


def evidence_of(scores, **slices):
    """The scores as `read_evidence` reads them: those of systems with the candidate's requests, in their order."""
    own = sorted(scores.get("candidate", {}))
    aligned = {name: np.array([by[r] for r in own]) for name, by in scores.items() if sorted(by) == own}
    inside = {"new items": np.array([int(r[1:]) < 80 for r in own]), "tiny": np.array([int(r[1:]) < 3 for r in own])}
    return Evidence(own, own, np.zeros(len(own)), {"ndcg@10": aligned}, inside | slices)


def decide(report, scores, manifest, policy, **named):
    return decision.decide(report, evidence_of(scores), manifest, policy, **named)


def report_of(scores, *, champion=CHAMPION, **changes):
    def mean(system):
        return float(np.mean(list(scores[system].values())))

    systems = {system: {"metrics": {"ndcg@10": {"mean": mean(system), "low": 0.0, "high": 1.0}}} for system in scores}
    value = {
        "model_id": OWN,
        "recipe": "smoke",
        "run_id": "run-1",
        "champion": champion,
        "requests": REQUESTS,
        "systems": systems,
        "slices": {
            "new items": {"requests": 80, "systems": {}},
            "tiny": {"requests": 3, "systems": {}},
        },
        "latency": {"p50_ms": 5.0, "p95_ms": 20.0, "p99_ms": 40.0, "throughput_rps": 90.0},
        "parity": {"requests": REQUESTS, "served_max_abs_difference": 2e-6, "same_top10_share": 1.0},
        "model": {"size_bytes": 120_000_000},
    }
    return Report.model_validate(value | changes)


def manifest_of(*parity: Parity) -> Manifest:
    displayed = parity or (
        Parity(graph="text", precision="fp32", samples=64, max_abs_difference=2e-6, min_cosine=1.0),
        Parity(graph="scorer", precision="fp32", samples=64, max_abs_difference=3e-6),
        Parity(graph="text", precision="int8", samples=64, max_abs_difference=0.05, min_cosine=0.995),
        Parity(graph="scorer", precision="int8", samples=64, max_abs_difference=0.4),
    )
    precision = Precision(scorer="scorer.onnx", item_vectors="vectors.npy")
    return Manifest(
        recipe="smoke",
        heads=["rating"],
        features=feature_names(),
        text=None,
        vector_size=8,
        max_history=10,
        covisit_decay=0.8,
        candidates_per_source=50,
        precisions={"fp32": precision, "int8": precision},
        parity=list(displayed),
        data_digest="d",
        code_digest="c",
        train_end="1998-04-01T00:00:00+00:00",
    )


BETTER = scores_of(candidate=0.05, champion=0.0, popularity=-0.1)
WORSE = scores_of(candidate=-0.08, champion=0.0, popularity=-0.2)
EQUAL = scores_of(candidate=0.0, champion=0.0, popularity=-0.1)
NOISY = scores_of(candidate=1e-9, champion=-1e-9, popularity=-0.1)
DROPPED = {**BETTER, "candidate": {r: v - 0.2 * (int(r[1:]) < 80) for r, v in BETTER["candidate"].items()}}
UNKNOWN = {**BETTER, "candidate": {**BETTER["candidate"], "r7": float("nan")}}
FEWER = {**BETTER, "champion": {k: v for k, v in BETTER["champion"].items() if k != "r7"}}
PARITY = {"requests": REQUESTS, "served_max_abs_difference": 2e-6, "same_top10_share": 1.0}
LATENCY = {"p50_ms": 5.0, "p99_ms": 40.0, "throughput_rps": 90.0}


def ndcg(mean):
    return {"metrics": {"ndcg@10": {"mean": mean, "low": None, "high": None}}}


# name, scores, changes of the policy, changes of the report, outcome, the checks that fail
CASES = [
    ("better", BETTER, {}, {}, "promote", []),
    ("better, and has to be", BETTER, {"superior": True}, {}, "promote", []),
    ("equal", EQUAL, {}, {}, "promote", []),
    ("equal, no margin at all", EQUAL, {"margin": 0}, {}, "promote", []),
    ("equal, has to be better", EQUAL, {"superior": True}, {}, "refused", ["better than the champion"]),
    (
        "equal but for noise, a narrow margin",
        NOISY,
        {"margin": 1e-4},
        {},
        "insufficient_data",
        ["not worse than the champion"],
    ),
    (
        "equal but for noise, has to be better",
        NOISY,
        {"superior": True},
        {},
        "insufficient_data",
        ["better than the champion"],
    ),
    (
        "worse, proven beside data that is insufficient",
        WORSE,
        {"slice_drops": {"tiny": 0.1}},
        {},
        "refused",
        ["not worse than the champion", "slice tiny"],
    ),
    ("worse", WORSE, {}, {}, "refused", ["not worse than the champion"]),
    ("worse within a wide margin", WORSE, {"margin": 0.9}, {}, "promote", []),
    ("absolute margin, wide", WORSE, {"margin": 0.1, "margin_kind": "absolute"}, {}, "promote", []),
    (
        "absolute margin, narrow",
        WORSE,
        {"margin": 0.05, "margin_kind": "absolute"},
        {},
        "refused",
        ["not worse than the champion"],
    ),
    (
        "below a baseline",
        scores_of(candidate=0.0, champion=-0.1, popularity=0.05),
        {},
        {},
        "refused",
        ["beats the strongest baseline"],
    ),
    (
        "no champion's scores",
        scores_of(candidate=0.1, popularity=0.0),
        {},
        {},
        "insufficient_data",
        ["not worse than the champion"],
    ),
    ("the champion has one request fewer", FEWER, {}, {}, "insufficient_data", ["not worse than the champion"]),
    (
        "a score that is no number",
        UNKNOWN,
        {},
        {"systems": {"candidate": ndcg(None), "champion": ndcg(0.2)}},
        "refused",
        ["report agrees with its scores", "beats the strongest baseline", "not worse than the champion"],
    ),
    (
        "a report that tells another story",
        BETTER,
        {},
        {"systems": {"candidate": ndcg(0.9), "champion": ndcg(0.2)}},
        "refused",
        ["report agrees with its scores"],
    ),
    ("floor met", BETTER, {"floors": {"ndcg@10": 0.1}}, {}, "promote", []),
    ("floor missed", BETTER, {"floors": {"ndcg@10": 0.9}}, {}, "refused", ["floor ndcg@10"]),
    ("too few requests", BETTER, {"min_requests": 301}, {}, "insufficient_data", ["requests"]),
    (
        "too few, and worse",
        WORSE,
        {"min_requests": 301},
        {},
        "refused",
        ["requests", "not worse than the champion"],
    ),
    ("slice within its drop", BETTER, {"slice_drops": {"new items": 0.05}}, {}, "promote", []),
    ("slice drop", DROPPED, {"slice_drops": {"new items": 0.1}}, {}, "refused", ["slice new items"]),
    (
        "slice drop that noise explains",
        NOISY,
        {"slice_drops": {"new items": 1e-4}},
        {},
        "insufficient_data",
        ["slice new items"],
    ),
    ("slice too small to judge", BETTER, {"slice_drops": {"tiny": 0.01}}, {}, "insufficient_data", ["slice tiny"]),
    (
        "slice without a request",
        BETTER,
        {"slice_drops": {"item: tail": 0.5}},
        {},
        "insufficient_data",
        ["slice item: tail"],
    ),
    (
        "served parity",
        BETTER,
        {},
        {"parity": PARITY | {"served_max_abs_difference": 2e-4}},
        "refused",
        ["served parity"],
    ),
    ("served parity missing", BETTER, {}, {"parity": {}}, "refused", ["served parity", "same top 10"]),
    ("other top 10", BETTER, {}, {"parity": PARITY | {"same_top10_share": 0.9}}, "refused", ["same top 10"]),
    ("slow", BETTER, {"max_p95_ms": 19.0}, {}, "refused", ["latency"]),
    ("latency missing", BETTER, {}, {"latency": LATENCY}, "refused", ["latency"]),
    ("latency no matter", BETTER, {"max_p95_ms": None}, {"latency": LATENCY}, "promote", []),
    ("large", BETTER, {"max_size_mb": 100}, {}, "refused", ["size"]),
    ("size missing", BETTER, {}, {"model": {}}, "refused", ["size"]),
    ("review", BETTER, {"mode": "review"}, {}, "pending", []),
    ("review, but worse", WORSE, {"mode": "review"}, {}, "refused", ["not worse than the champion"]),
]


@pytest.mark.parametrize(
    ("scores", "policy", "report", "outcome", "failing"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_the_verdict(scores, policy, report, outcome, failing):
    verdict = decide(
        report_of(scores, **report),
        scores,
        manifest_of(),
        PromotionPolicy(**policy),
        champion_id=CHAMPION,
        champion_manifest=manifest_of(),
    )
    assert (verdict.outcome, [check.name for check in verdict.failures]) == (outcome, failing)
    assert verdict.checks
    # a reason for everything, in words
    assert all(check.sentence.endswith(".") and check.required for check in verdict.checks)
    assert all(check.sentence in verdict.sentence for check in verdict.failures)


@pytest.mark.parametrize(
    ("policy", "near"),
    [
        ({"ceilings": {"conversion.ece": 0.1}}, "purchase.ece"),
        ({"floors": {"purchase.acu": 0.1}}, "purchase.auc"),
        ({"floors": {"ndgc@10": 0.1}}, "ndcg@10"),
        ({"ceilings": {"like_ec": 0.1}}, "calibration.like_ece"),
        ({"must_beat": ["popularty"]}, "popularity"),
        ({"must_beat": ["candidate"]}, "popularity"),
        ({"slice_drops": {"item: nwe": 0.1}}, "item: new"),
        ({"slice_drops": {"new itms": 0.1}}, "new items"),
        ({"primary": "ndgc@10"}, "ndcg@10"),
    ],
)
@pytest.mark.parametrize("champion", [CHAMPION, ""])
def test_a_misspelt_name_is_refused_with_those_like_it(policy, near, champion):
    report = report_of(BETTER, champion=champion, heads=HEADS, calibration={"like_ece": None})
    with pytest.raises(UsageError) as refusal:
        decide(report, BETTER, manifest_of(), PromotionPolicy(**policy), champion_id=champion)
    assert near in refusal.value.expected


HEADS = {
    "purchase": {"type": "binary", "impressions": 99, "metrics": {"auc": 0.7, "ece": 0.1}},
    "click": {"type": "binary", "impressions": 0, "metrics": {}},
}


@pytest.mark.parametrize("name", ["like_ece", "calibration.like_ece", "click.ece", "heads.click.metrics.ece"])
def test_a_number_that_was_not_measured_is_not_met_under_each_of_its_names(name):
    report = report_of(BETTER, heads=HEADS, calibration={"like_ece": None})
    verdict = decide(
        report, BETTER, manifest_of(), PromotionPolicy(ceilings={name: 1}), champion_id=CHAMPION,
        champion_manifest=manifest_of(),
    )  # fmt: skip
    assert [(check.name, check.status) for check in verdict.failures] == [(f"ceiling {name}", "fail")]
    assert "was not measured" in verdict.sentence


def test_too_few_requests_are_insufficient_data_in_the_check_as_well():
    policy = PromotionPolicy(min_requests=301)
    verdict = decide(
        report_of(WORSE), WORSE, manifest_of(), policy, champion_id=CHAMPION, champion_manifest=manifest_of()
    )
    assert {check.name: check.status for check in verdict.failures} == {
        "requests": "insufficient data",
        "not worse than the champion": "fail",
    }


PARITIES = [
    (
        "fp32 too far",
        [Parity(graph="text", precision="fp32", samples=9, max_abs_difference=2e-4)],
        "parity text fp32",
    ),
    (
        "fp32 no number",
        [Parity(graph="text", precision="fp32", samples=9, max_abs_difference=float("nan"))],
        "parity text fp32",
    ),
    ("fp32 unmeasured", [], "parity fp32"),
    (
        "int8 too far",
        [Parity(graph="text", precision="int8", samples=9, max_abs_difference=0.1, min_cosine=0.9)],
        "parity text int8",
    ),
    (
        "int8 no cosine",
        [Parity(graph="user", precision="int8", samples=9, max_abs_difference=0.1)],
        "parity user int8",
    ),
    ("int8 unmeasured", [], "parity int8"),
]


@pytest.mark.parametrize(("parity", "failing"), [c[1:] for c in PARITIES], ids=[c[0] for c in PARITIES])
def test_exported_graphs_that_differ_from_torch_are_refused(parity, failing):
    precision = failing.split()[-1]
    others = [entry for entry in manifest_of().parity if entry.precision != precision]
    verdict = decide(
        report_of(BETTER),
        BETTER,
        manifest_of(*others, *parity),
        PromotionPolicy(),
        champion_id=CHAMPION,
        champion_manifest=manifest_of(),
    )
    assert (verdict.outcome, [check.name for check in verdict.failures]) == ("refused", [failing])


OLDER, NEWER = "1998-03-01T00:00:00+00:00", "1998-04-01T00:00:00+00:00"
# name, what the candidate and the champion say of their data, changes of the policy, whether the check is met
WINDOWS = [
    ("newer", {"data_end": NEWER}, {"data_end": OLDER}, {}, True),
    ("the same", {"data_end": NEWER}, {"data_end": NEWER}, {}, True),
    ("the same in another zone", {"data_end": "1998-04-01T02:00:00+02:00"}, {"data_end": NEWER}, {}, True),
    ("older", {"data_end": OLDER}, {"data_end": NEWER}, {}, False),
    ("older, and allowed", {"data_end": OLDER}, {"data_end": NEWER}, {"allow_older_window": True}, True),
    ("beside a bundle of an earlier version", {"data_end": NEWER, "train_end": NEWER}, {"train_end": OLDER}, {}, True),
    ("older than such a bundle", {"data_end": NEWER, "train_end": OLDER}, {"train_end": NEWER}, {}, False),
    ("no time at all", {"data_end": "yesterday"}, {"data_end": NEWER}, {}, False),
]


@pytest.mark.parametrize(("mine", "theirs", "policy", "met"), [c[1:] for c in WINDOWS], ids=[c[0] for c in WINDOWS])
def test_a_model_of_an_older_window_is_not_promoted(mine, theirs, policy, met):
    candidate, champion = (manifest_of().model_copy(update=result) for result in (mine, theirs))
    verdict = decide(
        report_of(BETTER),
        BETTER,
        candidate,
        PromotionPolicy(**policy),
        champion_id=CHAMPION,
        champion_manifest=champion,
    )
    assert verdict.outcome == ("promote" if met else "refused")
    assert [check.name for check in verdict.failures] == ([] if met else ["data window"])


def test_a_champion_without_a_manifest_is_not_replaced():
    verdict = decide(report_of(BETTER), BETTER, manifest_of(), PromotionPolicy(), champion_id=CHAMPION)
    assert [check.name for check in verdict.failures] == ["data window"]


def test_the_first_ever_needs_no_champion_but_everything_else():
    scores = scores_of(candidate=0.05, popularity=-0.1)
    policy = PromotionPolicy(slice_drops={"new items": 0.01}, superior=True)
    verdict = decide(report_of(scores, champion=""), scores, manifest_of(), policy, champion_id="")
    assert verdict.outcome == "promote"
    bad = scores_of(candidate=-0.2, popularity=0.0)
    assert (
        decide(report_of(bad, champion=""), bad, manifest_of(), PromotionPolicy(), champion_id="").outcome == "refused"
    )


def test_a_champion_that_is_its_own_candidate_already_serves():
    # whatever the numbers say, and although the evidence was made beside another
    verdict = decide(report_of(WORSE), WORSE, manifest_of(), PromotionPolicy(), champion_id=OWN)
    assert (verdict.outcome, verdict.checks) == ("already_serving", [])


@pytest.mark.parametrize(("beside", "serving"), [(CHAMPION, "c" * 16), ("", CHAMPION), (CHAMPION, "")])
def test_stale_evidence_is_refused(beside, serving):
    with pytest.raises(StaleEvidence, match="champion changed") as refusal:
        decide(
            report_of(BETTER, champion=beside),
            BETTER,
            manifest_of(),
            PromotionPolicy(),
            champion_id=serving,
            champion_manifest=manifest_of(),
        )
    assert (serving or "no other model") in refusal.value.expected
    assert refusal.value.found == f"one beside {f'champion {beside}' if beside else 'none: no other model served'}"


def test_the_same_evidence_gives_the_same_verdict_whatever_the_order_of_requests():
    turned = {name: dict(reversed(list(by_request.items()))) for name, by_request in BETTER.items()}
    one, two = (
        decide(
            report_of(BETTER),
            s,
            manifest_of(),
            PromotionPolicy(),
            champion_id=CHAMPION,
            champion_manifest=manifest_of(),
        )
        for s in (BETTER, turned)
    )
    assert one == two


def test_every_rule_of_the_policy_is_explained():
    assert all(field.description for field in PromotionPolicy.model_fields.values())


def test_a_misspelt_rule_is_refused():
    with pytest.raises(ValueError, match="Extra inputs"):
        PromotionPolicy(margins=0.1)


# -- reading what was evaluated ------------------------------------------------------------------------------


def test_a_report_survives_the_disk_and_an_unmeasured_number_stays_one(tmp_path):
    report = report_of(BETTER, latency={"p95_ms": float("nan")})
    write_report(tmp_path, report)
    assert json.loads((tmp_path / "report.json").read_text())["latency"]["p95_ms"] is None
    again = read_report(tmp_path)
    assert again.systems == report.systems
    assert "latency" in [
        c.name
        for c in decide(
            again, BETTER, manifest_of(), PromotionPolicy(), champion_id=CHAMPION, champion_manifest=manifest_of()
        ).failures
    ]


def test_what_is_not_an_evaluation_is_refused(tmp_path):
    with pytest.raises(UsageError, match="not an evaluation"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text('{"model_id": 3')
    with pytest.raises(IntegrityError, match="cannot be read"):
        read_report(tmp_path)


def test_the_verdict_says_which_baseline_it_was_compared_with():
    scores = {**BETTER, "ease": {request: value - 0.02 for request, value in BETTER["candidate"].items()}}

    def verdict(scores):
        manifest = manifest_of()
        return decide(
            report_of(scores), scores, manifest, PromotionPolicy(), champion_id=CHAMPION, champion_manifest=manifest
        )

    passed = verdict(scores)
    assert passed.outcome == "promote"
    assert passed.sentence.endswith("; the strongest baseline is EASE with decay.")
    refused = verdict({**scores, "ease": {request: value + 0.02 for request, value in BETTER["candidate"].items()}})
    assert (refused.outcome, [check.than for check in refused.failures]) == ("refused", ["ease"])
    assert "minus ease, the strongest baseline, is" in refused.sentence
