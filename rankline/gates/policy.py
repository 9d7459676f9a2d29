"""The gates of a policy file: floors, ceilings, and comparisons with the champion, the anchor or a baseline."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rankline.contracts import FrozenModel
from rankline.evaluation.report import CHAMPION

# systems that a report decides: the baseline, or the candidate source of the model alone, with the highest mean
STRONGEST, BEST_SOURCE = "strongest", "best_source"
WhenInsufficient = Literal["refuse", "allow"]


class _Gate(FrozenModel):
    name: str = Field("", description="Name in the verdict; empty for one made of the rule.")
    metric: str = Field(min_length=1, description="Name of a number of the report.")
    when_insufficient: WhenInsufficient = Field(
        "refuse", description="Whether insufficient data refuses the candidate, or lets it through."
    )


class _Bound(_Gate):
    provider: str = Field(
        "", description="Where it has to be measured, as `rankline serve --provider` names it: cpu or cuda."
    )


class Floor(_Bound):
    """A number of the report that must reach a value."""

    kind: Literal["floor"]
    at_least: float = Field(description="The smallest value that passes.")


class Ceiling(_Bound):
    """A number of the report that must not exceed a value."""

    kind: Literal["ceiling"]
    at_most: float = Field(description="The largest value that passes.")


class _Comparison(_Gate):
    than: str = Field(
        CHAMPION,
        description="The system it is compared with: champion, anchor, a baseline, strongest (the baseline with the "
        "highest mean on these requests), or best_source (the candidate source of the model with the highest mean).",
    )
    slice: str = Field("", description="Compare on the requests of this slice only.")
    min_requests: int = Field(50, ge=2, description="With fewer requests the data is insufficient.")


class NotWorse(_Comparison):
    """The candidate must be proven to be at most a margin worse than another system."""

    kind: Literal["not_worse"]
    margin: float = Field(ge=0, description="How much worse the interval's lower end may be.")
    margin_kind: Literal["relative", "absolute"] = Field(
        "relative", description="Whether the margin is a share of the other system's mean, or a difference of scores."
    )


class Better(_Comparison):
    """The candidate must be proven to be better than another system."""

    kind: Literal["better"]
    by: float = Field(0.0, ge=0, description="By how much, as a share of the other system's mean.")


Gate = Annotated[Floor | Ceiling | NotWorse | Better, Field(discriminator="kind")]


def title(gate: Floor | Ceiling | NotWorse | Better) -> str:
    """The gate's name, or one made of its rule."""
    if gate.name:
        return gate.name
    if isinstance(gate, Floor | Ceiling):
        return f"{gate.kind} {gate.metric}"
    where = f" on {gate.slice}" if gate.slice else ""
    return f"{gate.metric} {gate.kind.replace('_', ' ')} than {gate.than}{where}"
