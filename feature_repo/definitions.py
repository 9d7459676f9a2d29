"""All definitions: entities, feature views and feature services."""

from pathlib import Path
from typing import Any

from feature_repo.entities import ITEM, USER
from feature_repo.item import item_content, item_popularity
from feature_repo.profile import USER_PROFILE, local_request_context, request_fields, user_profile
from feature_repo.request import request_context
from feature_repo.services import history_v1, ranking
from feature_repo.sources import Tables
from feature_repo.user import user_activity, user_category_affinity, user_history
from rankline.features.profile import ProfileFields

# Feature views that featurize computes, each with a source file of its name.
VIEWS = ("user_activity", "user_category_affinity", "item_popularity", "item_content", "user_history")


def view_names(fields: ProfileFields) -> list[str]:
    """The views that have a source file, with the declared fields of users where there are any."""
    return [*VIEWS, *([USER_PROFILE] if has_profiles(fields) else [])]


def has_profiles(fields: ProfileFields) -> bool:
    """Whether users have declared fields, or a clock."""
    return bool(fields.user or fields.time_zone)


def definitions(sources: Path | Tables, fields: ProfileFields = ProfileFields()) -> list[Any]:  # noqa: B008 (frozen)
    """Entities, views and services over ``sources``/<view>.parquet or tables, for `FeatureStore.apply`."""
    history = user_history(sources)
    views: list[Any] = [
        user_activity(sources),
        user_category_affinity(sources),
        item_popularity(sources),
        item_content(sources),
        local_request_context() if fields.time_zone else request_context(),
    ]
    if has_profiles(fields):
        views.append(user_profile(sources, fields))
    if fields.context:
        views.append(request_fields(fields))
    return [USER, ITEM, *views, history, ranking(fields.service, *views), history_v1(history)]
