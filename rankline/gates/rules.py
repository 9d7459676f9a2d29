"""The gates of a policy applied to a report and its per-request scores.

A comparison passes if its interval is beyond the bound, fails if the contrary is proven, and otherwise the data is
insufficient. That all slices pass needs no correction for their number, because each of them has to; that one of them
fails does, and is corrected by Holm's method. The best of several models is better by luck: to be proven better, the
n-th model on the same requests has the share 1/(n (n+1)) of the error, as in the loss budget.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rankline.evaluation.report import ANCHOR, CANDIDATE, CHAMPION, SOURCE, Report, RunMeasures, is_baseline
from rankline.gates.check import Check, Status
from rankline.gates.clusters import Clustered, Effect, holm
from rankline.gates.evidence import Evidence
from rankline.gates.measures import number, refuse_unknown
from rankline.gates.policy import BEST_SOURCE, STRONGEST, Better, Ceiling, Floor, Gate, NotWorse, title
from rankline.gates.sequences import spent_on
from rankline.gates.slice_names import refuse_unknown_slice

_KINDS = {STRONGEST: "strongest baseline", BEST_SOURCE: "best single source"}
MIN_CLUSTERS = 10  # with fewer, resampling them says nothing
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Resampling:
    """How intervals are computed, and from how many models this one was chosen.

    ``looks`` counts the models on these requests, this one included; ``trials`` are those it was chosen from elsewhere.
    """

    resamples: int
    confidence: float
    seed: int
    looks: int = 1
    trials: int = 1

    @property
    def tail(self) -> float:
        """The error on one side of an interval."""
        return (1 - self.confidence) / 2

    def tail_of(self, gate: NotWorse | Better) -> float:
        """The error with which a gate may pass."""
        if isinstance(gate, NotWorse):
            return self.tail
        return float(spent_on(self.looks - 1, 1 - self.confidence)) / self.trials

    @property
    def correction(self) -> str:
        """What the sentence of a corrected comparison says of it."""
        looks = f"model {self.looks} on these requests" if self.looks > 1 else ""
        trials = f"the best of {self.trials}" if self.trials > 1 else ""
        return f", corrected for being {' and '.join(filter(None, (looks, trials)))}" if looks or trials else ""


@dataclass(frozen=True)
class _Question:
    """A comparison: the other system, the difference of each request [R], those it is of, and the mean's bound."""

    gate: NotWorse | Better
    than: str
    difference_R: Floats
    inside_R: Bools
    bound: float


@dataclass(frozen=True)
class _Answer:
    """The effect, and the p-value of being beyond the bound on the wrong side."""

    question: _Question
    effect: Effect
    contrary_p: float


def gate_checks(gates: Sequence[Gate], report: Report, evidence: Evidence, how: Resampling) -> list[Check]:
    """One check for each gate, in their order; all intervals are of the same resamples.

    Raises:
        UsageError: a gate names a metric, a system or a slice that the report does not have.
    """
    checks: dict[int, Check] = {}
    questions: dict[int, _Question] = {}
    for n, gate in enumerate(gates):
        judged = _bound(gate, report) if isinstance(gate, Floor | Ceiling) else _question(gate, report, evidence)
        if isinstance(judged, Check):
            checks[n] = judged
        else:
            questions[n] = judged
    answers = dict(zip(questions, _answers(list(questions.values()), evidence, how), strict=True))
    family = [n for n, each in answers.items() if isinstance(each, _Answer) and each.question.gate.slice]
    adjusted = holm([each.contrary_p for n in family if isinstance(each := answers[n], _Answer)])
    corrected = dict(zip(family, adjusted, strict=True))
    for n, each in answers.items():
        if isinstance(each, _Answer):
            checks[n] = _comparison(replace(each, contrary_p=corrected.get(n, each.contrary_p)), how)
        else:
            checks[n] = each
    return [checks[n] for n in range(len(gates))]


def allowed(gate: Gate, check: Check) -> bool:
    """Whether a gate lets a candidate through although its data is insufficient."""
    return check.status == "insufficient data" and gate.when_insufficient == "allow"


def _bound(gate: Floor | Ceiling, report: Report) -> Check:
    value, provider = number(report, gate.metric, gate=title(gate)), report.latency.provider or ""
    limit = gate.at_least if isinstance(gate, Floor) else gate.at_most
    required = f"at {'least' if isinstance(gate, Floor) else 'most'} {limit:.4g}"
    if gate.provider and provider != gate.provider:
        sentence = f"{gate.metric} was measured on {provider or 'an unknown provider'}, and {gate.provider} serves."
        return Check.of(title(gate), "insufficient data", sentence, required=required, observed=value)
    if value is None or not math.isfinite(value):
        of_run = gate.metric.partition(".")[0] in RunMeasures.model_fields  # a first run has nothing to compare with
        status: Status = "insufficient data" if of_run else "fail"
        return Check.of(title(gate), status, f"{gate.metric} was not measured.", required=required)
    met = value >= limit if isinstance(gate, Floor) else value <= limit
    sentence = f"{gate.metric} is {value:.4g}; {required} required."
    return Check.of(title(gate), "pass" if met else "fail", sentence, required=required, observed=value)


