"""Engines: they rank items for a request in the steps prepare, run and finish; the server runs each request alone."""

from serving.engine.bundle_engine import BundleEngine
from serving.engine.profile import check_frozen, read_context
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
    "check_frozen",
    "read_context",
    "run_request",
]
