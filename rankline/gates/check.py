"""One rule of a policy with what it requires, what was observed, and whether it is met."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from rankline.contracts import FrozenModel
from rankline.gates.clusters import Effect

Status = Literal["pass", "fail", "insufficient data"]


class Check(FrozenModel):
    """One rule with its observed and required values."""

    name: str
    passed: bool
    status: Status = "fail"
    observed: float | int | str | None = Field(description="none: it was not measured")
    required: str
    sentence: str
    effect: Effect | None = None
    than: str = Field(default="", description="of a comparison, the system that the candidate was compared with")

    @classmethod
    def of(
        cls,
        name: str,
        status: Status,
        sentence: str,
        *,
        required: str,
        observed: float | int | str | None = None,
        effect: Effect | None = None,
        than: str = "",
    ) -> Check:
        """A check with this status."""
        met = status == "pass"
        return cls(
            name=name, passed=met, status=status, observed=observed, required=required, sentence=sentence,
            effect=effect, than=than,
        )  # fmt: skip

    @model_validator(mode="before")
    @classmethod
    def _one_status(cls, values: Any) -> Any:
        """Verdicts of earlier versions have no status, and a check is given by one of the two."""
        if isinstance(values, dict) and "status" in values:
            return {**values, "passed": values["status"] == "pass"}
        if isinstance(values, dict) and "passed" in values:
            return {**values, "status": "pass" if values["passed"] else "fail"}
        return values
