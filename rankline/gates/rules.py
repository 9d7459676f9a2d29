"""The gates of a policy applied to a report and its per-request scores.

A comparison passes if its interval is beyond the bound, fails if the contrary is proven, and otherwise the data is
insufficient. That all slices pass needs no correction for their number, because each of them has to; that one of them
fails does, and is corrected by Holm's method.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rankline.evaluation.report import ANCHOR, CANDIDATE, CHAMPION, Report
from rankline.gates.check import Check, Status
from rankline.gates.clusters import Clustered, Effect, holm
from rankline.gates.evidence import Evidence
from rankline.gates.measures import measures, refuse_unknown
from rankline.gates.policy import Better, Ceiling, Floor, NotWorse, title

MIN_CLUSTERS = 10  # with fewer, resampling them says nothing
Gates = Sequence[Floor | Ceiling | NotWorse | Better]


@dataclass(frozen=True)
class Resampling:
    """How intervals are computed."""

    resamples: int
    confidence: float
    seed: int

    @property
    def tail(self) -> float:
        """The error on one side of an interval."""
        return (1 - self.confidence) / 2


@dataclass(frozen=True)
class _Compared:
    """A comparison: its bound on the difference, the effect, and the p-value of being beyond the bound."""

    gate: NotWorse | Better
    bound: float
    effect: Effect | None
    contrary_p: float
    problem: str = ""


def gate_checks(gates: Gates, report: Report, evidence: Evidence, how: Resampling) -> list[Check]:
    """One check for each gate, in their order.

    Raises:
        UsageError: a gate names a metric, a system or a slice that the report does not have.
    """
    values = measures(report)
    checks: dict[int, Check] = {}
    compared: dict[int, _Compared] = {}
    for n, gate in enumerate(gates):
        if isinstance(gate, Floor | Ceiling):
            refuse_unknown(gate.metric, values, what="number", gate=title(gate))
            checks[n] = _bound(gate, values[gate.metric], report.latency.provider or "")
        else:
            compared[n] = _compare(gate, report, evidence, how)
    family = [n for n, each in compared.items() if each.gate.slice and each.effect]
    adjusted = dict(zip(family, holm([compared[n].contrary_p for n in family]), strict=True))
    for n, each in compared.items():
        checks[n] = _comparison(replace(each, contrary_p=adjusted.get(n, each.contrary_p)), how)
    return [checks[n] for n in range(len(gates))]


def blocks(check: Check, gates: Gates) -> bool:
    """Whether a check that is not met refuses the candidate: insufficient data of a lenient gate does not."""
    lenient = {title(gate) for gate in gates if gate.when_insufficient == "allow"}
    return not check.passed and not (check.status == "insufficient data" and check.name in lenient)


def _bound(gate: Floor | Ceiling, value: float | None, provider: str) -> Check:
    limit = gate.at_least if isinstance(gate, Floor) else gate.at_most
    required = f"at {'least' if isinstance(gate, Floor) else 'most'} {limit:.4g}"
    if gate.provider and provider != gate.provider:
        sentence = f"{gate.metric} was measured on {provider or 'an unknown provider'}, and {gate.provider} serves."
        return Check.of(title(gate), "insufficient data", sentence, required=required, observed=value)
    if value is None or not math.isfinite(value):
        return Check.of(title(gate), "fail", f"{gate.metric} was not measured.", required=required)
    met = value >= limit if isinstance(gate, Floor) else value <= limit
    sentence = f"{gate.metric} is {value:.4g}; {required} required."
    return Check.of(title(gate), "pass" if met else "fail", sentence, required=required, observed=value)


def _compare(gate: NotWorse | Better, report: Report, evidence: Evidence, how: Resampling) -> _Compared:
    from scipy.special import stdtr

    refuse_unknown(gate.metric, evidence.scores, what="per-request metric", gate=title(gate))
    if gate.than in (CHAMPION, ANCHOR) and not report.champion:
        return _Compared(gate, 0.0, None, 1.0)
    than = _system(gate, report)
    values_RS = evidence.stacked(gate.metric, (CANDIDATE, than))
    if values_RS is None:
        return _Compared(gate, 0.0, None, 1.0, f"{than} has no {gate.metric} of the candidate's requests.")
    inside_R = np.ones(len(values_RS), np.bool_)
    if gate.slice:
        inside_R = evidence.slices.get(gate.slice, np.zeros(len(values_RS), np.bool_))
    count = int(inside_R.sum())
    if count < gate.min_requests:
        where = f"Slice {gate.slice}" if gate.slice else "The evaluation"
        return _Compared(gate, 0.0, None, 1.0, f"{where} has {count} requests, and {gate.min_requests} are needed.")
    pairs = Clustered.of(values_RS[inside_R], [c for c, i in zip(evidence.clusters, inside_R, strict=True) if i])
    if (clusters := len(pairs.counts_C)) < MIN_CLUSTERS:
        problem = f"The requests are those of {clusters} users or queries, and {MIN_CLUSTERS} are needed."
        return _Compared(gate, 0.0, None, 1.0, problem)
    (effect,) = pairs.effects([(1.0, -1.0)], resamples=how.resamples, confidence=how.confidence, seed=how.seed)
    bound = _difference_bound(gate, float(pairs.mean_S[1]))
    contrast = np.array([1.0, -1.0])
    error = math.sqrt(max(float(contrast @ pairs.covariance_SS @ contrast), 0.0))
    gap = effect.mean - bound
    contrary = float(stdtr(effect.clusters - 1, gap / error)) if error > 0 else float(gap >= 0)
    return _Compared(gate, bound, effect, contrary)


def _system(gate: NotWorse | Better, report: Report) -> str:
    """The system that the candidate is compared with: the champion in place of an anchor that it is itself."""
    if gate.than != ANCHOR or report.anchor:
        known = [*report.systems, *([CHAMPION, ANCHOR] if report.champion else [])]
        refuse_unknown(gate.than, known, what="system", gate=title(gate))
        return gate.than
    return ANCHOR if f"{ANCHOR}_catalogue" in report.details else CHAMPION


def _difference_bound(gate: NotWorse | Better, other_mean: float) -> float:
    """The difference of means that the interval has to be beyond."""
    if isinstance(gate, Better):
        return gate.by * other_mean
    return -gate.margin * (other_mean if gate.margin_kind == "relative" else 1.0)


def _comparison(compared: _Compared, how: Resampling) -> Check:
    gate, effect, name = compared.gate, compared.effect, title(compared.gate)
    strict = isinstance(gate, Better)
    required = f"interval {'above' if strict else 'from'} {compared.bound:+.4g}"
    if effect is None:
        absent: Status = "insufficient data" if compared.problem else "pass"
        sentence = compared.problem or "There is no champion yet."
        return Check.of(name, absent, sentence, required=required)
    met = effect.low > compared.bound if strict else effect.low >= compared.bound
    status: Status = "pass" if met else "fail" if compared.contrary_p <= how.tail else "insufficient data"
    sentence = (
        f"Candidate minus {gate.than}{f' on {gate.slice}' if gate.slice else ''} is {effect.mean:+.4f} {gate.metric} "
        f"[{effect.low:+.4f}, {effect.high:+.4f}] over {effect.requests} requests of {effect.clusters} users; "
        f"{compared.bound:+.4f} is required, and {effect.detectable:.4f} could be detected."
    )
    return Check.of(name, status, sentence, required=required, observed=effect.low, effect=effect)
