"""What is known of an item."""

from datetime import timedelta
from pathlib import Path

from feast import FeatureView, Field
from feast.types import Float64

from feature_repo.entities import ITEM
from feature_repo.sources import TTL, Tables, batch_source
from rankline.features import transforms

CONTENT = ("item_price", "item_text_length", "item_category_count")


def item_popularity(sources: Path | Tables) -> FeatureView:
    """How often an item was wanted in the last day, week, month and in all, its ratings, its trend."""
    return FeatureView(
        name="item_popularity",
        entities=[ITEM],
        ttl=TTL,
        schema=[Field(name=name, dtype=Float64) for name in transforms.ITEM if name not in CONTENT],
        source=batch_source(sources, "item_popularity"),
    )


def item_content(sources: Path | Tables) -> FeatureView:
    """What an item is, whoever wants it; one row an item, so it never grows too old."""
    return FeatureView(
        name="item_content",
        entities=[ITEM],
        ttl=timedelta(0),
        schema=[Field(name=name, dtype=Float64) for name in CONTENT],
        source=batch_source(sources, "item_content"),
    )
