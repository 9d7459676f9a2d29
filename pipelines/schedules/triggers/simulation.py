"""Years of daily checks, many at once: how often drift and decay fire without a change, and how soon after one.

The days of a year differ by their weekday in volume and in mix, from day to day by more than the sampling of events,
and a live metric by its weekday and by a spread. Decisions are those of `features.py` and `served.py`.

Shapes: T years, D days, B bins.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.schedules.triggers.columns import BINS
from pipelines.schedules.triggers.features import CHECKS_A_YEAR
from rankline.drift.decay import BASELINE_DAYS, daily_baseline, decay
from rankline.drift.shares import LIVE_DAYS, MIN_REFERENCE_DAYS, REFERENCE_DAYS, drift

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
PLANTED_ON = 200  # the day of a planted change
NOTICED_WITHIN = 60
AT_ONCE = 500  # years that are in memory together
PSI_LIMIT, DECAY_LIMIT = 0.2, 0.05
PLANTED = (  # the trigger, the planted change and its size
    ("drift", "nothing", 0.0),
    ("drift", "a third of the lower half moves to the upper (PSI 0.12)", 1 / 3),
    ("drift", "a half of it (PSI 0.27)", 1 / 2),
    ("drift", "two thirds of it (PSI 0.52)", 2 / 3),
    ("decay", "nothing", 0.0),
    ("decay", "a fall of 5%, the limit", 0.05),
    ("decay", "a fall of 10%", 0.1),
    ("decay", "a fall of 20%", 0.2),
)
_VOLUME = np.array([1.0, 1.0, 1.0, 1.0, 1.2, 0.7, 0.6])  # Monday to Sunday
_METRIC = np.array([1.0, 1.02, 1.0, 0.98, 1.05, 0.9, 0.92])
_WEEKEND_TILT = np.linspace(-0.3, 0.3, BINS)  # of the mix
_CONCENTRATION = 400.0  # of the Dirichlet distribution of a day's mix


@dataclass(frozen=True)
class Plan:
    """What is simulated."""

    years: int
    events: int
    false_alarms: float
    spread: float
    seed: int = 0

    @property
    def alpha(self) -> float:
        """The rate of each of two triggers, as `Schedule.alpha` divides it."""
        return self.false_alarms / 2


class Row(NamedTuple):
    """What came of the years with one planted change; shares of years, and delays in days."""

    trigger: str
    planted: str
    fired_without: float  # before the change; in a stable year at all
    noticed: float | None
    delay_median: float | None
    delay_p95: float | None
    firings: float | None  # after the change, until the end of the year


def simulate(plan: Plan, *, only: Sequence[str] = ()) -> list[Row]:
    """A stable year, and years with a planted change, for drift and for decay; or only these rows."""
    rows = []
    for trigger, planted, size in PLANTED:
        if not only or f"{trigger}: {planted}" in only:
            fires = _drift_fires if trigger == "drift" else _decay_fires
            rows.append(_row(trigger, planted, plan, functools.partial(fires, plan, size=size)))
    return rows


def table(rows: Sequence[Row]) -> Sequence[tuple[str, ...]]:
    """The rows for people."""
    header = ("trigger, planted change", "false alarms", "noticed", "days (median)", "days (95%)", "firings")

    def text(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    return [header] + [
        (
            f"{row.trigger}: {row.planted}", f"{row.fired_without:.2%}", text(row.noticed, ".1%"),
            text(row.delay_median, ".0f"), text(row.delay_p95, ".0f"), text(row.firings, ".2f"),
        )
        for row in rows
    ]  # fmt: skip


def _row(trigger: str, planted: str, plan: Plan, fires: Callable[[np.random.Generator, int], Bools]) -> Row:
    rng = np.random.default_rng(plan.seed)
    sizes = [min(AT_ONCE, plan.years - done) for done in range(0, plan.years, AT_ONCE)]
    fires_TD = np.concatenate([fires(rng, size) for size in sizes])
    if planted == "nothing":
        return Row(trigger, planted, float(fires_TD.any(1).mean()), None, None, None, None)
    before, after = fires_TD[:, :PLANTED_ON].any(1), fires_TD[:, PLANTED_ON:]
    delay_T = np.where(after.any(1), after.argmax(1) + 1.0, np.inf)
    noticed_T = delay_T <= NOTICED_WITHIN
    delays = np.sort(delay_T)
    median, late = (delays[min(int(q * len(delays)), len(delays) - 1)] for q in (0.5, 0.95))
    return Row(
        trigger, planted, float(before.mean()), float(noticed_T.mean()),
        float(median) if np.isfinite(median) else None, float(late) if np.isfinite(late) else None,
        float(after.sum(1).mean()),
    )  # fmt: skip


# -- drift -------------------------------------------------------------------------------------------------------


def draw_days(plan: Plan, rng: np.random.Generator, years: int, shares_DB: Floats) -> Floats:
    """The counts [T, D, B] of days with these expected shares."""
    days = len(shares_DB)
    drawn_TDB = rng.standard_gamma(np.broadcast_to(shares_DB * _CONCENTRATION, (years, days, BINS)))
    drawn_TDB /= drawn_TDB.sum(-1, keepdims=True)
    sizes_TD = plan.events * _VOLUME[np.arange(days) % 7] * rng.lognormal(0.0, 0.1, (years, days))
    return rng.poisson(sizes_TD[..., None] * drawn_TDB).astype(np.float64)


def expected_shares(days: int) -> Floats:
    """The mix of each day, [D, B]: at weekends another one."""
    weekend_D = np.arange(days) % 7 >= 5
    shares_DB = np.where(weekend_D[:, None], 1 + _WEEKEND_TILT, 1.0) / BINS
    normalised_DB: Floats = shares_DB / shares_DB.sum(-1, keepdims=True)
    return normalised_DB


def _drift_fires(plan: Plan, rng: np.random.Generator, years: int, *, size: float) -> Bools:
    """Whether the trigger fires on each day [T, D]; the days after a firing are the next reference."""
    days = REFERENCE_DAYS + CHECKS_A_YEAR
    shares_DB = expected_shares(days)
    start = REFERENCE_DAYS + PLANTED_ON
    shares_DB[start:] = (1 - size) * shares_DB[start:] + size * _moved(shares_DB[start:])
    counts_TDB = draw_days(plan, rng, years, shares_DB)
    fires_TD, first_T = np.zeros((years, CHECKS_A_YEAR), bool), np.zeros(years, np.int64)
    for day in range(REFERENCE_DAYS + 1, days + 1):
        for first in np.unique(first_T):
            last = first + MIN_REFERENCE_DAYS if first else REFERENCE_DAYS
            reference, live = np.arange(first, last), np.arange(max(last, day - LIVE_DAYS), day)
            if not live.size:
                continue
            which = np.flatnonzero(first_T == first)
            drawn = counts_TDB[which]
            result = drift(drawn[:, reference], reference % 7, drawn[:, live], live % 7)
            fired = which[(result.psi >= PSI_LIMIT) & (result.p_value < plan.alpha / CHECKS_A_YEAR)]
            fires_TD[fired, day - REFERENCE_DAYS - 1] = True
            first_T[fired] = day
    return fires_TD


def _moved(shares_DB: Floats) -> Floats:
    """The mix with its lower half in the upper half's bins."""
    moved_DB = np.zeros_like(shares_DB)
    half = BINS // 2
    moved_DB[:, half:] = shares_DB[:, half:] + shares_DB[:, :half]
    return moved_DB


