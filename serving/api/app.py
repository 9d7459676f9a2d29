"""The HTTP application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from serving.api import ranking, status
from serving.api.errors import add_error_handlers
from serving.api.fast_path import FastPath
from serving.api.middleware import RequestLimits, RequestMiddleware
from serving.api.schemas import ErrorResponse
from serving.api.services import Services
from serving.batching import Batcher, BatchSettings
from serving.features.lookup import FeatureLookup
from serving.metrics import Metrics
from serving.model_manager import ModelManager

_LIMITS, _BATCHES = RequestLimits(), BatchSettings()


def create_app(
    models: ModelManager,
    features: FeatureLookup,
    metrics: Metrics,
    limits: RequestLimits = _LIMITS,
    batches: BatchSettings = _BATCHES,
) -> FastAPI:
    """Build the application; it closes ``models`` and ``features`` when it shuts down."""
    batcher = Batcher(lambda: models.engine, metrics, batches)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        batcher.close()
        features.close()
        models.close()

    app = FastAPI(
        title="Rankline",
        description="Ranked items from the champion model.",
        version="1",
        lifespan=lifespan,
        redirect_slashes=False,
        responses={422: {"model": ErrorResponse, "description": "Unprocessable Entity"}, 503: {"model": ErrorResponse}},
    )
    app.state.services = Services(models, features, metrics, batcher)
    app.add_middleware(FastPath)  # inside of the next one
    app.add_middleware(RequestMiddleware, metrics=metrics, limits=limits)
    add_error_handlers(app)
    app.include_router(ranking.router)
    app.include_router(status.router)
    return app
