"""The proof of the gates: a table of simulated years, one row per planted effect, and the curse of the winner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rankline.contracts import FrozenModel
from rankline.gates.simulation import Bank, Policy, Shape, draw_bank, simulate

EFFECTS = (-0.05, -0.03, -0.02, -0.01, 0.0, 0.01, 0.02, 0.05)
BANK_NIGHTS = 4000
WITHIN = (7, 30, 90)  # nights that the power is stated for
FLOOR = 0.97
CANDIDATES = 10  # of which the best one is tested
_TWO_SIDED = 1.96  # standard errors of an interval with 95% confidence
Progress = Callable[[str, int, int], None]


class Row(FrozenModel):
    """What a year with candidates of one planted effect came to, over all trials."""

    effect: float
    rule: str
    trials: int
    nights: int
    promotions: float
    quality_median: float
    quality_p05: float
    above_floor: float
    false_promotions: int
    false_rate: float
    false_low: float
    false_high: float
    first_median: float | None
    first_p90: float | None
    power: dict[str, float]


class Winner(FrozenModel):
    """How often the best of several candidates at the budget's edge passes within a year, corrected and not."""

    candidates: int
    uncorrected: float
    corrected: float
    nominal: float


class OneNight(FrozenModel):
    """How often a comparison with the champion passes and fails in one night, of candidates of one planted effect."""

    kind: str
    effect: float
    nights: int
    passed: float
    passed_low: float
    passed_high: float
    failed: float


class Study(FrozenModel):
    """The rows, and what they were simulated with."""

    requests: int
    relative_error: float
    budget: float
    margin: float
    alpha: float
    rows: list[Row]
    one_night: list[OneNight]
    false_anchor_moves: float
    winner: Winner


@dataclass(frozen=True)
class Plan:
    """What is simulated."""

    trials: int = 2000
    nights: int = 365
    seed: int = 0
    effects: tuple[float, ...] = EFFECTS
    policy: Policy = field(default_factory=Policy)


def study(shape: Shape, plan: Plan, *, progress: Progress = lambda what, done, of: None) -> Study:
    """Simulate years under the loss budget, and sixty nights and a year under the margin alone."""
    bank = draw_bank(
        shape, nights=BANK_NIGHTS, seed=plan.seed, progress=lambda n, of: progress("drawing nights", n, of)
    )
    margin_alone = Policy("margin", plan.policy.budget, plan.policy.margin, plan.policy.alpha)
    rows, moves = [], 0.0
    for effect in plan.effects:
        row, false_moves = _row(bank, effect, plan.policy, plan, progress)
        rows.append(row)
        moves = false_moves if effect == 0 else moves
    for nights in sorted({60, plan.nights}):
        rows.append(_row(bank, -0.01, margin_alone, Plan(plan.trials, nights, plan.seed), progress)[0])
    return Study(
        requests=shape.requests,
        relative_error=bank.relative_error,
        budget=plan.policy.budget,
        margin=plan.policy.margin,
        alpha=plan.policy.alpha,
        rows=rows,
        one_night=one_night(bank, plan.policy, plan.effects),
        false_anchor_moves=moves,
        winner=best_of(bank, plan, candidates=CANDIDATES, progress=progress),
    )


def one_night(bank: Bank, policy: Policy, effects: Sequence[float]) -> list[OneNight]:
    """The gates `better` and `not_worse` on every night of the bank, for planted effects and at the margin's edge."""
    champion_N, covariance = bank.means_NS[:, 1], bank.covariances_NSS
    result = []
    for kind, margin, planted in (
        ("better", 0.0, effects),
        ("not_worse", policy.margin, [-policy.margin, *(each for each in effects if each > -policy.margin)]),
    ):
        for effect in planted:
            gain_N = (1 + effect) * bank.means_NS[:, 0] + (margin - 1) * champion_N
            # as the gate has it: of the difference, at a bound that is taken as known
            variance_N = (
                (1 + effect) ** 2 * covariance[:, 0, 0] + covariance[:, 1, 1] - 2 * (1 + effect) * covariance[:, 0, 1]
            )
            radius_N = _TWO_SIDED * np.sqrt(variance_N)
            result.append(_shares(kind, effect, gain_N > radius_N, gain_N < -radius_N))
    return result


def _shares(kind: str, effect: float, passed_N: Any, failed_N: Any) -> OneNight:
    from scipy.stats import binomtest

    bounds = binomtest(int(passed_N.sum()), len(passed_N)).proportion_ci(0.95, method="wilson")
    return OneNight(
        kind=kind, effect=effect, nights=len(passed_N), passed=float(passed_N.mean()), passed_low=float(bounds.low),
        passed_high=float(bounds.high), failed=float(failed_N.mean()),
    )  # fmt: skip


