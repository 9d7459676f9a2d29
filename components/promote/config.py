"""Every knob of the two doors of this room."""

from pydantic import Field

from rankline.contracts import Frozen
from rankline.decision import Policy


class DecideConfig(Policy):
    """The gates: what a candidate must show before it serves."""


class PromoteConfig(Frozen):
    """Where a promotion is told, and how long it waits for another one."""

    tracking_uri: str = Field(
        "", description="MLflow server or database to mirror into; empty for the workspace's own mlflow.db."
    )
    experiment: str = Field("rankline", min_length=1, description="MLflow experiment that promotions are in.")
    registered_model: str = Field(
        "rankline", min_length=1, description="MLflow registered model that has a version for each champion."
    )
    lock_timeout_s: float = Field(
        600.0, gt=0, description="How long to wait while another promotion writes the online store."
    )
