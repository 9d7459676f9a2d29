"""What the routes share: the model, the features, the metrics and the batcher of this server."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from serving.batching import Batcher
from serving.features.lookup import FeatureLookup
from serving.metrics import Metrics
from serving.model_manager import ModelManager


@dataclass(frozen=True)
class Services:
    """The parts of a running server."""

    models: ModelManager
    features: FeatureLookup
    metrics: Metrics
    batcher: Batcher


def services_of(request: Request) -> Services:
    """The services of the application that received this request."""
    services: Services = request.app.state.services
    return services
