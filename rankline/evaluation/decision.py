"""Whether a candidate may serve: a pure function of the measurements and the policy, with its reasons.

Every rule of the policy becomes one check with the observed and the required value. A missing number fails its check; a
comparison that proves neither the rule nor its contrary is insufficient data.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Literal

from pydantic import Field, field_validator

from rankline.contracts import FrozenModel, Manifest
from rankline.errors import StaleEvidence
from rankline.evaluation.report import ANCHOR, CANDIDATE, CHAMPION, Report
from rankline.evaluation.system_names import display_name
from rankline.gates.budget import check_budget, proven
from rankline.gates.check import Check
from rankline.gates.evidence import Evidence
from rankline.gates.nights import Night, Pool, measure_night
from rankline.gates.policy import BEST_SOURCE, STRONGEST, Better, Ceiling, Floor, Gate, NotWorse, title
from rankline.gates.rules import Resampling, allowed, gate_checks
from rankline.gates.state import AnchorState
from rankline.pod import compare_again

VerdictLabel = Literal["promote", "pending", "refused", "insufficient_data", "already_serving"]

# largest difference of a report's mean from that of its per-request scores
_ROUNDING = 1e-4
BEATS = {STRONGEST: "beats the strongest baseline", BEST_SOURCE: "beats its best single source"}
_FEWEST = 2  # requests of a comparison: `min_requests` is a check of its own


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
    min_requests: int = Field(100, ge=1, description="Fewest test requests; with fewer the data is insufficient.")
    floors: dict[str, float] = Field(
        {},
        description="Metric -> the value that the candidate must reach, regardless of the champion; of a label's head "
        "such as click.auc.",
    )
    ceilings: dict[str, float] = Field(
        {}, description="Metric -> the value that the candidate may not exceed, such as click.ece of a label's head."
    )
    must_beat: list[str] = Field(
        [STRONGEST],
        description="Systems that the candidate must be proven better than: the paired interval is above zero. "
        "strongest is the baseline with the highest mean on these requests, best_source the candidate source of the "
        "model with the highest mean.",
    )
    margin: float = Field(
        0.1,
        ge=0,
        description="How much worse than the champion the paired interval's lower end may be; "
        "with a margin narrower than the interval, equal models are insufficient data.",
    )
    margin_kind: Literal["relative", "absolute"] = Field(
        "relative",
        description="Whether the margin is a share of the champion's mean, or a difference of scores.",
    )
    superior: bool = Field(
        False, description="Whether the candidate must be proven better than the champion, not only no worse."
    )
    allow_older_window: bool = Field(
        False, description="Whether a candidate may replace a champion whose data ends later, as in a backfill."
    )
    slice_drops: dict[str, float] = Field(
        {},
        description="Slice -> the share of the champion's mean that the interval's lower end may be below it there.",
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
        1,
        ge=1,
        description="Models that this one was chosen from on these requests, apart from those evaluated here; divides "
        "the error of the loss budget and of everything that it must be better than.",
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
    evidence: Evidence,
    manifest: Manifest,
    policy: PromotionPolicy,
    *,
    champion_id: str,
    champion_manifest: Manifest | None = None,
    state: AnchorState | None = None,
) -> Verdict:
    """The verdict on a candidate.

    ``evidence`` has the scores of each request. ``manifest`` is the candidate's, ``champion_id`` is empty without a
    champion. The loss budget needs the ``state`` that earlier nights left.

    Raises:
        UsageError: the policy names what the report does not have.
        StaleEvidence: the candidate was measured beside a model that is no longer the champion.
    """
    night = tonight(report, evidence, state, policy, champion_id) if state else None
    verdict = functools.partial(
        Verdict, model_id=report.model_id, champion=champion_id, policy=policy, state=state, night=night
    )
    if report.model_id == champion_id:
        sentence = f"Model {champion_id} already serves; there is nothing to decide."
        return verdict(outcome="already_serving", sentence=sentence)

    if report.champion != champion_id:
        raise StaleEvidence(
            "the champion changed since this model was evaluated",
            expected=f"an evaluation beside champion {champion_id}, which serves now"
            if champion_id
            else "an evaluation beside no other model: none serves now",
            found=f"one beside {f'champion {report.champion}' if report.champion else 'none: no other model served'}",
            hint=compare_again(),
        )

    groups = (_bounds(policy), _comparisons(policy, champion_id), _slices(policy), policy.gates)
    how = _resampling(policy, state)
    judged = iter(gate_checks([gate for group in groups for gate in group], report, evidence, how))
    bounds, comparisons, slices, gates = (list(islice(judged, len(group))) for group in groups)
    checks = [
        _enough_requests(report, policy),
        *_per_request_scores(report, evidence, policy),
        *bounds,
        *comparisons,
        *_no_champion(champion_id),
        *_loss_budget(report, policy, state, night),
        *_data_window(manifest, champion_manifest, policy, champion_id),
        *slices,
        *_parity(report, manifest, policy),
        *_costs(report, policy),
        *gates,
    ]
    let_through = [check for gate, check in zip(policy.gates, gates, strict=True) if allowed(gate, check)]
    unmet = [check for check in checks if not check.passed]
    if blocking := [check for check in unmet if not any(check is each for each in let_through)]:
        failed = any(check.status == "fail" for check in blocking)
        sentence = " ".join(check.sentence for check in blocking)
        return verdict(outcome="refused" if failed else "insufficient_data", sentence=sentence, checks=checks)
    sentence = f"All {len(checks)} checks are met" if not unmet else f"{len(checks) - len(unmet)} checks are met and "
    sentence += f"{len(unmet)} lack data, which the policy allows" if unmet else ""
    sentence += _strongest_of(checks)
    if policy.mode == "review":
        return verdict(outcome="pending", sentence=f"{sentence}; the policy requires a review.", checks=checks)
    return verdict(outcome="promote", sentence=f"{sentence}.", checks=checks)


def _strongest_of(checks: list[Check]) -> str:
    """Which baseline was the strongest one, where the candidate was compared with it."""
    named = next((check.than for check in checks if check.name == BEATS[STRONGEST] and check.than), "")
    return f"; the strongest baseline is {display_name(named)}" if named else ""


# -- the rules ---------------------------------------------------------------------------------------------


def _enough_requests(report: Report, policy: PromotionPolicy) -> Check:
    check = _at_least("requests", report.requests, policy.min_requests, "test requests")
    return check if check.passed else check.model_copy(update={"status": "insufficient data"})


def _per_request_scores(report: Report, evidence: Evidence, policy: PromotionPolicy) -> Iterator[Check]:
    """The per-request scores are complete and agree with the report."""
    own_R = evidence.scores.get(policy.primary, {}).get(CANDIDATE)
    count = 0 if own_R is None else len(own_R)
    yield Check(
        name="per-request scores",
        passed=count == report.requests,
        observed=count,
        required=f"{report.requests}",
        sentence=f"The candidate has {count} scores for {report.requests} requests.",
    )
    reported = report.metric(CANDIDATE, policy.primary)
    recomputed = float(own_R.mean()) if own_R is not None and count else None
    agree = _is_finite(reported) and _is_finite(recomputed) and abs(reported - recomputed) <= _ROUNDING  # type: ignore[operator]
    yield Check(
        name="report agrees with its scores",
        passed=agree,
        observed=reported,
        required=_format_number(recomputed),
        sentence=f"The report says {policy.primary} {_format_number(reported)}, "
        f"the mean of its per-request scores {_format_number(recomputed)}.",
    )


# the settings of every policy as gates: `rankline.gates.rules` judges them and those of `decide.gates` alike


def _bounds(policy: PromotionPolicy) -> list[Gate]:
    floors = [Floor(kind="floor", metric=metric, at_least=least) for metric, least in policy.floors.items()]
    ceilings = [Ceiling(kind="ceiling", metric=metric, at_most=most) for metric, most in policy.ceilings.items()]
    return [*floors, *ceilings]


def _comparisons(policy: PromotionPolicy, champion_id: str) -> list[Gate]:
    """Better than the baselines, not worse than the champion, and better where it has to be."""
    paired = {"metric": policy.primary, "min_requests": _FEWEST}
    gates: list[Gate] = [
        Better(kind="better", name=BEATS.get(name, f"beats {name}"), than=name, **paired) for name in policy.must_beat
    ]
    if champion_id:
        margin = {"margin": policy.margin, "margin_kind": policy.margin_kind}
        gates.append(NotWorse(kind="not_worse", name="not worse than the champion", **margin, **paired))
    if champion_id and policy.superior:
        gates.append(Better(kind="better", name="better than the champion", **paired))
    return gates


def _slices(policy: PromotionPolicy) -> list[Gate]:
    fewest = max(policy.slice_min_requests, _FEWEST)
    return [
        NotWorse(
            kind="not_worse", name=f"slice {name}", metric=policy.primary, margin=drop, slice=name, min_requests=fewest
        )
        for name, drop in policy.slice_drops.items()
    ]


def _no_champion(champion_id: str) -> Iterator[Check]:
    if not champion_id:
        yield Check.of("champion", "pass", "There is no champion yet.", required="none", observed="none")


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
    and is within the loss budget, or within the margin where there is no budget.
    """
    policy, state = decided.policy, decided.state
    if state is None or state.anchor in ("", decided.champion):
        return
    since = state.model_copy(update={"since": state.champion_since})
    night = tonight(report, evidence, since, policy, decided.champion)
    pool = state.champion_before.plus(night) if night else state.champion_before
    over = f"over {pool.nights} nights and {pool.requests} requests"
    if past_gates and pool.nights:
        loss, why = _tolerated(policy, pool)
        if proven(pool, (0.0, 1.0, loss - 1.0), alpha=policy.loss_error):
            yield "confirmed", f"proven to be within {why} of anchor {state.anchor} {over}"
    better = policy.loss_budget is not None and policy.anchor == "best"
    if better and proven(pool, (0.0, 1.0, -1.0), alpha=policy.loss_error):
        yield "anchored", f"proven to be better than anchor {state.anchor} {over}"


