"""Every knob of the two doors of this room."""

import re

from pydantic import Field, field_validator

from rankline.contracts import FrozenModel
from rankline.evaluation.decision import PromotionPolicy


class DecideConfig(PromotionPolicy):
    """The gates: what a candidate must show before it serves."""


class PromoteConfig(FrozenModel):
    """Where a promotion is told, and how long it waits for another one."""

    tracking_uri: str = Field(
        "",
        description="MLflow server or database, its URL without a password; empty for the workspace's own mlflow.db.",
    )
    artifact_location: str = Field(
        "", description="Where a new MLflow experiment keeps its files; empty for the server's own place, or mlruns."
    )
    experiment: str = Field("rankline", min_length=1, description="MLflow experiment that promotions are in.")
    registered_model: str = Field(
        "rankline", min_length=1, description="MLflow registered model that has a version for each champion."
    )
    lock_timeout_s: float = Field(
        600.0, gt=0, description="How long to wait while another promotion writes the online store."
    )

    @field_validator("tracking_uri")
    @classmethod
    def _without_password(cls, uri: str) -> str:
        if re.search(r"://[^/@]*:[^/@]*@", uri) or "password=" in uri:
            raise ValueError(
                "a password is no setting: PGPASSWORD holds a database's, MLFLOW_TRACKING_PASSWORD a server's"
            )
        return uri