def _row(bank: Bank, effect: float, policy: Policy, plan: Plan, progress: Progress) -> tuple[Row, float]:
    from scipy.stats import binomtest

    name = f"{effect:+.0%} {policy.rule}"
    year = simulate(
        bank, lambda night, rng, trials: effect, policy, trials=plan.trials, nights=plan.nights, seed=plan.seed,
        progress=lambda n, of: progress(name, n, of),
    )  # fmt: skip
    # at the edge itself a promotion is still within the budget; it is counted as the worst case
    false = int((year.lowest_T <= 1 - policy.budget + 1e-9).sum())
    bounds = binomtest(false, plan.trials).proportion_ci(0.95, method="wilson")
    first = [float(v) if np.isfinite(v) else None for v in np.quantile(year.first_T, [0.5, 0.9], method="higher")]
    row = Row(
        effect=effect,
        rule=policy.rule,
        trials=plan.trials,
        nights=plan.nights,
        promotions=float(year.promotions_T.mean()),
        quality_median=float(np.median(year.quality_T)),
        quality_p05=float(np.quantile(year.quality_T, 0.05)),
        above_floor=float((year.quality_T > FLOOR).mean()),
        false_promotions=false,
        false_rate=false / plan.trials,
        false_low=float(bounds.low),
        false_high=float(bounds.high),
        first_median=first[0],
        first_p90=first[1],
        power={str(nights): float((year.first_T <= nights).mean()) for nights in WITHIN},
    )
    return row, float((year.false_moves_T > 0).mean())


def best_of(bank: Bank, plan: Plan, *, candidates: int, progress: Progress) -> Winner:
    """Years in which the best of several candidates a night may pass, all of them at the budget's edge."""
    passed: list[float] = []
    for share in (1, candidates):
        policy = Policy("budget", plan.policy.budget, plan.policy.margin, plan.policy.alpha / share)
        year = simulate(
            bank, lambda night, rng, trials: -plan.policy.budget, policy, trials=plan.trials * candidates,
            nights=plan.nights, seed=plan.seed, progress=lambda n, of: progress(f"best of {candidates}", n, of),
        )  # fmt: skip
        any_TK = np.isfinite(year.first_T).reshape(plan.trials, candidates)
        passed.append(float(any_TK.any(axis=1).mean()))
    return Winner(candidates=candidates, uncorrected=passed[0], corrected=passed[1], nominal=plan.policy.alpha)


def table(result: Study) -> list[tuple[str, ...]]:
    """The rows as text, with their header."""
    header = ("effect", "rule", "nights", "promotions", "quality at the end (5%)", f"above {FLOOR:.0%}",
              "beyond the budget [95%]", "first promotion (90%)", *(f"within {n}" for n in WITHIN))  # fmt: skip
    return [header, *(_line(row) for row in result.rows)]


def one_night_table(result: Study) -> list[tuple[str, ...]]:
    """The comparisons of one night as text, with their header."""
    header = ("effect", "gate", "passes [95%]", "fails", "insufficient data")
    return [header, *(
        (
            f"{each.effect:+.0%}", each.kind, f"{each.passed:.2%} [{each.passed_low:.2%}, {each.passed_high:.2%}]",
            f"{each.failed:.2%}", f"{1 - each.passed - each.failed:.2%}",
        )
        for each in result.one_night
    )]  # fmt: skip


def _line(row: Row) -> tuple[str, ...]:
    def night(value: Any) -> str:
        return "-" if value is None else f"{value:.0f}"

    return (
        f"{row.effect:+.0%}", row.rule, str(row.nights), f"{row.promotions:.1f}",
        f"{row.quality_median:.3f} ({row.quality_p05:.3f})", f"{row.above_floor:.1%}",
        f"{row.false_rate:.2%} [{row.false_low:.2%}, {row.false_high:.2%}]",
        f"{night(row.first_median)} ({night(row.first_p90)})", *(f"{row.power[str(n)]:.0%}" for n in WITHIN),
    )  # fmt: skip


def shape_of(scores: Sequence[float], other: Sequence[float] | None, *, alike: float) -> Shape:
    """The shape of a run's own scores; with those of another system, as alike as the two are."""
    if other is not None:
        correlation = float(np.corrcoef(scores, other)[0, 1])
        alike = min(max(correlation, 0.0), 0.999) if np.isfinite(correlation) else alike
    return Shape(tuple(float(v) for v in scores), len(scores), alike)
