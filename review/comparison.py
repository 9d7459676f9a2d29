"""Two models side by side, from the evidence of their evaluations.

Their scores are paired where both were measured on the same requests: in an evaluation of one beside the other as the
champion, or in two evaluations that share requests.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rankline.contracts import FrozenModel
from rankline.errors import UsageError
from rankline.evaluation.report import ANCHOR, CANDIDATE, CHAMPION, PER_REQUEST, Report, read_report
from rankline.gates.clusters import Clustered
from rankline.gates.evidence import Evidence, read_evidence
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import Event

CONFIDENCE, RESAMPLES = 0.95, 2000

Floats = npt.NDArray[np.float64]


class Difference(FrozenModel):
    """A metric of two models; the interval is that of second - first, where both were scored on the same requests."""

    metric: str
    first: float | None
    second: float | None
    difference: float | None = None
    low: float | None = None
    high: float | None = None


class Comparison(FrozenModel):
    """Two models side by side."""

    first: str
    second: str
    requests: tuple[int, int]
    same_requests: int  # on which both were scored
    metrics: tuple[Difference, ...]
    note: str = ""  # why there are no intervals


@dataclass(frozen=True)
class _Pair:
    """The scores [R, 2] of two models on the same requests, by metric, and the user or query of each request."""

    clusters: list[str]
    scores: Mapping[str, Floats]


def compare(models: ModelRegistry, first: str, second: str) -> Comparison:
    """The metrics of two models, whose ids may be abbreviated.

    Raises:
        UsageError: there is no such model, or several ids begin like that.
        RegistryError: it has no evaluation.
    """
    history = models.history()
    ids = full_id(history, first), full_id(history, second)
    with tempfile.TemporaryDirectory(prefix="rankline-") as scratch:
        folders = [models.evidence_folder(_evaluation(history, each), Path(scratch)) for each in ids]
        return _compared(ids, folders)


def full_id(history: Sequence[Event], model: str) -> str:
    """The one model of the history whose id begins like this.

    Raises:
        UsageError: there is none, or there are several.
    """
    known = list(dict.fromkeys(event.model_id for event in reversed(history) if event.model_id))
    matches = [each for each in known if model and each.startswith(model)]
    if len(matches) == 1:
        return matches[0]
    raise UsageError(
        "several model ids begin like that" if matches else "there is no such model here",
        expected="one of " + (", ".join((matches or known)[:10]) or "the models, and there are none"),
        found=model or "no model id",
        hint="`rankline history` lists every model",
    )


def _evaluation(history: Sequence[Event], model_id: str) -> str:
    """The digest of a model's last evaluation; empty without one."""
    named = (event for event in reversed(history) if event.model_id == model_id and "evaluation" in event.digests)
    return next((event.digests["evaluation"] for event in named), "")


def _compared(ids: tuple[str, str], folders: Sequence[Path]) -> Comparison:
    reports = [read_report(folder) for folder in folders]
    evidence = [read_evidence(folder) if (folder / PER_REQUEST).is_file() else None for folder in folders]
    pair = _pair(ids, reports, evidence)
    names = dict.fromkeys(name for report in reports for name in report.systems[CANDIDATE].metrics)
    note = ""
    if pair is None:
        note = "the two models were not scored on the same requests: the difference of their means says little"
        if None in evidence:
            note = "the scores of single requests are not in the evidence any more: there are no intervals"
    return Comparison(
        first=ids[0],
        second=ids[1],
        requests=(reports[0].requests, reports[1].requests),
        same_requests=len(pair.clusters) if pair else 0,
        metrics=tuple(_difference(name, reports, pair) for name in names),
        note=note,
    )


def _difference(metric: str, reports: Sequence[Report], pair: _Pair | None) -> Difference:
    """A metric of both models: on the requests that they share, else on those of their own evaluations."""
    scores_RS = pair.scores.get(metric) if pair else None
    if pair is None or scores_RS is None:
        first, second = (report.metric(CANDIDATE, metric) for report in reports)
        return Difference(metric=metric, first=first, second=second)
    difference_R = scores_RS[:, 1] - scores_RS[:, 0]
    clustered = Clustered.of(np.column_stack([scores_RS, difference_R]), pair.clusters)
    first, second, difference = clustered.mean_K.tolist()
    if len(clustered.counts_CK) < 2:
        return Difference(metric=metric, first=first, second=second, difference=difference)
    effect = clustered.effects(resamples=RESAMPLES, confidence=CONFIDENCE, seed=0)[-1]
    return Difference(
        metric=metric, first=first, second=second, difference=effect.mean, low=effect.low, high=effect.high
    )


def _pair(ids: tuple[str, str], reports: Sequence[Report], evidence: Sequence[Evidence | None]) -> _Pair | None:
    """The scores of both models on the same requests; None where there are none."""
    for n in (1, 0):  # an evaluation of one of them beside the other
        table, report, other = evidence[n], reports[n], ids[1 - n]
        system = {report.anchor: ANCHOR, report.champion: CHAMPION}.get(other, "")
        if table is not None and system in next(iter(table.scores.values()), {}):
            systems = (system, CANDIDATE) if n == 1 else (CANDIDATE, system)
            stacked = {metric: table.stacked(metric, systems) for metric in table.scores}
            return _Pair(table.clusters, {name: scores for name, scores in stacked.items() if scores is not None})
    first, second = evidence
    if first is None or second is None:
        return None
    return _shared_requests(first, second)


def _shared_requests(first: Evidence, second: Evidence) -> _Pair | None:
    """The scores on the requests that two evaluations share."""
    _, rows_first, rows_second = np.intersect1d(first.request_ids, second.request_ids, return_indices=True)
    if not len(rows_first):
        return None
    scores: dict[str, Floats] = {}
    for metric in first.scores.keys() & second.scores.keys():
        own, others = first.stacked(metric, (CANDIDATE,)), second.stacked(metric, (CANDIDATE,))
        if own is not None and others is not None:
            scores[metric] = np.stack([own[rows_first, 0], others[rows_second, 0]], axis=1)
    return _Pair([first.clusters[row] for row in rows_first], scores)
