"""Two models side by side, from the evidence of their evaluations."""

from __future__ import annotations

from rankline.contracts import FrozenModel
from rankline.registry.model_registry import ModelRegistry


class Difference(FrozenModel):
    """A metric of two models; the interval is that of second - first, where both were scored on the same requests."""

    metric: str
    first: float | None
    second: float | None
    difference: float | None = None
    low: float | None = None
    high: float | None = None


class Comparison(FrozenModel):
    """Two models side by side."""

    first: str
    second: str
    requests: tuple[int, int]
    same_requests: int  # on which both were scored
    metrics: tuple[Difference, ...]
    note: str = ""  # why there are no intervals


def compare(models: ModelRegistry, first: str, second: str) -> Comparison:
    """The metrics of two models, whose ids may be abbreviated.

    Raises:
        UsageError: there is no such model, or several ids begin like that.
        RegistryError: it has no evaluation.
    """
    raise NotImplementedError
