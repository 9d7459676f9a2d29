"""Whether a candidate may serve: a pure function of the measurements and the policy, with its reasons.

Every rule of the policy becomes one check with the observed and the required value, met or not. A missing number fails
its check.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from rankline.contracts import FrozenModel, Manifest
from rankline.errors import StaleEvidence
from rankline.evaluation.report import ANCHOR, CANDIDATE, CHAMPION, Report
from rankline.gates.budget import check_budget, proven
from rankline.gates.check import Check
from rankline.gates.clusters import Clustered
from rankline.gates.evidence import Evidence
from rankline.gates.measures import near_names
from rankline.gates.nights import Night, measure_night
from rankline.gates.policy import Gate, title
from rankline.gates.rules import Resampling, blocks, gate_checks
from rankline.gates.state import AnchorState
from rankline.pod import advice

VerdictLabel = Literal["promote", "pending", "refused", "insufficient_data", "already_serving"]
Scores = Mapping[str, Mapping[str, float]]

# largest difference of a report's mean from that of its per-request scores
_ROUNDING = 1e-4


class PromotionPolicy(FrozenModel):
    """What a candidate must meet before it serves."""

    mode: Literal["auto", "review"] = Field(
        "auto",
        description="auto promotes a candidate that meets every rule; review lets it wait for a reviewer.",
    )
    four_eyes: bool = Field(
        False,
        description="Whether a reviewer other than the one who started the run has to approve it; where nobody knows "
        "who did, two reviewers.",
    )
    primary: str = Field("ndcg@10", description="Metric in which systems are compared.")
    min_requests: int = Field(
        100, ge=1, description="Fewest test requests; with fewer the verdict is insufficient_data."
    )
    floors: dict[str, float] = Field(
        {},
        description="Metric -> the value that the candidate must reach, regardless of the champion; of a label's head "
        "such as click.auc.",
    )
    ceilings: dict[str, float] = Field(
        {}, description="Metric -> the value that the candidate may not exceed, such as click.ece of a label's head."
    )
    must_beat: list[str] = Field(
        ["popularity"],
        description="Systems over which the candidate's paired interval must be entirely above zero.",
    )
    margin: float = Field(
        0.1,
        ge=0,
        description="How much worse than the champion the paired interval's lower end may be; "
        "a margin narrower than the interval refuses equal models.",
    )
    margin_kind: Literal["relative", "absolute"] = Field(
        "relative",
        description="Whether the margin is a share of the champion's mean, or a difference of scores.",
    )
    superior: bool = Field(
        False, description="Whether the candidate must be better than the champion, not only no worse."
    )
    allow_older_window: bool = Field(
        False, description="Whether a candidate may replace a champion whose data ends later, as in a backfill."
    )
    slice_drops: dict[str, float] = Field(
        {}, description="Slice -> the largest share of the champion's mean that the candidate may lose there."
    )
    slice_min_requests: int = Field(
        50, ge=1, description="Fewest requests of a slice in slice_drops; a smaller one is insufficient data."
    )
    loss_budget: float | None = Field(
        0.03,
        gt=0,
        lt=1,
        description="Share of the anchor's mean that a candidate may be below it, proven over as many nights as it "
        "takes; none compares with the champion alone, and quality may decay from one promotion to the next.",
    )
    loss_error: float = Field(
        0.05, gt=0, lt=0.5, description="Probability that a promotion exceeds the loss budget, for all nights together."
    )
    anchor: Literal["best", "fixed"] = Field(
        "best",
        description="best moves the anchor to a champion that is proven better than it; fixed leaves that to "
        "`rankline gates anchor`.",
    )
    trials: int = Field(
        1, ge=1, description="Models that this one was chosen from on these requests, apart from those evaluated here."
    )
    gates: tuple[Gate, ...] = Field(
        (), description="More gates: floors, ceilings, comparisons on all requests or on a slice (docs/gates.md)."
    )
    max_parity_difference: float = Field(
        1e-4, gt=0, description="Largest difference between the fp32 graphs and torch, as exported."
    )
    min_parity_cosine: float = Field(
        0.95, ge=-1, le=1, description="Smallest cosine between vectors of a lower precision and torch's."
    )
    max_served_difference: float = Field(
        1e-4,
        gt=0,
        description="Largest difference of served scores from torch's; wider where less than fp32 is served.",
    )
    min_same_top10: float = Field(
        0.999, ge=0, le=1, description="Smallest share of requests whose served top 10 is torch's, apart from ties."
    )
    max_p95_ms: float | None = Field(
        250.0, gt=0, description="Largest 95th percentile of the server's answer time; none for no limit."
    )
    max_size_mb: float | None = Field(2000.0, gt=0, description="Largest size of the bundle; none for no limit.")
    confidence: float = Field(0.95, gt=0, lt=1, description="Confidence of every two-sided interval.")
    resamples: int = Field(2000, ge=100, description="Resamples of the bootstrap.")
    seed: int = Field(0, description="Seed of the bootstrap.")

    @field_validator("gates")
    @classmethod
    def _one_name_each(cls, gates: tuple[Gate, ...]) -> tuple[Gate, ...]:
        names = [title(gate) for gate in gates]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two gates are named {twice[0]!r}: give one of them a name of its own")
        return gates


class Verdict(FrozenModel):
    """The decision on a candidate, with every reason for it."""

    outcome: VerdictLabel
    model_id: str
    champion: str = Field(description="the champion at the time of the decision; empty for none")
    sentence: str
    checks: list[Check] = Field(default=[], description="every rule of the policy, met or not")
    policy: PromotionPolicy
    state: AnchorState | None = Field(default=None, description="the anchor, and the earlier nights against it")
    night: Night | None = Field(default=None, description="what this night's new requests say of it")

    @property
    def failures(self) -> list[Check]:
        """The checks that were not met."""
        return [check for check in self.checks if not check.passed]


def decide(
    report: Report,
    scores: Scores,
    manifest: Manifest,
    policy: PromotionPolicy,
    *,
    champion_id: str,
    champion_manifest: Manifest | None = None,
    evidence: Evidence | None = None,
    state: AnchorState | None = None,
) -> Verdict:
    """The verdict on a candidate.

    ``scores`` are the policy's primary metric: system -> request id -> score. Systems are compared on the same
    requests, matched by id. ``manifest`` is the candidate's, ``champion_id`` is empty without a champion. The gates and
    the clusters need the ``evidence``, the loss budget also the ``state`` that earlier nights left.

    Raises:
        UsageError: a gate names what the report does not have.
        StaleEvidence: the candidate was measured beside a model that is no longer the champion.
    """
    night = tonight(report, evidence, state, policy, champion_id) if evidence and state else None
    verdict = functools.partial(
        Verdict, model_id=report.model_id, champion=champion_id, policy=policy, state=state, night=night
    )
    if report.model_id == champion_id:
        sentence = f"Model {champion_id} already serves; there is nothing to decide."
        return verdict(outcome="already_serving", sentence=sentence)

    if report.champion != champion_id:
        raise StaleEvidence(
            "the champion changed since this model was evaluated",
            expected=f"an evaluation beside champion {champion_id or '(none)'}, which serves now",
            found=f"one beside {f'champion {report.champion}' if report.champion else 'none: no other model served'}",
            hint=advice(
                on_one_machine="run the pipeline again: it reuses what is done and compares with the new champion",
                on_a_cluster="`rankline submit` again: it reuses what is done and compares with the new champion; "
                "`rankline runs retry` would keep this evaluation",
            ),
        )

    enough = _enough_requests(report, policy)
    checks = [
        enough,
        *_per_request_scores(report, scores, policy),
        *_floors(report, policy),
        *_baselines(scores, policy, evidence),
        *_against_champion(report, scores, policy, champion_id, evidence),
        *_loss_budget(report, policy, state, night),
        *_data_window(manifest, champion_manifest, policy, champion_id),
        *_slices(report, policy, champion_id),
        *_parity(report, manifest, policy),
        *_costs(report, policy),
        *(gate_checks(policy.gates, report, evidence, _resampling(policy)) if evidence and policy.gates else ()),
    ]
    if not enough.passed:
        return verdict(outcome="insufficient_data", sentence=enough.sentence, checks=checks)
    if blocking := [check for check in checks if blocks(check, policy.gates)]:
        failed = any(check.status == "fail" for check in blocking)
        sentence = " ".join(check.sentence for check in blocking)
        return verdict(outcome="refused" if failed else "insufficient_data", sentence=sentence, checks=checks)
    unmet = sum(not check.passed for check in checks)
    sentence = f"All {len(checks)} checks are met" if not unmet else f"{len(checks) - unmet} checks are met and "
    sentence += f"{unmet} lack data, which the policy allows" if unmet else ""
    if policy.mode == "review":
        return verdict(outcome="pending", sentence=f"{sentence}; the policy requires a review.", checks=checks)
    return verdict(outcome="promote", sentence=f"{sentence}.", checks=checks)


# -- the rules ---------------------------------------------------------------------------------------------


def _enough_requests(report: Report, policy: PromotionPolicy) -> Check:
    check = _at_least("requests", report.requests, policy.min_requests, "test requests")
    return check if check.passed else check.model_copy(update={"status": "insufficient data"})


def _per_request_scores(report: Report, scores: Scores, policy: PromotionPolicy) -> Iterator[Check]:
    """The per-request scores are complete and agree with the report."""
    own = scores.get(CANDIDATE, {})
    yield Check(
        name="per-request scores",
        passed=len(own) == report.requests,
        observed=len(own),
        required=f"{report.requests}",
        sentence=f"The candidate has {len(own)} scores for {report.requests} requests.",
    )
    reported = report.metric(CANDIDATE, policy.primary)
    recomputed = float(np.mean(list(own.values()))) if own else None
    agree = _is_finite(reported) and _is_finite(recomputed) and abs(reported - recomputed) <= _ROUNDING  # type: ignore[operator]
    yield Check(
        name="report agrees with its scores",
        passed=agree,
        observed=reported,
        required=_format_number(recomputed),
        sentence=f"The report says {policy.primary} {_format_number(reported)}, "
        f"the mean of its per-request scores {_format_number(recomputed)}.",
    )


def _floors(report: Report, policy: PromotionPolicy) -> Iterator[Check]:
    for metric, floor in policy.floors.items():
        check = _at_least(f"floor {metric}", report.metric(CANDIDATE, metric), floor, metric)
        yield _with_near_names(check, metric, report)
    for metric, ceiling in policy.ceilings.items():
        check = _at_most(f"ceiling {metric}", report.metric(CANDIDATE, metric), ceiling, metric)
        yield _with_near_names(check, metric, report)


def _with_near_names(check: Check, metric: str, report: Report) -> Check:
    """The check, which says what the report does have if it has no such metric."""
    names = report.metric_names
    if metric in names:
        return check
    near = near_names(metric, names)
    hint = f"did you mean {near[0]!r}? Like it are" if near else "it has"
    sentence = f"The report has no metric {metric!r}; {hint} {', '.join(near or names[:20]) or 'none'}."
    return check.model_copy(update={"sentence": sentence})


def _baselines(scores: Scores, policy: PromotionPolicy, evidence: Evidence | None) -> Iterator[Check]:
    for system in policy.must_beat:
        yield _paired_interval(f"beats {system}", scores, system, 0.0, policy, evidence, strict=True)


def _against_champion(
    report: Report, scores: Scores, policy: PromotionPolicy, champion_id: str, evidence: Evidence | None
) -> Iterator[Check]:
    if not champion_id:
        yield Check(
            name="champion", passed=True, observed="none", required="none", sentence="There is no champion yet."
        )
        return
    champion = report.metric(CHAMPION, policy.primary)
    margin = policy.margin
    if policy.margin_kind == "relative":
        margin *= champion if champion is not None else math.nan
    yield _paired_interval("not worse than the champion", scores, CHAMPION, -margin, policy, evidence)
    if policy.superior:
        yield _paired_interval("better than the champion", scores, CHAMPION, 0.0, policy, evidence, strict=True)


def tonight(
    report: Report, evidence: Evidence, state: AnchorState, policy: PromotionPolicy, champion_id: str
) -> Night | None:
    """What this night's new requests say of candidate, champion and anchor; None if they say too little."""
    if not champion_id or not state.anchor:
        return None
    alias = {champion_id: CHAMPION, report.model_id: CANDIDATE, report.anchor: ANCHOR}
    if state.anchor not in alias:
        return None
    names = {"model_id": report.model_id, "champion": champion_id, "anchor": state.anchor, "recipe": report.recipe}
    systems = (CANDIDATE, CHAMPION, alias[state.anchor])
    return measure_night(evidence, since=state.since, metric=policy.primary, systems=systems, **names)


