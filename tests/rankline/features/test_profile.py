"""The declared fields of users and of requests: encoded alike everywhere, and nothing where nothing is known."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from rankline.features import transforms
from rankline.features.profile import ProfileEncoder, ProfileFields, given_values

FIELDS = ProfileFields(
    user={"age": "number", "gender": "choice", "about": "text"}, context={"device": "choice", "tags": "choices"}
)
TRAINING = [
    {"profile_age": 20.0, "profile_gender": "f", "context_device": "phone", "context_tags": ["a", "b"]},
    {"profile_age": 40.0, "profile_gender": "f", "context_device": "desktop", "context_tags": ["a"]},
    {"profile_age": None, "profile_gender": "m", "context_device": "phone", "context_tags": []},
]
ENCODER = ProfileEncoder.fit(FIELDS, TRAINING)


def encoded(profile: dict, context: dict | None = None) -> dict[str, float]:
    """What is not 0 of a request's encoding, by the name of its place."""
    places = ENCODER.input_names(ENCODER.size)
    row = ENCODER.encode([profile], [context or {}])[0]
    assert len(places) == len(row) == ENCODER.size
    return {place: float(value) for place, value in zip(places, row) if value}


def test_a_number_is_standardized_and_known() -> None:
    assert encoded({"age": 40.0}) == {"profile.age": pytest.approx(1.0), "profile.age is known": 1.0}
    assert encoded({"age": 30.0}) == {"profile.age is known": 1.0}  # the mean is not the same as unknown
    assert encoded({"age": 4000.0}) == encoded({"age": 40.0})  # nothing was learnt beyond training's range


@pytest.mark.parametrize("missing", [{}, {"age": None}, {"age": float("nan")}, {"age": "old"}])
def test_an_unknown_number_is_nothing(missing: dict) -> None:
    assert encoded(missing) == {}


def test_a_value_that_training_never_saw_is_another_one() -> None:
    assert encoded({"gender": "f"}) == {"profile.gender=f": 1.0}
    assert encoded({"gender": "x"}) == {"profile.gender is another": 1.0}
    assert encoded({"gender": ""}) == {}


def test_a_list_is_each_of_its_values() -> None:
    assert encoded({}, {"tags": ["b", "new"]}) == {"context.tags=b": 1.0, "context.tags is another": 1.0}
    assert encoded({}, {"tags": []}) == {}


def test_texts_are_left_to_the_encoder() -> None:
    assert encoded({"about": "i climb"}) == {}
    assert ENCODER.text_values({"about": "i climb"}, {}) == ["i climb"]
    assert ENCODER.text_values({}, {}) == [""]


def test_each_input_belongs_to_a_field() -> None:
    owners = ENCODER.owners(text_size=4)
    assert len(owners) == ENCODER.size + 4
    assert [ENCODER.columns[owner].name for owner in owners[-4:]] == ["about"] * 4


def test_each_input_has_a_name() -> None:
    names = ENCODER.input_names(ENCODER.size + 2)
    assert names[:2] == ["profile.age", "profile.age is known"]
    assert names[-2:] == ["profile.about[0]", "profile.about[1]"]
    assert len(set(names)) == ENCODER.size + 2


def test_the_encoding_survives_the_file() -> None:
    assert ProfileEncoder.model_validate_json(ENCODER.model_dump_json()) == ENCODER
    assert ENCODER.fields == FIELDS


def test_values_of_a_row_are_those_that_there_are() -> None:
    row = {"profile_age": float("nan"), "profile_gender": "f", "profile_about": "", "context_device": "phone"}
    assert given_values(row, "profile_") == {"gender": "f"}
    assert given_values(row, "context_") == {"device": "phone"}


def test_each_set_of_fields_has_a_service_of_its_own() -> None:
    sets = [FIELDS, ProfileFields(user={"age": "number"}), ProfileFields(context={"age": "number"})]
    sets.append(ProfileFields(time_zone=True))
    names = {fields.service for fields in sets}
    assert len(names) == len(sets)
    assert all(name.startswith("ranking_v2_") for name in names)
    assert ProfileFields().service == transforms.SERVICE
    # a column that is read in another way keeps the name, and the store refuses it
    assert ProfileFields(user={"age": "choice"}).service == ProfileFields(user={"age": "number"}).service


@pytest.mark.parametrize(
    ("zone", "hour", "weekend"),
    [
        ("", 22, False),
        ("UTC", 22, False),
        ("Europe/Berlin", 0, True),
        ("America/New_York", 18, False),
        ("Asia/Kolkata", 3.5, True),
        ("no zone", 22, False),
    ],
)
def test_hours_and_weekdays_are_those_of_the_users_clock(zone: str, hour: float, weekend: bool) -> None:
    friday = datetime(2024, 7, 5, 22, tzinfo=UTC).timestamp()
    columns = transforms.request_context(
        request_time=np.array([friday]),
        last_event_time=np.array([friday - 3600]),
        history_length=np.array([1]),
        time_zones=[zone],
    )
    assert columns["ctx_hour_sin"][0] == pytest.approx(np.sin(2 * np.pi * hour / 24), abs=1e-9)
    assert columns["ctx_hour_cos"][0] == pytest.approx(np.cos(2 * np.pi * hour / 24), abs=1e-9)
    assert bool(columns["ctx_weekend"][0]) == weekend
    assert columns["ctx_log_hours_since_last"][0] == pytest.approx(np.log1p(1.0))


def test_a_clock_follows_its_changes() -> None:
    """Berlin is one hour ahead of UTC in winter, two in summer."""
    times = np.array([datetime(2024, month, 1, tzinfo=UTC).timestamp() for month in (1, 7)])
    assert transforms.utc_offsets(times, ["Europe/Berlin"] * 2).tolist() == [3600.0, 7200.0]
