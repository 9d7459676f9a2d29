"""Every knob of a refresh of the catalogue."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rankline.contracts import FrozenModel


class CatalogueConfig(FrozenModel):
    """What a new revision of the champion's catalogue has to be like to be published."""

    whole: bool = Field(
        False, description="The items read are the whole catalogue: those that are not among them are taken out."
    )
    reuse: bool = Field(True, description="Read no text again that has not changed; off, every item is embedded anew.")
    max_gone_share: float = Field(
        0.2, ge=0, le=1, description="Largest share of the available items that one refresh may take out or withdraw."
    )
    max_new_share: float = Field(
        1.0, ge=0, description="Most items that one refresh may add, as a share of those that were there."
    )
    max_changed_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Largest share of the items whose words (title, category, text) one refresh may change.",
    )
    max_norm: float = Field(
        2.0, gt=0, description="Longest vector of an item, in lengths of the longest that the model was exported with."
    )
    min_available: int = Field(1, ge=0, description="Fewest items that must be available afterwards.")
    min_recall: float = Field(
        0.9, ge=0, le=1, description="Least share of the exact nearest neighbours that the index must find."
    )
    min_agreement: float = Field(
        0.8,
        ge=0,
        le=1,
        description="Least share of pairs of a canary's candidates that are still in the order of training.",
    )
    precision: Literal["fp32", "int8", "fp16"] = Field("fp32", description="Precision at which the canaries are asked.")
    canary_k: int = Field(10, ge=1, description="Items asked for by each canary.")
    start_timeout_s: float = Field(120.0, gt=0, description="Longest the canaries' server may take to be ready.")
    request_timeout_s: float = Field(30.0, gt=0, description="Longest one canary may take.")
