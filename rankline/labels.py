"""Labels: what the columns of an event say about the item that was shown, and which of them make a positive."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from pydantic import Field, model_validator

from rankline.contracts import FrozenModel

IMPRESSION = "impression"  # an event type that says only that the item was shown
FEEDBACK = "feedback"  # column of events: the weight of a positive, 0 for a negative, null for neither


class Label(FrozenModel):
    """One label of the events.

    A value counts if it reaches ``at_least``, or the ``at_quantile`` of all values; without either, if it is above 0.
    A value that counts makes the event a positive of the label's weight, a negative if the weight is below 0, and
    nothing if the weight is 0: such a label is predicted, and does not decide what the model ranks first.
    """

    type: Literal["binary", "graded", "count", "continuous"] = Field(
        "binary", description="binary: it happened or not; graded: a scale; count; continuous: seconds, money."
    )
    weight: float = Field(
        1.0,
        allow_inf_nan=False,
        description="Weight of the event in learning if the value counts; below 0 it is negative feedback.",
    )
    at_least: float | None = Field(None, description="Smallest value that counts; by default any value above 0.")
    at_quantile: float | None = Field(
        None, gt=0, lt=1, description="Smallest value that counts, as a quantile of all values, instead of at_least."
    )
    scale: tuple[float, float] | None = Field(
        None, description="Smallest and largest possible value of a graded label; by default those of the data."
    )
    after: str = Field("", description="Label that has to happen first: a purchase after a click.")

    @model_validator(mode="after")
    def _one_limit(self) -> Label:
        if self.at_least is not None and self.at_quantile is not None:
            raise ValueError("at_least and at_quantile are two ways to set one limit: keep one")
        if self.scale is not None and self.scale[0] >= self.scale[1]:
            raise ValueError("the scale is empty: its smallest value must be below its largest")
        if self.scale is not None and self.type == "binary":
            raise ValueError("a binary label is 0 or 1: a scale is of a graded label, a count or a continuous one")
        if self.scale is not None and self.at_least is not None and self.at_least > self.scale[1]:
            raise ValueError("no value counts: at_least is above the largest value of the scale")
        return self


# What labels of these names mean in a recipe that declares none. `rating` is not among them: without a declaration
# every rated event is a positive.
DEFAULT_LABELS = {"click": Label(), "purchase": Label(), "relevance": Label(type="graded")}


def effective_labels(declared: Mapping[str, Label], columns: Collection[str]) -> dict[str, Label]:
    """The declared labels, or what the names of the label ``columns`` mean by default; empty if all is positive."""
    return dict(declared) or {name: DEFAULT_LABELS[name] for name in sorted(columns) if name in DEFAULT_LABELS}
