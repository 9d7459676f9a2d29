"""Feature views of users."""

from pathlib import Path

from feast import FeatureView, Field
from feast.types import Array, Float32, Float64, String

from feature_repo.entities import USER
from feature_repo.sources import TTL, Tables, batch_source, user_events_push
from rankline.features import transforms


def user_activity(sources: Path | Tables) -> FeatureView:
    """A user's events in the last day, week, month and in total, and the mean rating."""
    return FeatureView(
        name="user_activity",
        entities=[USER],
        ttl=TTL,
        schema=[Field(name=name, dtype=Float64) for name in transforms.USER],
        source=batch_source(sources, "user_activity"),
    )


def user_category_affinity(sources: Path | Tables) -> FeatureView:
    """A user's most frequent categories, each with its share of the user's events."""
    return FeatureView(
        name="user_category_affinity",
        entities=[USER],
        ttl=TTL,
        schema=[
            Field(name="affinity_categories", dtype=Array(String)),
            Field(name="affinity_shares", dtype=Array(Float32)),
        ],
        source=batch_source(sources, "user_category_affinity"),
    )


def user_history(sources: Path | Tables) -> FeatureView:
    """A user's last events, oldest first, and all items the user has seen."""
    return FeatureView(
        name="user_history",
        entities=[USER],
        ttl=TTL,
        schema=[
            Field(name="history_items", dtype=Array(String)),
            Field(name="history_times", dtype=Array(Float64)),
            Field(name="history_ratings", dtype=Array(Float32)),
            Field(name="seen_items", dtype=Array(String)),
        ],
        source=user_events_push(sources),
    )
