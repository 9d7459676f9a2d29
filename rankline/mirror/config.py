"""The settings of MLflow."""

from __future__ import annotations

from pydantic import Field, field_validator

from rankline.contracts import FrozenModel
from rankline.io.secret_queries import has_password, secret_name


class TrackingConfig(FrozenModel):
    """Where MLflow is, and how long anything waits for it."""

    tracking_uri: str = Field(
        "",
        description="URL of the MLflow server or database, without a password; empty for mlflow.db in the workspace.",
    )
    artifact_location: str = Field(
        "", description="Where a new MLflow experiment keeps its files; empty for the server's default, or mlruns."
    )
    experiment: str = Field("rankline", min_length=1, description="MLflow experiment of the candidates.")
    registered_model: str = Field(
        "rankline", min_length=1, description="MLflow registered model with one version per candidate."
    )
    mirror_timeout_s: float = Field(
        60.0, gt=0, description="Longest time that a run, an approval or a rollback waits for MLflow, in seconds."
    )

    @field_validator("tracking_uri")
    @classmethod
    def _without_password(cls, uri: str) -> str:
        if has_password(uri) or secret_name(uri):
            raise ValueError(
                "a password is no setting: set PGPASSWORD for a database, MLFLOW_TRACKING_PASSWORD or "
                "MLFLOW_TRACKING_TOKEN for a server"
            )
        return uri

    @property
    def is_server(self) -> bool:
        """Whether MLflow is a server, rather than a database that this process writes."""
        return self.tracking_uri.startswith(("http://", "https://"))

    @property
    def tracking(self) -> TrackingConfig:
        """These settings alone, of a model that has more."""
        return TrackingConfig(**{name: getattr(self, name) for name in TrackingConfig.model_fields})

    def uri_in(self, workspace_path: str) -> str:
        """The URI that MLflow's client is given."""
        return self.tracking_uri or f"sqlite:///{workspace_path}/mlflow.db"
