"""Features that nothing declares are refused before anything runs, and the service is known from the recipe."""

from __future__ import annotations

import pytest

from pipelines.declared_features import recipe_service
from pipelines.recipes import named
from rankline.errors import UsageError
from rankline.features.profile import ProfileFields
from rankline.features.transforms import SERVICE

SHOP = ['ingest.columns.user_attributes=["profile.gender"]', 'ingest.columns.event_numbers=["holiday"]']


def test_declared_columns_may_be_features_by_the_names_they_are_stored_under() -> None:
    settings = [*SHOP, 'featurize.user_features=["gender"]', 'featurize.context_features=["holiday"]']
    fields = ProfileFields(user={"gender": "choice"}, context={"holiday": "number"})
    assert recipe_service(named("shop", settings)) == fields.service
    assert recipe_service(named("shop", SHOP)) == recipe_service(named("movielens")) == SERVICE


def test_a_time_zone_makes_another_service() -> None:
    recipe = named("shop", ["ingest.columns.user_time_zone=zone"])
    assert recipe_service(recipe) == ProfileFields(time_zone=True).service


@pytest.mark.parametrize(
    ("setting", "name", "expected"),
    [
        ('featurize.user_features=["age"]', "age", "gender"),
        ('featurize.user_features=["profile.gender"]', "profile.gender", "gender"),
        ('featurize.user_features=["holiday"]', "holiday", "gender"),
        ('featurize.context_features=["gender"]', "gender", "holiday"),
        ('featurize.context_features=["Holiday"]', "Holiday", "holiday"),
    ],
)
def test_what_is_not_declared_is_refused(setting: str, name: str, expected: str) -> None:
    with pytest.raises(UsageError) as refused:
        named("shop", [*SHOP, setting])
    assert (refused.value.found, refused.value.expected) == (name, expected)
    assert setting.partition("=")[0] in refused.value.message


@pytest.mark.parametrize("names", ['["gender", "gender"]', '["gen:der"]'])
def test_names_that_cannot_be_features_are_refused(names: str) -> None:
    with pytest.raises(UsageError):
        named("shop", [*SHOP, f"featurize.user_features={names}"])


def test_a_column_of_texts_or_zones_is_not_another_column_too() -> None:
    with pytest.raises(UsageError):
        named("shop", ['ingest.columns.user_texts=["a.x"]', 'ingest.columns.user_numbers=["x"]'])
    with pytest.raises(UsageError):
        named("shop", ["ingest.columns.user_time_zone=zone", 'ingest.columns.user_texts=["time_zone"]'])
