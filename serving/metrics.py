"""The server's Prometheus metrics."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from serving.engine import EngineInfo

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The metrics of one server, in their own Prometheus registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("rankline_requests", "Answered requests", ["route", "status"], registry=self.registry)
        self.seconds = Histogram(
            "rankline_request_seconds",
            "Seconds from the first byte of a request to the last byte of its response",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.model = Gauge(
            "rankline_model_info",
            "1 for the model that serves, 0 for the one before it",
            ["model_id", "revision", "precision", "provider"],
            registry=self.registry,
        )
        self.swaps = Counter(
            "rankline_swaps",
            "Champions and catalogue revisions loaded (outcome swapped) or rejected (outcome refused)",
            ["outcome"],
            registry=self.registry,
        )
        self.hidden = Gauge(
            "rankline_hidden_items", "Items taken down and left out of every response", registry=self.registry
        )
        self.degraded = Counter(
            "rankline_degraded",
            "Responses that used defaults for an unavailable part",
            ["part"],
            registry=self.registry,
        )
        self.features_ready = Gauge(
            "rankline_features_ready", "1 while the feature store answers", registry=self.registry
        )
        self.features_watermark = Gauge(
            "rankline_features_watermark_seconds",
            "Watermark of the feature store in unix seconds; absent if unknown",
            ["service"],
            registry=self.registry,
        )
        self.features_lag = Gauge(
            "rankline_features_lag_seconds",
            "Seconds from the watermark of the feature store to now; absent if unknown",
            ["service"],
            registry=self.registry,
        )
        self.registry_age = Gauge(
            "rankline_registry_age_seconds",
            "Seconds since the model registry was last read; 0 for a server that follows none",
            registry=self.registry,
        )
        self._add_batching()
        self._served: list[tuple[str, ...]] = []
        # alerts need these series to exist from the start
        for outcome in ("swapped", "refused"):
            self.swaps.labels(outcome)
        for reason in ("full", "deadline", "caller_gone"):
            self.dropped.labels(reason)
        self.degraded.labels("features")

    def _add_batching(self) -> None:
        self.queue = Gauge("rankline_queue_length", "Requests that wait for a batch", registry=self.registry)
        self.batch_size = Histogram(
            "rankline_batch_size", "Requests answered together", buckets=_BATCHES, registry=self.registry
        )
        stages = Histogram(
            "rankline_stage_seconds",
            "Seconds of a request in the queue, and of a batch in each of the steps after it",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.stages = {stage: stages.labels(stage) for stage in ("queue", "prepare", "run", "finish")}
        self.dropped = Counter(
            "rankline_dropped",
            "Requests that ended without an answer: the server was full, the deadline passed, or the caller had gone",
            ["reason"],
            registry=self.registry,
        )

    def set_watermark(self, service: str, watermark: float | None) -> None:
        """Set the watermark of a feature service; the lag is computed from it when metrics are read.

        0 is the watermark of a store without events, which has no lag.
        """
        if not watermark:
            self.features_watermark.clear()
            self.features_lag.clear()
            return
        self.features_watermark.labels(service).set(watermark)
        self.features_lag.labels(service).set_function(lambda: time.time() - watermark)

    def set_model(self, info: EngineInfo) -> None:
        """Report the model that serves, and its predecessor at 0; earlier ones are dropped to bound the series."""
        labels = (info.model_id, info.revision, info.precision, info.provider)
        self._served = [*(served for served in self._served if served != labels), labels]
        for old in self._served[:-2]:
            self.model.remove(*old)
        self._served = self._served[-2:]
        for served in self._served:
            self.model.labels(*served).set(served == labels)
