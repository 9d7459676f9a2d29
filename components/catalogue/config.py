"""The settings of a refresh of the catalogue."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rankline.contracts import FrozenModel


class CatalogueConfig(FrozenModel):
    """What a new revision of the champion's catalogue must meet to be published."""

    whole: bool = Field(
        False, description="The items are the whole catalogue: existing items that are not among them are removed."
    )
    reuse: bool = Field(True, description="Reuse the vectors of unchanged texts; off, every item is embedded again.")
    max_gone_share: float = Field(
        0.2, ge=0, le=1, description="Largest share of the available items that one refresh may remove or withdraw."
    )
    max_new_share: float = Field(
        1.0, ge=0, description="Most items that one refresh may add, as a share of the existing ones."
    )
    max_changed_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Largest share of the items whose words (title, category, text) one refresh may change.",
    )
    max_norm: float = Field(
        2.0,
        gt=0,
        description="Longest vector of an item, as a multiple of the longest that the model was exported with.",
    )
    min_available: int = Field(1, ge=0, description="Fewest available items after a refresh.")
    min_recall: float = Field(
        0.9, ge=0, le=1, description="Smallest share of the exact nearest neighbours that the index finds."
    )
    min_agreement: float = Field(
        0.8,
        ge=0,
        le=1,
        description="Smallest share of pairs of a canary's candidates that are still in training's order.",
    )
    precision: Literal["fp32", "int8", "fp16"] = Field("fp32", description="Precision that serves the canaries.")
    canary_k: int = Field(10, ge=1, description="Items requested by each canary.")
    start_timeout_s: float = Field(
        120.0, gt=0, description="Longest wait until the canaries' server is ready, in seconds."
    )
    request_timeout_s: float = Field(30.0, gt=0, description="Longest wait for the answer to a canary, in seconds.")