def champion_findings(
    report: Report, evidence: Evidence, decided: Verdict, *, past_gates: bool
) -> Iterator[tuple[Literal["anchored", "confirmed"], str]]:
    """What the nights so far prove of the champion: (the event that follows, why).

    It becomes the anchor where it is better than the present one, and is confirmed where it was promoted past the gates
    and is within the loss budget.
    """
    policy, state = decided.policy, decided.state
    if state is None or state.anchor in ("", decided.champion) or policy.loss_budget is None:
        return
    night = tonight(
        report, evidence, state.model_copy(update={"since": state.champion_since}), policy, decided.champion
    )
    pool = state.champion_before.plus(night) if night else state.champion_before
    over = f"over {pool.nights} nights and {pool.requests} requests"
    if past_gates and proven(pool, (0.0, 1.0, policy.loss_budget - 1.0), alpha=policy.loss_error):
        yield "confirmed", f"proven to be within {policy.loss_budget:.1%} of anchor {state.anchor} {over}"
    if policy.anchor == "best" and proven(pool, (0.0, 1.0, -1.0), alpha=policy.loss_error):
        yield "anchored", f"proven to be better than anchor {state.anchor} {over}"


def anchors(decided: Verdict) -> bool:
    """Whether the candidate becomes the anchor with its promotion: it is proven to be better than the present one."""
    policy, state, night = decided.policy, decided.state, decided.night
    if state is None or night is None or policy.loss_budget is None or policy.anchor != "best":
        return False
    return proven(state.before.plus(night), (1.0, 0.0, -1.0), alpha=policy.loss_error)


