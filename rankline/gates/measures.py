"""The numbers of a report by name, so that a policy can name every one of them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rankline.errors import UsageError
from rankline.evaluation.report import CANDIDATE, Report

_NEAR = 5
_FORMER = re.compile(r"heads\.(.+)\.metrics\.([^.]+)")


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
    rest = report.model_dump(exclude={"systems", "slices"})
    rest["details"].pop("settings", None)
    for head, scored_head in rest["heads"].items():
        named |= {f"{head}.{metric}": value for metric, value in scored_head.pop("metrics").items()}
    return named | dict(_leaves(rest, ""))


def _leaves(value: Any, path: str) -> Iterator[tuple[str, float | None]]:
    """The numbers within a value, and what was not measured, by their place."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        yield path, None if value is None else float(value)


def number(report: Report, name: str, *, gate: str) -> float | None:
    """A number of the report; None if it was not measured.

    Raises:
        UsageError: the report has no such number; with the names that are like it.
    """
    values = measures(report)
    if name not in values:
        name = _present_name(report, name)
    head, _, metric = name.rpartition(".")
    if metric and head in report.heads and not report.heads[head].metrics:
        return None  # no impression with this label
    refuse_unknown(name, values, what="number", gate=gate)
    return values[name]


def _present_name(report: Report, name: str) -> str:
    """The name of what earlier versions called heads.click.metrics.ece, and like_ece of the rating head."""
    if name in report.calibration:
        return f"calibration.{name}"
    former = _FORMER.fullmatch(name)
    return f"{former[1]}.{former[2]}" if former and former[1] in report.heads else name


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
        where=f"gate {gate!r} of the section decide",
        hint=f"did you mean {near[0]!r}?" if near else "report.json of the step evaluate has every name",
    )
