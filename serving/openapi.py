"""The interface as a file: ``python -m serving.openapi`` renews serving/openapi.json after a change."""

from __future__ import annotations

import json
from pathlib import Path

from serving.app import create_app
from serving.features import FeatureLookup
from serving.live import ModelManager
from serving.metrics import Metrics

FILE = Path(__file__).with_name("openapi.json")


def document() -> str:
    """The OpenAPI document of the application as it is now."""
    metrics = Metrics()
    live = ModelManager(metrics, precision="fp32", provider="cpu", threads=1)
    features = FeatureLookup(None, metrics, item_ids=lambda: ())
    return json.dumps(create_app(live, features, metrics).openapi(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(document())
