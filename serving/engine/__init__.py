"""Engines: they rank items for one request or a batch, in the steps prepare, run and finish."""

from serving.engine.bundle_engine import BundleEngine
from serving.engine.protocol import (
    Engine,
    EngineInfo,
    EngineRequest,
    EngineResponse,
    RankedItem,
    UnknownItem,
    run_request,
)

__all__ = [
    "BundleEngine",
    "Engine",
    "EngineInfo",
    "EngineRequest",
    "EngineResponse",
    "RankedItem",
    "UnknownItem",
    "run_request",
]
