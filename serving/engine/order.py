"""What the heads of an answer say, and the order that it has by them.

Shapes: I items, N candidates of one request, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rankline.errors import ServerError
from rankline.model.head_values import head_values
from rankline.model.order import RANK, Order
from rankline.model.policy import ServingPolicy
from serving.engine.graphs import Floats, Ints

Doubles = npt.NDArray[np.float64]


class ServedOrder:
    """The heads and the order of one model's policy."""

    def __init__(self, policy: ServingPolicy, heads: Sequence[str]) -> None:
        self._policy, self._heads = policy, list(heads)
        self._order = Order(policy.order) if policy.order else None
        names = self._order.names if self._order else []
        self.item_numbers = [name for name in names if name not in (RANK, *heads)]
        self._numbers: dict[str, Doubles] = {}

    def read_numbers(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Take the numbers of the catalogue's items that the order reads; an unknown number counts as 0."""
        self._numbers = {
            name: np.nan_to_num(np.array([item[name] or 0.0 for item in items], np.float64), posinf=0.0, neginf=0.0)
            for name in self.item_numbers
        }

    def head_values(self, logits_NH: Floats) -> dict[str, Doubles]:
        """Head -> [N] its calibrated chance or its value; without declared labels each logit through a sigmoid."""
        outputs = {head: logits_NH[:, h].astype(np.float64) for h, head in enumerate(self._heads)}
        if self._policy.heads:
            return head_values({name: outputs[name] for name in self._policy.heads}, self._policy.heads)
        return {head: 1 / (1 + np.exp(-values_N)) for head, values_N in outputs.items()}

    def scores(self, rows_N: Ints, logits_NH: Floats, values: Mapping[str, Doubles]) -> npt.NDArray[Any]:
        """[N] what the items are sorted by: the first head's logit, or the value of the declared order.

        Raises:
            ServerError: a score is infinite.
        """
        if self._order is None:
            return logits_NH[:, 0]
        numbers = {name: values_I[rows_N] for name, values_I in self._numbers.items()}
        scores_N: npt.NDArray[Any] = self._order.values({**values, RANK: logits_NH[:, 0], **numbers})
        if not np.isfinite(scores_N).all():
            raise ServerError(
                "the order of answers gives no number",
                expected="a finite value for every item",
                found=f"{self._order.expression} is infinite for some",
                hint="look for huge numbers in the catalogue, or change distill.order and train again",
            )
        return scores_N