def _loss_budget(
    report: Report, policy: PromotionPolicy, state: AnchorState | None, night: Night | None
) -> Iterator[Check]:
    if policy.loss_budget is None or state is None or not state.anchor:
        return
    missing = ""
    if night is None and state.anchor not in (report.champion, report.anchor, report.model_id):
        why = report.details.get("anchor_catalogue") or "evaluated beside another anchor, or by an earlier version"
        missing = f"The evaluation has no scores of anchor {state.anchor}: {why}."
    error = policy.loss_error
    yield check_budget(night, state, budget=policy.loss_budget, alpha=error, trials=policy.trials, missing=missing)


def _data_window(
    manifest: Manifest, champion_manifest: Manifest | None, policy: PromotionPolicy, champion_id: str
) -> Iterator[Check]:
    """A model of an older window does not replace the champion: the ends of the data are compared, not run dates.

    Bundles of earlier versions have no end of the data; with one of them the ends of the training events are compared.
    """
    name, required = "data window", "no older than the champion's"
    if not champion_id:
        return
    if champion_manifest is None:
        yield _missing(name, required, "The champion's data window is unknown.")
        return
    compared = (
        ("data_end", "the data")
        if manifest.data_end and champion_manifest.data_end
        else ("train_end", "the training events")
    )
    candidate_end, champion_end = getattr(manifest, compared[0]), getattr(champion_manifest, compared[0])
    try:
        older = datetime.fromisoformat(candidate_end) < datetime.fromisoformat(champion_end)
    except (ValueError, TypeError):
        yield _missing(
            name, required, f"The ends of {compared[1]} cannot be compared: {candidate_end!r} and {champion_end!r}."
        )
        return
    allowed = ", which is allowed" if older and policy.allow_older_window else ""
    yield Check(
        name=name,
        passed=not older or policy.allow_older_window,
        observed=candidate_end,
        required="any" if policy.allow_older_window else f"{champion_end} or later",
        sentence=f"The candidate's window is {'older' if older else 'no older'} than the champion's{allowed}: "
        f"{compared[1]} end at {candidate_end}, the champion's at {champion_end}.",
    )


