"""The gates under simulation: a year of nights with candidates of a planted quality, many times over.

A night is drawn from a bank of nights, and a night of the bank is drawn user by user and request by request. The
systems' scores on a request are alike in a given share of requests and independent in the others. A model's true
quality is a factor on its scores.

Shapes: T trials, N nights of the bank, U users, P requests of each, S = 3 systems (candidate, champion, anchor).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rankline.gates.sequences import mixture_radius, spent_on

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]
Rule = Literal["budget", "margin"]


@dataclass(frozen=True)
class Shape:
    """The scores of one model on a night's requests, and how alike those of two models are.

    A user has ``per_user`` requests; on a share ``user_alike`` of them every system does as well as on his first one.
    """

    scores: tuple[float, ...]
    requests: int
    alike: float
    per_user: int = 1
    user_alike: float = 0.0


# nDCG@10 of model 5468169b4b5bfd89 on the MovieLens demo's 943 test requests: no hit, then the best hit at rank 1 to 10
DEMO_COUNTS = (726, 47, 35, 26, 15, 25, 14, 17, 14, 8, 16)
# two models that are this alike have an equal score on that share of the requests, and independent ones on the others
DEMO_ALIKE = 0.81


def demo_shape() -> Shape:
    """The shape of the demo's scores."""
    values = (0.0, *(1 / np.log2(rank + 1) for rank in range(1, 11)))
    return Shape(tuple(np.repeat(values, DEMO_COUNTS).tolist()), sum(DEMO_COUNTS), DEMO_ALIKE)


@dataclass(frozen=True)
class Bank:
    """Nights of equally good models: the means [N, S] of three systems and their covariances [N, S, S]."""

    means_NS: Floats
    covariances_NSS: Floats

    @property
    def relative_error(self) -> float:
        """The standard error of the difference of two models on one night, as a share of the mean."""
        c = self.covariances_NSS
        return float(np.sqrt(c[:, 0, 0] + c[:, 1, 1] - 2 * c[:, 0, 1]).mean() / self.means_NS.mean())