def _question(gate: NotWorse | Better, report: Report, evidence: Evidence) -> _Question | Check:
    """The comparison of a gate, or a check where there is nothing to compare."""
    refuse_unknown(gate.metric, evidence.scores, what="per-request metric", gate=title(gate))
    if gate.slice:
        refuse_unknown_slice(gate.slice, report, evidence, gate=title(gate))
    if gate.than in (CHAMPION, ANCHOR) and not report.champion:
        return Check.of(title(gate), "pass", "There is no champion yet.", required=_required(gate))
    all_R = np.ones(len(evidence.request_ids), np.bool_)
    inside_R = evidence.slices.get(gate.slice, ~all_R) if gate.slice else all_R
    than = _system(gate, report, evidence, inside_R)
    if not than:
        return _insufficient(gate, f"The evaluation has no {_KINDS[gate.than]}.")
    values_RS = evidence.stacked(gate.metric, (CANDIDATE, than))
    if values_RS is None:
        return _insufficient(gate, f"{than} has no {gate.metric} of each of the candidate's requests.")
    if (count := int(inside_R.sum())) < gate.min_requests:
        where = f"Slice {gate.slice}" if gate.slice else "The evaluation"
        counted = report.slices[gate.slice].requests if gate.slice in report.slices else count
        return _insufficient(gate, f"{where} has {max(count, counted)} requests, and {gate.min_requests} are needed.")
    bound = _difference_bound(gate, float(values_RS[inside_R, 1].mean()))
    return _Question(gate, than, values_RS[:, 0] - values_RS[:, 1], inside_R, bound)


def _system(gate: NotWorse | Better, report: Report, evidence: Evidence, inside_R: Bools) -> str:
    """The system that the candidate is compared with: the champion in place of an anchor that it is itself.

    Which is the strongest is decided on the requests of the comparison, where it may be so by luck:
    the candidate is judged more strictly, never less. Empty where there is none of its kind.
    """
    if gate.than in _KINDS:
        return _strongest(gate, evidence, inside_R)
    if gate.than != ANCHOR or report.anchor:
        known = {*report.systems, *evidence.scores[gate.metric], *([CHAMPION, ANCHOR] if report.champion else [])}
        refuse_unknown(gate.than, known - {CANDIDATE}, what="system", gate=title(gate))
        return gate.than
    return ANCHOR if f"{ANCHOR}_catalogue" in report.details else CHAMPION


def _strongest(gate: NotWorse | Better, evidence: Evidence, inside_R: Bools) -> str:
    means = {
        system: float(values_R[inside_R].mean()) if inside_R.any() else 0.0
        for system, values_R in evidence.scores[gate.metric].items()
        if (is_baseline(system) if gate.than == STRONGEST else system.startswith(SOURCE))
    }
    return max(means, key=lambda name: (means[name], name), default="")


def _difference_bound(gate: NotWorse | Better, other_mean: float) -> float:
    """The difference of means that the interval has to be beyond."""
    if isinstance(gate, Better):
        return gate.by * other_mean
    return -gate.margin * (other_mean if gate.margin_kind == "relative" else 1.0)


def _answers(questions: Sequence[_Question], evidence: Evidence, how: Resampling) -> list[_Answer | Check]:
    """The effects of all comparisons; a check for one of too few users or queries."""
    from scipy.special import stdtr

    if not questions:
        return []
    difference_RK = np.stack([each.difference_R for each in questions], axis=1)
    inside_RK = np.stack([each.inside_R for each in questions], axis=1)
    pairs = Clustered.of(difference_RK, evidence.clusters, inside_RK)
    tails = [how.tail_of(each.gate) for each in questions]
    effects = pairs.effects(resamples=how.resamples, seed=how.seed, tails=tails)
    answers: list[_Answer | Check] = []
    for each, effect, error in zip(questions, effects, pairs.error_K.tolist(), strict=True):
        if effect.clusters < MIN_CLUSTERS:
            problem = f"The requests are those of {effect.clusters} users or queries, and {MIN_CLUSTERS} are needed."
            answers.append(_insufficient(each.gate, problem))
            continue
        gap = effect.mean - each.bound
        # without any spread the difference is certain
        contrary = float(stdtr(effect.clusters - 1, gap / error)) if error > 0 else float(_beyond(each.gate, gap))
        answers.append(_Answer(each, effect, contrary))
    return answers


def _comparison(answer: _Answer, how: Resampling) -> Check:
    gate, bound, effect = answer.question.gate, answer.question.bound, answer.effect
    met = _beyond(gate, effect.low - bound)
    status: Status = "pass" if met else "fail" if answer.contrary_p <= how.tail else "insufficient data"
    required = _required(gate, bound)
    where = f" on {gate.slice}" if gate.slice else ""
    sentence = (
        f"Candidate minus {_described(answer.question)}{where} is {effect.mean:+.4f} {gate.metric} "
        f"[{effect.low:+.4f}, {effect.high:+.4f}{how.correction if isinstance(gate, Better) else ''}] "
        f"over {effect.requests} requests; the interval must be {required.removeprefix('interval ')}"
    )
    if status == "insufficient data":
        sentence += f", and neither that nor the contrary is proven: {effect.detectable:.4f} could be detected"
    return Check.of(
        title(gate),
        status,
        f"{sentence}.",
        required=required,
        observed=effect.low,
        effect=effect,
        than=answer.question.than,
    )


def _described(question: _Question) -> str:
    """The other system, and where the report decided which one it is, that it did."""
    kind = _KINDS.get(question.gate.than)
    return f"{question.than}, the {kind}," if kind else question.than


def _beyond(gate: NotWorse | Better, gap: float) -> bool:
    """Whether a difference this far from the bound is on the right side of it."""
    return gap > 0 if isinstance(gate, Better) else gap >= 0


def _required(gate: NotWorse | Better, bound: float | None = None) -> str:
    side = "above" if isinstance(gate, Better) else "from"
    if bound is not None:
        return f"interval {side} {bound:+.4g}"
    return f"interval {side} that of {_KINDS.get(gate.than, gate.than)}"


def _insufficient(gate: NotWorse | Better, sentence: str) -> Check:
    return Check.of(title(gate), "insufficient data", sentence, required=_required(gate))
