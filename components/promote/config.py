"""The settings of decide and promote."""

from pydantic import Field

from rankline.evaluation.decision import PromotionPolicy
from rankline.mirror.config import TrackingConfig


class DecideConfig(PromotionPolicy):
    """The gates that a candidate must pass before it serves."""


class PromoteConfig(TrackingConfig):
    """Where MLflow shows candidates, and how long a promotion waits for another one."""

    lock_timeout_s: float = Field(
        600.0, gt=0, description="Longest wait while another process writes the online store, in seconds."
    )
    replace_later_features: bool = Field(
        False,
        description="Whether features whose data ends earlier than what is online replace it: after the newest events "
        "were corrected or withdrawn.",
    )
