"""What is served: the drift of its scores, and the decay of a live metric."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.schedules.triggers.declared import series_of
from pipelines.schedules.triggers.features import compare
from pipelines.schedules.triggers.observation import Observation
from pipelines.schedules.triggers.spec import Trigger
from pipelines.schedules.triggers.subject import Subject
from rankline.drift.decay import BASELINE_DAYS, MIN_BASELINE_DAYS, Baseline, daily_baseline, decay
from rankline.evaluation.report import CANDIDATE, CHAMPION
from rankline.gates.nights import SYSTEMS, Night, disjoint
from rankline.gates.state import NIGHT

_NO_CHAMPION = "no model serves yet"


def observe_scores(trigger: Trigger, subject: Subject) -> Observation:
    """Compare the scores of the last days with those of the champion's first days."""
    promotion = subject.promotion
    if promotion is None:
        return Observation(trigger=str(trigger), observed="", why=_NO_CHAMPION)
    since = datetime.fromisoformat(promotion.at)
    with series_of(
        trigger.path, "score", since=since, model_id=promotion.model_id, zone=subject.schedule.zone
    ) as series:
        first, later = series.daily_counts(subject.now, reference_days=BASELINE_DAYS)
    what = f"scores in {trigger.path} against the first {len(first.days)} days of model {promotion.model_id}"
    return compare(trigger, first, later, what, alpha=subject.schedule.alpha)


class _Measured(NamedTuple):
    """A metric's observations, the part of the baseline that each belongs to, their variances, and the baseline."""

    values_N: npt.NDArray[np.float64]
    parts_N: npt.NDArray[np.int64]
    variances_N: npt.NDArray[np.float64]
    baseline: Baseline


def observe_decay(trigger: Trigger, subject: Subject) -> Observation:
    """Test whether a metric lies below the champion's own by the limit."""
    nothing = {"trigger": str(trigger), "observed": "", "threshold": f"{trigger.limit_text} lower"}
    if subject.promotion is None:
        return Observation(**nothing, why=_NO_CHAMPION)
    measured = _declared(trigger, subject) if trigger.path else _evaluated(trigger, subject)
    if isinstance(measured, str):
        return Observation(**nothing, why=measured)
    assert trigger.limit is not None, "parse gives one"
    result = decay(*measured, share=trigger.limit, alpha=subject.schedule.alpha)
    share, count = float(result.share), len(measured.values_N)
    unit = "days" if trigger.path else "evaluations"
    proof = "it is proven to lie" if result.fell else "it is not proven to lie"
    change = f"{trigger.subject} is {abs(share):.1%} {'below' if share >= 0 else 'above'} the champion's own"
    return Observation(
        trigger=str(trigger),
        observed=f"{share:.1%} lower",
        threshold=f"{trigger.limit_text} lower",
        fires=bool(result.fell),
        why=f"{change} ({count} {unit}); {proof} {trigger.limit_text} below",
    )


def _declared(trigger: Trigger, subject: Subject) -> _Measured | str:
    """The daily means of a declared table since the promotion; the first days are the baseline."""
    promotion = subject.promotion
    assert promotion is not None, "asked after that"
    since = datetime.fromisoformat(promotion.at)
    with series_of(
        trigger.path, trigger.subject, since=since, model_id=promotion.model_id, zone=subject.schedule.zone
    ) as series:
        days = series.daily_means(subject.now)
    first, later = days[:BASELINE_DAYS], days[BASELINE_DAYS:]
    if len(first) < MIN_BASELINE_DAYS or not later:
        return f"{len(first)} whole days of model {promotion.model_id}: the first {BASELINE_DAYS} are its baseline"
    baseline, variance = daily_baseline(np.array([mean for _, mean in first]), _weekdays(first))
    values_N = np.array([mean for _, mean in later])
    return _Measured(values_N, _weekdays(later), np.full(len(later), float(variance)), baseline)


def _evaluated(trigger: Trigger, subject: Subject) -> _Measured | str:
    """The champion's scores in the evaluations of later candidates; its own evaluation is the baseline."""
    promotion = subject.promotion
    assert promotion is not None, "asked after that"
    nights = [night for event in subject.history if (night := _night(event.details.get(NIGHT)))]
    nights = [night for night in nights if night.metric == trigger.subject]
    own = [night for night in nights if night.model_id == promotion.model_id]
    later = disjoint(night for night in nights if night.champion == promotion.model_id != night.model_id)
    if own:
        later = [night for night in later if night.since >= own[-1].until]
    if len(later) < (1 if own else 2):
        metrics = ", ".join(sorted({night.metric for night in nights if night.metric != trigger.subject}))
        other = f"; the evaluations have {metrics}" if metrics and not nights else ""
        return f"{len(later)} evaluations of model {promotion.model_id} on newer requests{other}"
    if own:
        mean, variance = _mean(own[-1], CANDIDATE)
    else:
        mean, variance = _mean(later.pop(0), CHAMPION)
    scores = np.array([_mean(night, CHAMPION) for night in later])
    baseline = Baseline(np.array([mean]), np.array([variance]))
    return _Measured(scores[:, 0], np.zeros(len(later), np.int64), scores[:, 1], baseline)


def _night(value: object) -> Night | None:
    try:
        return Night.model_validate(value) if isinstance(value, dict) else None
    except ValueError:
        return None


def _mean(night: Night, system: str) -> tuple[float, float]:
    place = SYSTEMS.index(system)
    return night.means[place], night.covariance[place][place]


def _weekdays(days: Sequence[tuple[date, float]]) -> npt.NDArray[np.int64]:
    return np.array([day.weekday() for day, _ in days], np.int64)
