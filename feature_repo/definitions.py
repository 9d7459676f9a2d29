"""All definitions: entities, feature views and feature services."""

from pathlib import Path
from typing import Any

from feast import FeatureService

from feature_repo.profile import USER_PROFILE, request_fields, user_profile
from feature_repo.sources import Tables
from feature_repo.views import (
    ITEM,
    USER,
    item_content,
    item_popularity,
    request_context,
    user_activity,
    user_category_affinity,
    user_history,
)
from rankline.features.profile import ProfileFields
from rankline.features.transforms import HISTORY_SERVICE

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
        request_context(time_zone=bool(fields.time_zone)),
    ]
    if has_profiles(fields):
        views.append(user_profile(sources, fields))
    if fields.context:
        views.append(request_fields(fields))
    # their names contain the version, and a bundle's manifest names its service: all features of a ranker, and a user's
    # last events and seen items
    services = [
        FeatureService(name=fields.service, features=views),
        FeatureService(name=HISTORY_SERVICE, features=[history]),
    ]
    return [USER, ITEM, *views, history, *services]
