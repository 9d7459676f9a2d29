"""All definitions: entities, feature views and feature services."""

from pathlib import Path
from typing import Any

from feature_repo.entities import ITEM, USER
from feature_repo.item import item_content, item_popularity
from feature_repo.request import request_context
from feature_repo.services import history_v1, ranking_v1
from feature_repo.sources import Tables
from feature_repo.user import user_activity, user_category_affinity, user_history

# Feature views that featurize computes, each with a source file of its name.
VIEWS = ("user_activity", "user_category_affinity", "item_popularity", "item_content", "user_history")


def definitions(sources: Path | Tables) -> list[Any]:
    """Entities, views and services over ``sources``/<view>.parquet or tables, for `FeatureStore.apply`."""
    history = user_history(sources)
    ranking: list[Any] = [
        user_activity(sources),
        user_category_affinity(sources),
        item_popularity(sources),
        item_content(sources),
        request_context(),
    ]
    return [USER, ITEM, *ranking, history, ranking_v1(*ranking), history_v1(history)]
