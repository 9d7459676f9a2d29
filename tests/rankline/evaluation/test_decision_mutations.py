"""Every check of a policy that uses all kinds fails alone where the candidate or its report is broken at its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from rankline.contracts import Manifest, Parity
from rankline.evaluation.decision import PromotionPolicy, Verdict, decide
from rankline.evaluation.report import Report
from rankline.gates.evidence import Evidence
from rankline.gates.state import AnchorState
from tests.rankline.evaluation.test_decision import CHAMPION, OWN, manifest_of

COUNT = 400
ANCHOR = "c" * 16
POLICY = PromotionPolicy.model_validate({
    "floors": {"hr@10": 0.5, "coverage@10": 0.2},
    "ceilings": {"click.ece": 0.1},
    "must_beat": ["popularity"],
    "margin": 0.2,
    "superior": True,
    "slice_drops": {"item: new": 0.1, "user: new": 0.1},
    "loss_budget": 0.03,
    "gates": [
        {"kind": "floor", "metric": "latency.throughput_rps", "at_least": 50, "provider": "cpu"},
        {"kind": "ceiling", "metric": "latency.p99_ms", "at_most": 60},
        {"kind": "not_worse", "metric": "hr@10", "than": "anchor", "margin": 0.05},
        {"kind": "better", "metric": "hr@10", "than": "bm25", "by": 0.1},
        {"kind": "not_worse", "metric": "hr@10", "slice": "item: head", "margin": 0.05},
    ],
})  # fmt: skip


@dataclass
class World:
    """A candidate that is better than champion and anchor, and far better than the baselines."""

    count: int = COUNT
    scores: dict[str, dict[str, np.ndarray]] = field(init=False)
    report: dict[str, dict[str, object]] = field(default_factory=dict)
    parity: dict[tuple[str, str], float] = field(default_factory=dict)  # (graph, precision) -> difference or cosine
    data_end: str = "2026-02-01T00:00:00+00:00"
    reported: dict[str, float] = field(default_factory=dict)  # in place of the candidate's mean
    requests: int = 0  # in place of the number of requests

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        ease = rng.uniform(0.3, 0.9, self.count)
        levels = {"candidate": 1.1, "champion": 1.0, "anchor": 1.0, "popularity": 0.5, "bm25": 0.5}
        self.scores = {
            metric: {name: ease * level + rng.normal(0, 0.01, self.count) for name, level in levels.items()}
            for metric in ("ndcg@10", "hr@10")
        }

    @property
    def half(self) -> np.ndarray:
        return np.asarray(np.arange(self.count) % 2 == 0)

    def verdict(self) -> Verdict:
        systems: dict[str, dict[str, object]] = {
            name: {"metrics": {metric: {"mean": float(self.scores[metric][name].mean())} for metric in self.scores}}
            for name in self.scores["hr@10"]
        }
        for metric, mean in self.reported.items():
            systems["candidate"]["metrics"][metric] = {"mean": mean}  # type: ignore[index]
        value: dict[str, object] = {
            "latency": {"p95_ms": 20.0, "p99_ms": 40.0, "throughput_rps": 90.0, "provider": "cpu"},
            "parity": {"served_max_abs_difference": 2e-6, "same_top10_share": 1.0},
            "model": {"size_bytes": 120_000_000},
            "heads": {"click": {"type": "binary", "impressions": 9, "metrics": {"ece": 0.03}}},
        }
        systems["candidate"]["lists"] = self.report.pop("lists", {"coverage@10": 0.4})
        value |= {place: {**value[place], **change} for place, change in self.report.items()}  # type: ignore[dict-item]
        report = Report.model_validate(
            {"model_id": OWN, "recipe": "r", "run_id": "", "champion": CHAMPION, "anchor": ANCHOR,
             "requests": self.requests or self.count, "systems": systems, **value}
        )  # fmt: skip
        ids = [f"r{n:03}" for n in range(self.count)]
        slices = {"item: new": self.half, "user: new": ~self.half, "item: head": self.half}
        evidence = Evidence(ids, ids, np.arange(1.0, self.count + 1), self.scores, slices)
        return decide(
            report, evidence, self.manifest(self.data_end), POLICY, champion_id=CHAMPION,
            champion_manifest=self.manifest("2026-01-01T00:00:00+00:00"), state=AnchorState(anchor=ANCHOR),
        )  # fmt: skip

    def manifest(self, data_end: str) -> Manifest:
        def broken(each: Parity) -> Parity:
            value = self.parity.get((each.graph, each.precision))
            name = "max_abs_difference" if each.precision == "fp32" else "min_cosine"
            return each if value is None else each.model_copy(update={name: value})

        parity = [broken(each) for each in manifest_of().parity]
        return manifest_of().model_copy(update={"parity": parity, "data_end": data_end})


def lowered(metric: str, system: str, factor: float) -> Callable[[World], None]:
    def breaking(world: World) -> None:
        world.scores[metric][system] *= factor

    return breaking


def slice_drop(metric: str, half: int, loss: float) -> Callable[[World], None]:
    """A slice loses what the other requests gain, so that the overall mean stays."""

    def breaking(world: World) -> None:
        inside = world.half if half == 0 else ~world.half
        world.scores[metric]["candidate"] += np.where(inside, -loss, loss)

    return breaking


def reported(place: str, name: str, value: object) -> Callable[[World], None]:
    def breaking(world: World) -> None:
        world.report[place] = {name: value}

    return breaking


def parity(graph: str, precision: str, value: float) -> Callable[[World], None]:
    def breaking(world: World) -> None:
        world.parity[graph, precision] = value

    return breaking


def assigned(**fields: object) -> Callable[[World], None]:
    def breaking(world: World) -> None:
        for name, value in fields.items():
            setattr(world, name, value)

    return breaking


HEAD = {"click": {"type": "binary", "impressions": 9, "metrics": {"ece": 0.3}}}
MUTATIONS: dict[str, Callable[[World], None]] = {
    "per-request scores": assigned(requests=COUNT + 1),
    "report agrees with its scores": assigned(reported={"ndcg@10": 0.9}),
    "floor hr@10": assigned(reported={"hr@10": 0.4}),
    "floor coverage@10": reported("lists", "coverage@10", 0.1),
    "ceiling click.ece": reported("heads", "click", HEAD["click"]),
    "beats popularity": lowered("ndcg@10", "popularity", 2.6),
    "better than the champion": lowered("ndcg@10", "champion", 1.2),
    "loss budget": lowered("ndcg@10", "anchor", 1.3),
    "data window": assigned(data_end="2025-12-01T00:00:00+00:00"),
    "slice item: new": slice_drop("ndcg@10", 0, 0.2),
    "slice user: new": slice_drop("ndcg@10", 1, 0.2),
    "parity text fp32": parity("text", "fp32", 1e-3),
    "parity scorer fp32": parity("scorer", "fp32", 1e-3),
    "parity text int8": parity("text", "int8", 0.5),
    "served parity": reported("parity", "served_max_abs_difference", 1e-3),
    "same top 10": reported("parity", "same_top10_share", 0.9),
    "latency": reported("latency", "p95_ms", 300.0),
    "size": reported("model", "size_bytes", 3_000_000_000),
    "floor latency.throughput_rps": reported("latency", "throughput_rps", 10.0),
    "ceiling latency.p99_ms": reported("latency", "p99_ms", 90.0),
    "hr@10 not worse than anchor": lowered("hr@10", "anchor", 1.3),
    "hr@10 better than bm25": lowered("hr@10", "bm25", 2.1),
    "hr@10 not worse than champion on item: head": slice_drop("hr@10", 0, 0.2),
}
# the few requests of the first are insufficient data; without a lead, none is worse than the margin allows
OTHERS = {"requests", "not worse than the champion"}


def test_a_good_candidate_passes_and_every_check_has_a_mutation() -> None:
    verdict = World().verdict()
    assert verdict.outcome == "promote", verdict.sentence
    assert {check.name for check in verdict.checks} == MUTATIONS.keys() | OTHERS


@pytest.mark.parametrize("name", MUTATIONS)
def test_what_is_broken_fails_its_check_and_no_other(name: str) -> None:
    world = World()
    MUTATIONS[name](world)
    verdict = world.verdict()
    assert [(check.name, check.status) for check in verdict.failures] == [(name, "fail")]
    assert verdict.outcome == "refused"


def test_too_few_requests_are_insufficient_data_alone() -> None:
    verdict = World(count=90).verdict()
    assert [(check.name, check.status) for check in verdict.failures if check.name == "requests"] == [
        ("requests", "insufficient data")
    ]
    assert verdict.outcome == "insufficient_data"


def test_a_candidate_far_below_the_champion_is_worse_and_not_better() -> None:
    world = World()
    lowered("ndcg@10", "champion", 1.5)(world)
    assert [check.name for check in world.verdict().failures] == [
        "not worse than the champion", "better than the champion", "slice item: new", "slice user: new",
    ]  # fmt: skip