# -- decay -------------------------------------------------------------------------------------------------------


def _decay_fires(plan: Plan, rng: np.random.Generator, years: int, *, size: float) -> Bools:
    """Whether the trigger fires on each day [T, D]; a firing begins again with the new model's days."""
    days = BASELINE_DAYS + CHECKS_A_YEAR
    level_D = np.where(np.arange(days) < BASELINE_DAYS + PLANTED_ON, 1.0, 1.0 - size)
    noise_TD = 1 + plan.spread * rng.standard_normal((years, days))
    values_TD = level_D * _METRIC[np.arange(days) % 7] * noise_TD
    weekdays_D = np.arange(days) % 7
    baseline, variance_T = daily_baseline(values_TD[:, :BASELINE_DAYS], weekdays_D[:BASELINE_DAYS])
    fires_TD = np.zeros((years, CHECKS_A_YEAR), bool)
    waiting_T = np.ones(years, bool)  # after a firing a new model serves, whose baseline is the new level
    for day in range(BASELINE_DAYS + 1, days + 1):
        live = slice(BASELINE_DAYS, day)
        result = decay(
            values_TD[:, live], weekdays_D[live], variance_T[:, None], baseline, share=DECAY_LIMIT, alpha=plan.alpha
        )
        fires_TD[:, day - BASELINE_DAYS - 1] = result.fell & waiting_T
        waiting_T &= ~result.fell
    return fires_TD
