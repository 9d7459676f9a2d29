"""Every number of a report can be named by a gate, which is seen to pass and to fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from rankline.errors import UsageError
from rankline.evaluation.report import CANDIDATE, Report
from rankline.gates.evidence import Evidence
from rankline.gates.measures import MEASURES, measures
from rankline.gates.policy import Gate
from rankline.gates.rules import Resampling, gate_checks

ROOT = Path(__file__).resolve().parents[3]
LISTS = ("coverage@10", "diversity@10", "novelty@10", "popularity_lift@10", "gini@10")
RUN = {
    "data": dict.fromkeys(
        ("events_rows", "events_rejected_share", "events_rows_change", "click_drift", "feedback_drift", "price_drift",
         "failed_expectations"), 0.25),
    "freshness": {"events_hours": 30.0, "features_hours": 31.0, "training_hours": 54.0},
    "cost": {"core_s": 900.0, "work_s": 800.0, "peak_memory_bytes": 1e9, "total": 0.0125},
}  # fmt: skip
REPORT = Report.model_validate(
    {
        "model_id": "m", "recipe": "r", "run_id": "run", "requests": 100,
        "systems": {
            name: {"metrics": {"ndcg@10": {"mean": 0.5}}, "lists": dict.fromkeys(LISTS, 0.5)}
            for name in (CANDIDATE, "popularity")
        },
        "slices": {
            "item.category=Drama": {
                "requests": 60, "systems": {name: {"ndcg@10": 0.4} for name in (CANDIDATE, "popularity")}
            },
            "user.country=FR": {"requests": 3, "systems": {CANDIDATE: {"ndcg@10": None}}},
        },
        "latency": {"p50_ms": 5, "p95_ms": 9, "p99_ms": 12, "throughput_rps": 200, "provider": "cpu"},
        "parity": {"requests": 9, "provider": "cpu", "served_max_abs_difference": 1e-6, "same_top10_share": 1},
        "model": {"size_bytes": 1000, "memory_bytes": 2000},
        "calibration": {"like_ece": 0.02},
        "heads": {"click": {"type": "binary", "impressions": 9, "metrics": {"ece": 0.01}}},
        "exposure": {
            "category": {
                "max_gap": 0.2, "max_gap_to_relevance": 0.1,
                "groups": {"Drama": {"exposure": 0.6, "catalogue": 0.4, "relevance": 0.5}},
            }
        },
        "run_measures": RUN,
        "details": {"lean_latency": {"p99_ms": 3}},
    }
)  # fmt: skip
EVIDENCE = Evidence(["r"], ["u"], np.zeros(1), {})
KNOWN = {name: value for name, value in measures(REPORT).items() if value is not None}


def status(metric: str, **rule: float | str) -> str:
    gate = TypeAdapter(Gate).validate_python({"metric": metric, **rule})
    (check,) = gate_checks([gate], REPORT, EVIDENCE, Resampling(100, 0.95, 0))
    return check.status


@pytest.mark.parametrize("metric", KNOWN)
def test_every_number_can_be_gated_and_its_gate_passes_and_fails(metric: str) -> None:
    value = KNOWN[metric]
    assert status(metric, kind="ceiling", at_most=value) == status(metric, kind="floor", at_least=value) == "pass"
    assert status(metric, kind="ceiling", at_most=value - 0.001) == "fail"
    assert status(metric, kind="floor", at_least=value + 0.001) == "fail"


def test_the_examples_are_names_and_the_docs_have_each() -> None:
    assert set(MEASURES) <= set(KNOWN)
    page = (ROOT / "docs" / "gates.md").read_text()
    assert [name for name in MEASURES if f"`{name}`" not in page] == []


def test_a_small_slice_never_passes_a_bound_and_has_its_size() -> None:
    assert status("user.country=FR.ndcg@10", kind="floor", at_least=0) != "pass"
    assert status("user.country=FR.requests", kind="floor", at_least=10) == "fail"


def test_a_name_that_is_not_there_is_refused_with_those_that_are_like_it() -> None:
    with pytest.raises(UsageError, match=r"no number 'data\.event_rows_change'") as refusal:
        status("data.event_rows_change", kind="ceiling", at_most=1)
    assert "data.events_rows_change" in refusal.value.expected


def test_another_provider_is_insufficient_data() -> None:
    assert status("latency.p99_ms", kind="ceiling", at_most=99, provider="cuda") == "insufficient data"
    assert status("latency.p99_ms", kind="ceiling", at_most=99, provider="cpu") == "pass"
