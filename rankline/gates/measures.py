"""The numbers of a report by name, so that a policy can name every one of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rankline.errors import UsageError
from rankline.evaluation.report import CANDIDATE, Report

_NEAR = 5

# what a report has, by examples of names: `rankline gates schema` and docs/gates.md show them
MEASURES = {
    "ndcg@10": "a ranking metric of the candidate, and popularity.ndcg@10 of another system",
    "item.category=Drama.ndcg@10": "the same on a slice, and item: new.popularity.ndcg@10 of another system there",
    "item.category=Drama.requests": "how many requests a slice has",
    "coverage@10": "share of the catalogue that is in any list",
    "diversity@10": "how unlike the categories of a list's items are",
    "novelty@10": "how rare the items of lists are, in bits",
    "popularity_lift@10": "how much more popular the items of lists are than those of the users' histories, in log2",
    "gini@10": "how unequally exposure is divided among items, 0 to 1",
    "exposure.category.max_gap": "largest difference of a group's share of exposure from its share of the catalogue",
    "exposure.category.max_gap_to_relevance": "the same from its share of the targets",
    "exposure.category.groups.Drama.exposure": "a group's share of exposure, and .catalogue and .relevance",
    "latency.p50_ms": "time of an answer, also p95_ms and p99_ms, on latency.provider",
    "latency.p99_ms": "the slowest answer but one in a hundred",
    "latency.throughput_rps": "requests per second",
    "details.lean_latency.p99_ms": "time of an answer to a request without features",
    "model.memory_bytes": "peak memory of the server",
    "model.size_bytes": "size of the bundle",
    "parity.served_max_abs_difference": "largest difference of served scores from torch's",
    "parity.same_top10_share": "share of requests with torch's first ten items",
    "calibration.like_ece": "calibration error of the like head, and chance_ece of a calibrated model",
    "click.ece": "calibration error of a declared label's head, and any other of its metrics",
    "data.events_rows": "rows of a table",
    "data.events_rejected_share": "share of a table's rows that was set aside",
    "data.events_rows_change": "change of a table's rows since the last good run, as a share",
    "data.click_drift": "share of a label's values that moved since the last good run",
    "data.feedback_drift": "the same of positives and negatives",
    "data.price_drift": "the same of prices",
    "data.failed_expectations": "warnings of validate",
    "freshness.events_hours": "age of the newest event",
    "freshness.features_hours": "age of the newest event that the features count",
    "freshness.training_hours": "age of the newest event that was trained on",
    "cost.core_s": "core-seconds of the run so far",
    "cost.work_s": "seconds that its steps worked",
    "cost.peak_memory_bytes": "largest memory of a step",
    "cost.total": "money, by the prices in summary.*",
}


def measures(report: Report) -> dict[str, float | None]:
    """Name -> value, None where it was not measured.

    The candidate's metrics have their own names (ndcg@10, coverage@10), those of other systems, slices and heads are
    prefixed (popularity.ndcg@10, item: new.ndcg@10, click.ece), and everything else is named by its place
    (latency.p95_ms).
    """
    named: dict[str, float | None] = {}
    for system, scored in report.systems.items():
        prefix = "" if system == CANDIDATE else f"{system}."
        named |= {f"{prefix}{metric}": estimate.mean for metric, estimate in scored.metrics.items()}
        named |= {f"{prefix}{name}": value for name, value in scored.lists.items()}
    for name, part in report.slices.items():
        for system, by_metric in part.systems.items():
            prefix = f"{name}." if system == CANDIDATE else f"{name}.{system}."
            named |= {f"{prefix}{metric}": value for metric, value in by_metric.items()}
        named[f"{name}.requests"] = float(part.requests)
    rest = report.model_dump(exclude={"systems", "slices"})
    rest |= rest.pop("run_measures")  # data.…, freshness.… and cost.… have no prefix
    rest["details"].pop("settings", None)
    for head, scored_head in rest["heads"].items():
        named |= {f"{head}.{metric}": value for metric, value in scored_head.pop("metrics").items()}
    return named | dict(_leaves(rest, ""))


def with_examples(schema: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of a policy with examples of what a gate's metric may be."""
    for definition in schema.get("$defs", {}).values():
        if "metric" in definition.get("properties", {}):
            definition["properties"]["metric"]["examples"] = list(MEASURES)
    return schema


def _leaves(value: Any, path: str) -> Iterator[tuple[str, float | None]]:
    """The numbers within a value, and what was not measured, by their place."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        yield path, None if value is None else float(value)


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """The names that are like one, the most alike first."""
    return difflib.get_close_matches(name, sorted(known), n=_NEAR, cutoff=0.4)


def refuse_unknown(name: str, known: Iterable[str], *, what: str, gate: str) -> None:
    """Refuse a name that the report does not have.

    Raises:
        UsageError: the name is not known; with the names that are like it.
    """
    names = sorted(known)
    if name in names:
        return
    near = near_names(name, names)
    raise UsageError(
        f"the report has no {what} {name!r}",
        expected=f"one of {', '.join(near or names[:20])}",
        found=name,
        where=f"gate {gate!r} of decide.gates",
        hint=f"did you mean {near[0]!r}?" if near else "report.json of the step evaluate has every name",
    )
