"""Entities, and the feature views that every recipe has: of users, of items, and of the request, computed on demand."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from feast import Entity, FeatureView, Field, OnDemandFeatureView, RequestSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float32, Float64, String

from feature_repo.sources import TTL, Tables, batch_source, user_events_push
from rankline.contracts import TIME_ZONE
from rankline.features import transforms

USER = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
ITEM = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)

CONTENT = ("item_price", "item_text_length", "item_category_count")
# Given in the request: unix seconds, unix seconds (0 for no event), and a number of events.
REQUEST_FIELDS = ("request_time", "last_event_time", "history_length")


def feature_view(
    name: str, entity: Entity, fields: dict[str, Any], sources: Path | Tables, *, ttl: timedelta = TTL
) -> FeatureView:
    """A view of an entity over the rows that featurize wrote under its name; field -> its type."""
    source = user_events_push(sources) if name == "user_history" else batch_source(sources, name)
    schema = [Field(name=field, dtype=kind) for field, kind in fields.items()]
    return FeatureView(name=name, entities=[entity], ttl=ttl, schema=schema, source=source)


def user_activity(sources: Path | Tables) -> FeatureView:
    """A user's events in the last day, week, month and in total, and the mean rating."""
    return feature_view("user_activity", USER, dict.fromkeys(transforms.USER, Float64), sources)


def user_category_affinity(sources: Path | Tables) -> FeatureView:
    """A user's most frequent categories, each with its share of the user's events."""
    fields = {"affinity_categories": Array(String), "affinity_shares": Array(Float32)}
    return feature_view("user_category_affinity", USER, fields, sources)


def user_history(sources: Path | Tables) -> FeatureView:
    """A user's last events, oldest first, and all items the user has seen."""
    fields = {
        "history_items": Array(String), "history_times": Array(Float64), "history_ratings": Array(Float32),
        "seen_items": Array(String),
    }  # fmt: skip
    return feature_view("user_history", USER, fields, sources)


def item_popularity(sources: Path | Tables) -> FeatureView:
    """An item's events in the last day, week, month and in total, its mean rating and its trend."""
    fields = {name: Float64 for name in transforms.ITEM if name not in CONTENT}
    return feature_view("item_popularity", ITEM, fields, sources)


def item_content(sources: Path | Tables) -> FeatureView:
    """Properties of an item that do not depend on events; without a TTL, since each item has one row."""
    return feature_view("item_content", ITEM, dict.fromkeys(CONTENT, Float64), sources, ttl=timedelta(0))


def request_context(*, time_zone: bool) -> OnDemandFeatureView:
    """Hour and weekday of a request, time since the last event, length of the history.

    With a ``time_zone`` hour and weekday are those of the user's clock, whose zone the request gives, too.
    """
    fields = [*(Field(name=name, dtype=Float64) for name in REQUEST_FIELDS)]
    fields += [Field(name=TIME_ZONE, dtype=String)] if time_zone else []

    @on_demand_feature_view(
        sources=[RequestSource(name="request", schema=fields)],
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
            time_zones=[zone or "" for zone in inputs.get("time_zone", ())],
        )
        return {name: values.tolist() for name, values in columns.items()}

    view: OnDemandFeatureView = request_context
    return view
