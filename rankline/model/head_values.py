"""What the heads of a model mean: from the scorer's outputs to chances and values in the labels' own units.

Shapes: N candidates, H heads, P positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from rankline.contracts import FrozenModel

Floats = npt.NDArray[np.float64]
UNKNOWN_POSITION = 0


class PositionShare(FrozenModel):
    """A position of the log: how often items were shown there, and what it adds to a logit."""

    position: int = Field(description="from 1; 0 where it is unknown")
    share: float = Field(ge=0, le=1)
    offset: float


class CurvePoint(FrozenModel):
    """A point of a rising curve that bends a logit."""

    logit: float
    calibrated: float


class HeadPolicy(FrozenModel):
    """How the output of one label's head becomes what is served.

    binary: Platt scaling (Platt 1999) of the logit, bent by a curve where a line does not fit, as the mean over the
    positions of the log. A label that comes after another one is its chance given that one, times that one's chance
    (ESMM: Ma et al. 2018).
    Others: the output in the label's own unit, clipped to the values that the label can have.
    """

    type: Literal["binary", "graded", "count", "continuous"]
    weight: float = Field(1.0, description="of the logit; of the standardized value: its standard deviation")
    bias: float = Field(0.0, description="added to the weighted logit; of the standardized value: its mean")
    curve: list[CurvePoint] = Field([], description="bends the weighted logit; empty for a straight line")
    positions: list[PositionShare] = Field([], description="empty if the chance does not depend on the position")
    after: str = Field("", description="label that happens first")
    low: float | None = Field(None, description="smallest possible value of a label that is not binary")
    high: float | None = Field(None, description="largest possible value of a label that is not binary")
    threshold: float | None = Field(None, description="chance from which the label is predicted to happen")

    @property
    def is_binary(self) -> bool:
        return self.type == "binary"

    def own_values(self, outputs_N: npt.ArrayLike, positions_N: npt.ArrayLike | None = None) -> Floats:
        """[N] the value without that of the label before; at the positions of the log, or at ``positions_N``."""
        scaled_N = self.weight * np.asarray(outputs_N, np.float64) + self.bias
        if not self.is_binary:
            return np.clip(scaled_N, self.low, self.high) if (self.low, self.high) != (None, None) else scaled_N
        if self.curve:
            points = [(point.logit, point.calibrated) for point in self.curve]
            scaled_N = bend(scaled_N, np.array(points))
        if not self.positions:
            return _sigmoid(scaled_N)
        offset_P = np.array([each.offset for each in self.positions])
        if positions_N is None:
            share_P = np.array([each.share for each in self.positions])
            return np.asarray(_sigmoid(scaled_N[:, None] + offset_P) @ share_P)
        place = {each.position: n for n, each in enumerate(self.positions)}
        rows_N = [place.get(int(position), len(offset_P) - 1) for position in np.asarray(positions_N)]
        return _sigmoid(scaled_N + offset_P[rows_N])


def bend(logits_N: Floats, points_C2: Floats) -> Floats:
    """[N] the logits on a curve through points (logit, calibrated); beyond its ends as far away as before."""
    inside_N = np.clip(logits_N, points_C2[0, 0], points_C2[-1, 0])
    return np.asarray(np.interp(inside_N, points_C2[:, 0], points_C2[:, 1]) + logits_N - inside_N)


def head_values(
    outputs: Mapping[str, npt.ArrayLike], heads: Mapping[str, HeadPolicy], positions_N: npt.ArrayLike | None = None
) -> dict[str, Floats]:
    """Label -> [N] the chances of binary labels, the values of others in their own unit."""

    def value(name: str, seen: Sequence[str] = ()) -> Floats:
        head = heads[name]
        own_N = head.own_values(outputs[name], positions_N)
        if not (head.is_binary and head.after) or head.after in seen:
            return own_N
        return own_N * value(head.after, (*seen, name))

    return {name: value(name) for name in heads}


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(0.5 * (1.0 + np.tanh(logits / 2)))
