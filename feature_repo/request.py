"""Features of a request's time and history length, computed on demand."""

from typing import Any

from feast import Field, OnDemandFeatureView, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64

from rankline.features import transforms

# Given in the request: unix seconds, unix seconds (0 for no event), and a number of events.
REQUEST_FIELDS = ("request_time", "last_event_time", "history_length")


def request_context() -> OnDemandFeatureView:
    """Hour and weekday of a request, time since the last event, length of the history."""

    @on_demand_feature_view(
        sources=[RequestSource(name="request", schema=[Field(name=name, dtype=Float64) for name in REQUEST_FIELDS])],
        schema=[Field(name=name, dtype=Float64) for name in transforms.CONTEXT],
        mode="python",
    )
    def request_context(inputs: dict[str, Any]) -> dict[str, Any]:
        # Feast stores this body in its registry and runs it without this module, so it has its own imports.
        import numpy as np

        from rankline.features import transforms

        columns = transforms.request_context(
            request_time=np.asarray(inputs["request_time"], np.float64),
            last_event_time=np.asarray(inputs["last_event_time"], np.float64),
            history_length=np.asarray(inputs["history_length"], np.float64),
        )
        return {name: values.tolist() for name, values in columns.items()}

    view: OnDemandFeatureView = request_context
    return view