def _slices(report: Report, policy: PromotionPolicy, champion_id: str) -> Iterator[Check]:
    for name, drop in policy.slice_drops.items():
        slice_scores = report.slices.get(name)
        check = f"slice {name}"
        required = f"at most {drop:.0%} below the champion"
        if slice_scores is None:
            yield _missing(check, required, f"The report has no slice {name}.")
            continue
        if slice_scores.requests < policy.slice_min_requests:
            sentence = f"Slice {name} has {slice_scores.requests} requests, too few to compare."
            yield Check.of(check, "insufficient data", sentence, required=required, observed="too small")
            continue
        candidate_mean = slice_scores.systems.get(CANDIDATE, {}).get(policy.primary)
        champion_mean = slice_scores.systems.get(CHAMPION, {}).get(policy.primary) if champion_id else 0.0
        if not (_is_finite(candidate_mean) and _is_finite(champion_mean)):
            yield _missing(check, required, f"Slice {name} has no {policy.primary} of both systems.")
            continue
        assert candidate_mean is not None
        assert champion_mean is not None
        comparison = f"the champion {champion_mean:.4f}" if champion_id else "there is no champion yet"
        yield Check(
            name=check,
            passed=candidate_mean >= champion_mean * (1 - drop),
            observed=candidate_mean,
            required=f"at least {champion_mean * (1 - drop):.4f}" if champion_id else required,
            sentence=f"On slice {name} the candidate has {policy.primary} {candidate_mean:.4f}; {comparison}.",
        )


