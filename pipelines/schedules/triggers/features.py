"""Feature drift: the days of a column since the last training against the days of training."""

from __future__ import annotations

from pipelines.schedules.triggers.columns import DailyCounts
from pipelines.schedules.triggers.observation import Observation
from pipelines.schedules.triggers.spec import Trigger
from pipelines.schedules.triggers.subject import Subject
from rankline.drift.shares import LIVE_DAYS, MIN_LIVE_EVENTS, MIN_REFERENCE_DAYS, drift

CHECKS_A_YEAR = 365  # the days that a test reads change once a day, however often it is asked


def observe_drift(trigger: Trigger, subject: Subject) -> Observation:
    """Compare a column's last days with those of training."""
    if subject.training is None:
        return Observation(trigger=str(trigger), observed="", why="there is no training yet to compare with")
    if problem := subject.reference.problems.get(trigger.subject):
        return Observation(trigger=str(trigger), observed="", why=problem.splitlines()[0], problem=True)
    reference = subject.reference.columns[trigger.subject]
    live = subject.live.columns[trigger.subject].days
    # a training that this trigger started has seen the change, and most of its days are from before it
    days = DailyCounts() if f"{trigger}: " in subject.training.why else reference.days
    what = f"{reference.bins.column} since run {subject.training.run}"
    return compare(trigger, *with_first_days(days, live), what, alpha=subject.schedule.alpha)


def with_first_days(reference: DailyCounts, live: DailyCounts) -> tuple[DailyCounts, DailyCounts]:
    """The reference with as many of the first live days as it takes to compare with, and the other live days."""
    missing = max(MIN_REFERENCE_DAYS - len(reference.days), 0)
    return reference.plus(live.between(0, missing)), live.between(missing, len(live.days))


def compare(trigger: Trigger, reference: DailyCounts, live: DailyCounts, what: str, *, alpha: float) -> Observation:
    """Whether the last days of ``live`` differ from those of ``reference`` by the limit and by more than chance."""
    assert trigger.limit is not None, "parse gives one"
    nothing = {"trigger": str(trigger), "observed": "", "threshold": f"PSI {trigger.limit_text}"}
    if len(reference.days) < MIN_REFERENCE_DAYS:
        days = f"{len(reference.days)} whole days"
        return Observation(**nothing, why=f"{what}: {days} to compare with, {MIN_REFERENCE_DAYS} are needed")
    counts_DB, weekdays_D = reference.arrays()
    live = live.on_weekdays(set(weekdays_D.tolist())).newest(LIVE_DAYS)
    if (total := live.total) < MIN_LIVE_EVENTS:
        return Observation(**nothing, why=f"{what}: {total} events of whole days, {MIN_LIVE_EVENTS} are needed")
    result = drift(counts_DB, weekdays_D, *live.arrays())
    psi, p_value, nominal = float(result.psi), float(result.p_value), alpha / CHECKS_A_YEAR
    is_chance = p_value >= nominal
    chance = f"p {p_value:.2g} {'is not below' if is_chance else 'is below'} {nominal:.2g}"
    return Observation(
        trigger=str(trigger),
        observed=f"PSI {psi:.3f}",
        threshold=f"PSI {trigger.limit_text}",
        fires=psi >= trigger.limit and not is_chance,
        why=f"{what}: PSI {psi:.3f} over {len(live.days)} days and {total} events, {chance}",
    )
