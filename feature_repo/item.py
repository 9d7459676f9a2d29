"""Feature views of items."""

from datetime import timedelta
from pathlib import Path

from feast import FeatureView, Field
from feast.types import Float64

from feature_repo.entities import ITEM
from feature_repo.sources import TTL, Tables, batch_source
from rankline.features import transforms

CONTENT = ("item_price", "item_text_length", "item_category_count")


def item_popularity(sources: Path | Tables) -> FeatureView:
    """An item's events in the last day, week, month and in total, its mean rating and its trend."""
    return FeatureView(
        name="item_popularity",
        entities=[ITEM],
        ttl=TTL,
        schema=[Field(name=name, dtype=Float64) for name in transforms.ITEM if name not in CONTENT],
        source=batch_source(sources, "item_popularity"),
    )


def item_content(sources: Path | Tables) -> FeatureView:
    """Properties of an item that do not depend on events; without a TTL, since each item has one row."""
    return FeatureView(
        name="item_content",
        entities=[ITEM],
        ttl=timedelta(0),
        schema=[Field(name=name, dtype=Float64) for name in CONTENT],
        source=batch_source(sources, "item_content"),
    )
