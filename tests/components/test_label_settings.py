"""The settings of labels: which are accepted, and the message of each refusal."""

from typing import Any

import pytest
from pydantic import ValidationError

from components.ingest.config import IngestConfig

CLICK = {"labels": {"click": "clicked"}}
TYPES = {"labels": {}, "event_type": "kind"}


def config(labels: dict[str, Any], columns: dict[str, Any], **more: Any) -> IngestConfig:
    return IngestConfig(source="log", format="tables", labels=labels, columns=columns, **more)


def test_declared_labels_have_any_name_and_a_column_or_a_type() -> None:
    labels = {"share": {}, "dwell_s": {"type": "continuous", "weight": 0}, "returned": {"weight": -1}}
    columns = {
        **TYPES,
        "labels": {"dwell_s": "seconds"},
        "event_types": {"sh": "share", "ret": "returned", "scroll": ""},
    }
    settings = config(labels, columns)

    assert list(settings.effective_labels()) == ["share", "dwell_s", "returned"]
    assert settings.label_columns() == {"dwell_s": "seconds"}
    assert settings.labels["returned"].weight == -1


def test_the_default_column_of_rating_is_no_mapping_where_labels_are_declared() -> None:
    assert config({"click": {}}, {"labels": {"rating": "rating", "click": "clicked"}}).label_columns() == {
        "click": "clicked"
    }
    assert config({}, {}).label_columns() == {"rating": "rating"}


@pytest.mark.parametrize(
    ("columns", "labels"),
    [
        ({"labels": {"rating": "stars"}}, []),
        (CLICK, ["click"]),
        ({**TYPES, "event_types": {"view": "impression", "order": "purchase"}}, ["purchase"]),
        ({"labels": {"relevance": "grade", "rating": "stars"}}, ["relevance"]),
    ],
)
def test_without_declared_labels_their_names_say_what_they_mean(columns: dict[str, Any], labels: list[str]) -> None:
    assert list(config({}, columns).effective_labels()) == labels


def test_judgments_of_a_beir_folder_are_relevance() -> None:
    assert list(IngestConfig(source="set", format="beir").effective_labels()) == ["relevance"]
    assert IngestConfig(source="set", format="beir", labels={"relevance": {"type": "graded"}}).labels


@pytest.mark.parametrize(
    ("labels", "columns", "part"),
    [
        ({"click": {}}, {"labels": {}}, "the label click has no source"),
        ({"click": {}}, {**TYPES, "event_types": {"view": "impression"}}, "the label click has no source"),
        ({"click": {}}, {"labels": {"click": "clicked", "buy": "bought"}}, "to buy, which is not declared"),
        ({"click": {}}, {"labels": {"click": "clicked", "rating": "stars"}}, "to rating, which is not declared"),
        ({"click": {}}, {**TYPES, **CLICK, "event_types": {"b": "buy"}}, "names buy, which is not declared"),
        ({}, {"labels": {"like": "liked"}}, "to like, which is not declared; without ingest.labels"),
        ({}, {**TYPES, "event_types": {"l": "like"}}, "names like, which is not declared"),
        ({"click": {"after": "view"}}, CLICK, "click happens after view, which is not declared"),
        ({"click": {"after": "click"}}, CLICK, "no order of labels fits: click after click"),
        (
            {"a": {"after": "b"}, "b": {"after": "c"}, "c": {"after": "a"}},
            {"labels": {name: name for name in "abc"}},
            "no order of labels fits: a after b after c after a",
        ),
        (
            {"click": {"type": "graded"}, "buy": {"after": "click"}}, {"labels": {"click": "c", "buy": "b"}},
            "buy happens after click, which is graded",
        ),
        ({"returned": {"weight": -1}}, {"labels": {"returned": "back"}}, "no label makes a positive"),
        ({"dwell": {"weight": 0}}, {"labels": {"dwell": "s"}}, "no label makes a positive"),
        ({"item_id": {}}, {"labels": {"item_id": "clicked"}}, "a label cannot be called item_id"),
        ({"Feedback": {}}, {"labels": {"Feedback": "clicked"}}, "a label cannot be called Feedback"),
        ({"rank": {}}, {"labels": {"rank": "clicked"}}, "a label cannot be called rank"),
        ({"add to cart": {}}, {"labels": {"add to cart": "clicked"}}, "letters, digits and underscores"),
        ({"click": {}, "Click": {}}, {"labels": {"click": "a", "Click": "b"}}, "two labels differ in case alone"),
        ({"device": {}}, {"labels": {"device": "d"}, "event_attributes": ["x.device"]}, "another column of events"),
        ({}, {"labels": {}, **{**TYPES, "event_types": {"view": "impression"}}}, "no label makes a positive"),
        ({}, {**CLICK, "event_attributes": ["feedback"]}, "feedback: ingest writes a column of this name"),
        ({}, {**CLICK, "position": "slot", "event_numbers": ["position"]}, "position: ingest writes"),
        ({"r": {"type": "graded", "at_least": 3, "at_quantile": 0.5}}, {"labels": {"r": "r"}}, "keep one"),
        ({"r": {"type": "graded", "scale": (5, 1)}}, {"labels": {"r": "r"}}, "the scale is empty"),
        ({"r": {"scale": (0, 5)}}, {"labels": {"r": "r"}}, "a binary label is 0 or 1"),
        ({"r": {"type": "graded", "scale": (1, 5), "at_least": 6}}, {"labels": {"r": "r"}}, "no value counts"),
    ],
)  # fmt: skip
def test_settings_that_contradict_each_other_are_refused(
    labels: dict[str, Any], columns: dict[str, Any], part: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        config(labels, columns)
    assert part in str(refused.value)


def test_an_event_may_have_a_column_called_position_where_none_is_mapped() -> None:
    assert config({}, {"labels": {}, "event_numbers": ["position"], "event_attributes": ["feedback"]}).columns