def _parity(report: Report, manifest: Manifest, policy: PromotionPolicy) -> Iterator[Check]:
    """The exported graphs against torch (in the manifest), and the served answers against torch."""
    for precision in sorted(manifest.precisions):
        entries = [entry for entry in manifest.parity if entry.precision == precision]
        if not entries:
            yield _missing(f"parity {precision}", "measured", f"{precision} was not compared with torch.")
        for entry in entries:
            name = f"parity {entry.graph} {precision}"
            if precision == "fp32":
                subject = f"Largest difference of {entry.graph} from torch"
                yield _at_most(name, entry.max_abs_difference, policy.max_parity_difference, subject)
            elif entry.graph != "scorer":  # logits have no direction; their loss shows in the scores
                subject = f"smallest cosine of {entry.graph} with torch"
                yield _at_least(name, entry.min_cosine, policy.min_parity_cosine, subject)
    served = report.parity
    yield _at_most(
        "served parity",
        served.served_max_abs_difference,
        policy.max_served_difference,
        "Largest difference of served scores from torch's",
    )
    yield _at_least(
        "same top 10", served.same_top10_share, policy.min_same_top10, "share of requests with torch's top 10"
    )


def _costs(report: Report, policy: PromotionPolicy) -> Iterator[Check]:
    if policy.max_p95_ms is not None:
        yield _at_most("latency", report.latency.p95_ms, policy.max_p95_ms, "p95 of the answer time, in ms,")
    if policy.max_size_mb is not None:
        size = report.model.size_bytes
        size_mb = None if size is None else size / 1e6
        yield _at_most("size", size_mb, policy.max_size_mb, "Size of the bundle, in MB,")


# -- one comparison ----------------------------------------------------------------------------------------


def _resampling(policy: PromotionPolicy) -> Resampling:
    return Resampling(policy.resamples, policy.confidence, policy.seed)


def _paired_interval(
    name: str,
    scores: Scores,
    system: str,
    lower_bound: float,
    policy: PromotionPolicy,
    evidence: Evidence | None,
    *,
    strict: bool = False,
) -> Check:
    """The paired interval of candidate minus ``system`` is at or above ``lower_bound``, or strictly above it."""
    required = f"interval {'above' if strict else 'from'} {_format_number(lower_bound)}"
    candidate_scores, system_scores = scores.get(CANDIDATE, {}), scores.get(system, {})
    if not candidate_scores or candidate_scores.keys() != system_scores.keys():
        shared = len(candidate_scores.keys() & system_scores.keys())
        return _missing(
            name, required, f"{system} has scores for {shared} of the candidate's {len(candidate_scores)} requests."
        )
    requests = sorted(candidate_scores)
    values_RS = np.array([(candidate_scores[r], system_scores[r]) for r in requests])
    if not (np.isfinite(values_RS).all() and _is_finite(lower_bound)):
        return _missing(name, required, f"Some scores of the candidate or of {system} are not numbers.")
    cluster_of = evidence.cluster_of if evidence else {}
    pairs = Clustered.of(values_RS, [cluster_of.get(r, r) for r in requests])
    if len(pairs.counts_C) < 2:
        return _missing(name, required, "All requests are those of one user or query.")
    (effect,) = pairs.effects([(1.0, -1.0)], resamples=policy.resamples, confidence=policy.confidence, seed=policy.seed)
    return Check(
        name=name,
        passed=effect.low > lower_bound if strict else effect.low >= lower_bound,
        observed=effect.low,
        required=required,
        sentence=f"Candidate minus {system} is {effect.mean:+.4f} {policy.primary} "
        f"[{effect.low:+.4f}, {effect.high:+.4f}]; the interval must be {required.removeprefix('interval ')}.",
        effect=effect,
    )


def _at_least(name: str, observed: float | int | None, floor: float | int, subject: str) -> Check:
    required = f"at least {_format_number(floor)}"
    if not _is_finite(observed):
        return _missing(name, required, f"No {subject} was measured.")
    assert observed is not None
    sentence = f"{_format_number(observed)} {subject}; {required} required."
    return Check(name=name, passed=observed >= floor, observed=observed, required=required, sentence=sentence)


def _at_most(name: str, observed: float | int | None, limit: float | int, subject: str) -> Check:
    required = f"at most {_format_number(limit)}"
    if not _is_finite(observed):
        return _missing(name, required, f"{subject} was not measured.")
    assert observed is not None
    sentence = f"{subject} is {_format_number(observed)}; {required} allowed."
    return Check(name=name, passed=observed <= limit, observed=observed, required=required, sentence=sentence)


def _missing(name: str, required: str, sentence: str) -> Check:
    return Check(name=name, passed=False, observed=None, required=required, sentence=sentence)


def _is_finite(value: float | int | None) -> bool:
    return value is not None and math.isfinite(value)


def _format_number(value: float | int | None) -> str:
    return "(not measured)" if value is None else f"{value:.4g}"
