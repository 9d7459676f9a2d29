"""What the server counts, for Prometheus; the only place where metric names are written."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from serving.engine import EngineInfo

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """One server's numbers, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("rankline_requests", "Answered requests", ["route", "status"], registry=self.registry)
        self.seconds = Histogram(
            "rankline_request_seconds",
            "Time from a request's first byte to its answer's last",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.model = Gauge(
            "rankline_model_info",
            "1 for the model that serves, 0 for one that did",
            ["model_id", "revision", "precision", "provider"],
            registry=self.registry,
        )
        self.swaps = Counter(
            "rankline_swaps",
            "Champions and catalogue revisions taken up (outcome swapped) or kept out (outcome refused)",
            ["outcome"],
            registry=self.registry,
        )
        self.hidden = Gauge("rankline_hidden_items", "Items taken down: in no answer", registry=self.registry)
        self.degraded = Counter(
            "rankline_degraded", "Answers given without a part they wanted", ["part"], registry=self.registry
        )
        self.features_ready = Gauge(
            "rankline_features_ready", "1 while the feature store answers", registry=self.registry
        )
        self.features_watermark = Gauge(
            "rankline_features_watermark_seconds",
            "What the feature store was materialized up to, unix seconds; absent if unknown",
            ["service"],
            registry=self.registry,
        )
        self.features_lag = Gauge(
            "rankline_features_lag_seconds",
            "Seconds from what the feature store was materialized up to, to now; absent if unknown",
            ["service"],
            registry=self.registry,
        )
        self._served: list[tuple[str, ...]] = []
        # those that alerts watch are there, at 0, before anything happens
        for outcome in ("swapped", "refused"):
            self.swaps.labels(outcome)
        self.degraded.labels("features")

    def set_watermark(self, service: str, watermark: float | None) -> None:
        """What a service's store was materialized up to (unix seconds); the lag grows by itself from there on.

        A store that knows of no events at all says 0: nothing in it grows old.
        """
        if not watermark:
            self.features_watermark.clear()
            self.features_lag.clear()
            return
        self.features_watermark.labels(service).set(watermark)
        self.features_lag.labels(service).set_function(lambda: time.time() - watermark)

    def set_model(self, info: EngineInfo) -> None:
        """Say what serves now, and at 0 what did before; catalogues change all day, so what was earlier is dropped."""
        labels = (info.model_id, info.revision, info.precision, info.provider)
        self._served = [*(served for served in self._served if served != labels), labels]
        for old in self._served[:-2]:
            self.model.remove(*old)
        self._served = self._served[-2:]
        for served in self._served:
            self.model.labels(*served).set(served == labels)