def draw_bank(shape: Shape, *, nights: int, seed: int, progress: Progress = lambda done, of: None) -> Bank:
    """Draw nights user by user."""
    rng = np.random.default_rng(seed)
    means, covariances = [], []
    rows = max(1, 400_000 // shape.requests)
    for done in range(0, nights, rows):
        count = min(rows, nights - done)
        scores_NUPS = draw_scores(shape, count, rng)
        users, requests = scores_NUPS.shape[1], scores_NUPS.shape[1] * shape.per_user
        means.append(scores_NUPS.mean(axis=(1, 2)))
        residual_NUS = scores_NUPS.sum(axis=2) - shape.per_user * means[-1][:, None]
        pairs = np.einsum("nus,nut->nst", residual_NUS, residual_NUS)
        covariances.append(pairs * users / max(users - 1, 1) / requests**2)
        progress(done + count, nights)
    return Bank(np.concatenate(means), np.concatenate(covariances))


def draw_scores(shape: Shape, nights: int, rng: np.random.Generator) -> Floats:
    """The scores [N, U, P, S] of three equally good systems."""
    scores = np.asarray(shape.scores, np.float64)

    def drawn(size: tuple[int, ...]) -> Floats:
        common = rng.choice(scores, size)
        # two systems are alike where both keep the common score
        keeps = [rng.random(size) < np.sqrt(shape.alike) for _ in range(3)]
        return np.stack([np.where(keep, common, rng.choice(scores, size)) for keep in keeps], axis=-1)

    users = shape.requests // shape.per_user
    first_NUPS = drawn((nights, users))[:, :, None]
    if shape.per_user == 1:
        return first_NUPS
    same_NUP = rng.random((nights, users, shape.per_user)) < shape.user_alike
    return np.where(same_NUP[..., None], first_NUPS, drawn((nights, users, shape.per_user)))


@dataclass(frozen=True)
class Policy:
    """The rules that are simulated; "margin" is the comparison with the champion alone."""

    rule: Rule = "budget"
    budget: float = 0.03
    margin: float = 0.15
    alpha: float = 0.05


@dataclass(frozen=True)
class Year:
    """What came of each trial: the champion's quality at the end and relative to the best so far at its lowest, the
    promotions, the night of the first one, and how often a champion became the anchor that is no better than it."""

    quality_T: Floats
    lowest_T: Floats
    promotions_T: Floats
    first_T: Floats
    false_moves_T: Floats


class _Trials:
    """The state of all trials at once: qualities, and the sums that the bounds are computed from."""

    def __init__(self, count: int) -> None:
        self.champion_T, self.anchor_T, self.best_T = np.ones(count), np.ones(count), np.ones(count)
        self.lowest_T, self.promotions_T = np.ones(count), np.zeros(count)
        self.first_T = np.full(count, np.inf)
        self.since_anchor_T, self.false_moves_T = np.zeros(count), np.zeros(count)
        self.sums = {name: np.zeros((3, count)) for name in ("candidate", "gain", "champion")}  # total, variance, first

    def add(self, name: str, total_T: Floats, variance_T: Floats) -> None:
        self.sums[name][2] = np.where(self.sums[name][1] == 0, variance_T, self.sums[name][2])
        self.sums[name][:2] += (total_T, variance_T)

    def above_zero(self, name: str, alpha: Any) -> npt.NDArray[np.bool_]:
        total_T, variance_T, first_T = self.sums[name]
        return np.asarray(total_T >= mixture_radius(variance_T, first_T, alpha=alpha))

    def move_anchor(self, moved_T: npt.NDArray[np.bool_]) -> None:
        self.false_moves_T += moved_T & (self.champion_T <= self.anchor_T)
        self.anchor_T = np.where(moved_T, self.champion_T, self.anchor_T)
        self.since_anchor_T[moved_T] = 0
        self._begin_again(moved_T)

    def promote(self, accepted_T: npt.NDArray[np.bool_], quality_T: Floats, night: int) -> None:
        self.champion_T = np.where(accepted_T, quality_T, self.champion_T)
        self.best_T = np.maximum(self.best_T, self.champion_T)
        self.lowest_T = np.minimum(self.lowest_T, self.champion_T / self.best_T)
        self.first_T = np.where(accepted_T & np.isinf(self.first_T), night + 1, self.first_T)
        self.promotions_T += accepted_T
        self.since_anchor_T += accepted_T
        self._begin_again(accepted_T)

    def _begin_again(self, which_T: npt.NDArray[np.bool_]) -> None:
        for sums in self.sums.values():
            sums[:, which_T] = 0


def _contrast(mean_TS: Floats, covariance_TSS: Floats, *weights: Any) -> tuple[Floats, Floats]:
    """The values [T] of a contrast, a weight per system, and their variances."""
    w_TS = np.stack([np.broadcast_to(w, len(mean_TS)) for w in weights], axis=1)
    return (w_TS * mean_TS).sum(axis=1), np.einsum("ts,tsu,tu->t", w_TS, covariance_TSS, w_TS)


def simulate(
    bank: Bank,
    effect: Callable[[int, np.random.Generator, int], Any],
    policy: Policy,
    *,
    trials: int,
    nights: int,
    seed: int = 0,
    progress: Progress = lambda done, of: None,
) -> Year:
    """Decide every night of ``trials`` years on a new candidate, all years at once.

    ``effect`` (night, generator, trials) is how much better than the champion of the time the candidates truly are.
    ``lowest_T`` is relative to the best champion so far.
    """
    rng, state = np.random.default_rng(seed), _Trials(trials)
    for night in range(nights):
        drawn_T = rng.integers(0, len(bank.means_NS), trials)
        mean_TS, covariance_TSS = bank.means_NS[drawn_T], bank.covariances_NSS[drawn_T]
        contrast = functools.partial(_contrast, mean_TS, covariance_TSS)
        quality_T = state.champion_T * (1 + effect(night, rng, trials))
        gain_T, variance_T = contrast(quality_T, -state.champion_T, 0.0)
        accepted_T = gain_T - 1.96 * np.sqrt(variance_T) >= -policy.margin * state.champion_T * mean_TS[:, 1]
        if policy.rule == "budget":
            state.add("candidate", *contrast(quality_T, 0.0, (policy.budget - 1) * state.anchor_T))
            state.add("gain", *contrast(quality_T, 0.0, -state.anchor_T))
            state.add("champion", *contrast(0.0, state.champion_T, -state.anchor_T))
            share_T = spent_on(0, spent_on(state.since_anchor_T, policy.alpha))
            accepted_T &= state.above_zero("candidate", share_T)
            gained_T = accepted_T & state.above_zero("gain", policy.alpha)
            better_T = state.above_zero("champion", policy.alpha) & (state.since_anchor_T > 0)
            state.promote(accepted_T, quality_T, night)
            state.move_anchor(gained_T | (better_T & ~accepted_T))
        else:
            state.promote(accepted_T, quality_T, night)
        progress(night + 1, nights)
    return Year(state.champion_T, state.lowest_T, state.promotions_T, state.first_T, state.false_moves_T)
