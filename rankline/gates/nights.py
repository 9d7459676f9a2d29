"""Nights: what the evaluation of one night says of candidate, champion and anchor, and the sum of several nights.

A night has the requests that are newer than those of the night before it, so that no request counts twice. It is stored
in the registry's `evaluated` event, and the nights since the champion's promotion add up to a pool.

Shapes: S = 3 systems, in the order of `SYSTEMS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rankline.contracts import FrozenModel
from rankline.evaluation.report import ANCHOR, CANDIDATE, CHAMPION
from rankline.gates.clusters import Clustered
from rankline.gates.evidence import Evidence
from rankline.gates.sequences import mixture_radius

Floats = npt.NDArray[np.float64]
SYSTEMS = (CANDIDATE, CHAMPION, ANCHOR)
MIN_CLUSTERS = 30  # fewer new users than this wait for those of later nights
Row = tuple[float, float, float]
Square = tuple[Row, Row, Row]


class Night(FrozenModel):
    """The means of the three systems over the requests of one block of time, and their covariance."""

    model_id: str
    champion: str
    anchor: str
    recipe: str
    metric: str
    since: float
    until: float
    requests: int
    clusters: int
    means: Row
    covariance: Square


class Pool(FrozenModel):
    """The sum of several nights: totals over requests, the covariance of the totals, and that of the first night."""

    nights: int = 0
    requests: int = 0
    totals: Row = (0.0, 0.0, 0.0)
    covariance: Square = ((0.0,) * 3,) * 3
    first: Square = ((0.0,) * 3,) * 3

    def plus(self, night: Night) -> Pool:
        """The pool with one more night."""
        square = np.asarray(night.covariance) * night.requests**2
        covariance = np.asarray(self.covariance) + square
        return Pool(
            nights=self.nights + 1,
            requests=self.requests + night.requests,
            totals=_row(np.asarray(self.totals) + np.asarray(night.means) * night.requests),
            covariance=_square(covariance),
            first=self.first if self.nights else _square(square),
        )

    @classmethod
    def of(cls, nights: Iterable[Night]) -> Pool:
        pool = cls()
        for night in nights:
            pool = pool.plus(night)
        return pool

    def mean(self, weights: Sequence[float]) -> float:
        """The mean of a contrast, a weight for each system."""
        return float(np.dot(self.totals, weights) / self.requests)

    def radius(self, weights: Sequence[float], *, alpha: float) -> float:
        """How far the mean of a contrast may lie from the true one, at every night at once."""
        w = np.asarray(weights, np.float64)
        variance, first = (max(float(w @ np.asarray(m) @ w), 0.0) for m in (self.covariance, self.first))
        return float(mixture_radius(variance, first, alpha=alpha)) / self.requests

    def night_error(self, weights: Sequence[float]) -> float:
        """The standard error of a contrast's mean over one night, on average."""
        w = np.asarray(weights, np.float64)
        variance = max(float(w @ np.asarray(self.covariance) @ w), 0.0)
        return float(np.sqrt(variance * self.nights)) / self.requests


def measure_night(
    evidence: Evidence, *, since: float, metric: str, systems: Sequence[str], **names: str
) -> Night | None:
    """The night of the requests after ``since``; None without scores of the three ``systems``, or too few clusters.

    ``systems`` are the names under which candidate, champion and anchor are in the scores: one model may be two.
    """
    values_RS = evidence.stacked(metric, tuple(systems))
    if values_RS is None:
        return None
    new_R = evidence.at_R > since if since else np.ones(len(evidence.at_R), np.bool_)
    clusters = [cluster for cluster, new in zip(evidence.clusters, new_R, strict=True) if new]
    if len(set(clusters)) < MIN_CLUSTERS:
        return None
    block = Clustered.of(values_RS[new_R], clusters)
    return Night(
        metric=metric,
        since=since,
        until=evidence.until,
        requests=int(block.requests_K[0]),
        clusters=int(block.clusters_K[0]),
        means=_row(block.mean_K),
        covariance=_square(block.covariance_KK),
        **names,
    )


def disjoint(nights: Iterable[Night]) -> list[Night]:
    """The nights in order of time, without those whose requests an earlier one has; of one block the first night."""
    chosen: list[Night] = []
    for night in sorted(nights, key=lambda night: night.until):  # stable: the first of equal ones stays first
        if not chosen or night.since >= chosen[-1].until > 0:
            chosen.append(night)
    return chosen


def _row(values: Any) -> Row:
    first, second, third = (float(value) for value in values)
    return first, second, third


def _square(values: Any) -> Square:
    first, second, third = (_row(row) for row in values)
    return first, second, third
