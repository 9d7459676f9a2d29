"""The settings of decide and promote."""

import re

from pydantic import Field, field_validator

from rankline.contracts import FrozenModel
from rankline.evaluation.decision import PromotionPolicy


class DecideConfig(PromotionPolicy):
    """The gates that a candidate must pass before it serves."""


class PromoteConfig(FrozenModel):
    """Where a promotion is mirrored, and how long it waits for another one."""

    tracking_uri: str = Field(
        "",
        description="URL of the MLflow server or database, without a password; empty for mlflow.db in the workspace.",
    )
    artifact_location: str = Field(
        "", description="Where a new MLflow experiment keeps its files; empty for the server's default, or mlruns."
    )
    experiment: str = Field("rankline", min_length=1, description="MLflow experiment of the promotions.")
    registered_model: str = Field(
        "rankline", min_length=1, description="MLflow registered model with one version per champion."
    )
    lock_timeout_s: float = Field(
        600.0, gt=0, description="Longest wait while another process writes the online store, in seconds."
    )

    replace_later_features: bool = Field(
        False,
        description="Whether features whose data ends earlier than what is online replace it: after the newest events "
        "were corrected or withdrawn.",
    )

    @field_validator("tracking_uri")
    @classmethod
    def _without_password(cls, uri: str) -> str:
        if re.search(r"://[^/@]*:[^/@]*@", uri) or "password=" in uri:
            raise ValueError(
                "a password is no setting: set PGPASSWORD for a database, MLFLOW_TRACKING_PASSWORD for a server"
            )
        return uri