def _tolerated(policy: PromotionPolicy, pool: Pool) -> tuple[float, str]:
    """How far below the anchor a champion may be that was promoted past the gates, as a share, and in words."""
    if policy.loss_budget is not None:
        return policy.loss_budget, f"the loss budget of {policy.loss_budget:.1%}"
    if policy.margin_kind == "relative":
        return policy.margin, f"the margin of {policy.margin:.1%}"
    anchor = pool.mean((0.0, 0.0, 1.0))
    return (policy.margin / anchor if anchor > 0 else 0.0), f"the margin of {policy.margin:.4g}"


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
        yield _at_most("latency", report.latency.p95_ms, policy.max_p95_ms, _answer_time(report))
    if policy.max_size_mb is not None:
        size = report.model.size_bytes
        size_mb = None if size is None else size / 1e6
        yield _at_most("size", size_mb, policy.max_size_mb, "Size of the bundle, in MB,")


def _resampling(policy: PromotionPolicy, state: AnchorState | None) -> Resampling:
    looks = state.trials if state else 1
    return Resampling(policy.resamples, policy.confidence, policy.seed, looks=looks, trials=policy.trials)


def _at_least(name: str, observed: float | int | None, floor: float | int, subject: str) -> Check:
    required = f"at least {_format_number(floor)}"
    if not _is_finite(observed):
        return _missing(name, required, f"No {subject} was measured.")
    assert observed is not None
    sentence = f"{_format_number(observed)} {subject}; {required} required."
    return Check(name=name, passed=observed >= floor, observed=observed, required=required, sentence=sentence)


def _answer_time(report: Report) -> str:
    return f"p95 of the answer time, in ms on {report.latency.provider or 'an unknown provider'},"


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
