"""Renew serving/openapi.json after a change of the interface: ``python -m serving.openapi``."""

from __future__ import annotations

import json
from pathlib import Path

from serving.api.app import create_app
from serving.features.lookup import FeatureLookup
from serving.metrics import Metrics
from serving.model_manager import ModelManager

FILE = Path(__file__).with_name("openapi.json")


def document() -> str:
    """The OpenAPI document of the application."""
    metrics = Metrics()
    models = ModelManager(metrics, precision="fp32", provider="cpu", threads=1)
    features = FeatureLookup(None, metrics, item_ids=lambda: ())
    return json.dumps(create_app(models, features, metrics).openapi(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(document())
