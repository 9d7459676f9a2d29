"""What firings by need may use within 24 hours."""

from __future__ import annotations

from pydantic import Field

from rankline.contracts import FrozenModel


class Budget(FrozenModel):
    """The most that the runs of firings by need may use within 24 hours; None is no limit."""

    runs: int = Field(2, ge=1, le=1000, description="Runs.")
    core_hours: float | None = Field(None, gt=0, description="Core hours of these runs, by their ledgers.")
    cost: float | None = Field(None, gt=0, description="Cost of these runs, in the currency of the recipe's prices.")

    def __str__(self) -> str:
        return ",".join(f"{name}={value:g}" for name, value in self if value is not None)
