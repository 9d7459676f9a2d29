"""Validate with labels of any name: their scales, the share of positives, and what moved since the last run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.validate.config import ValidateConfig
from components.validate.step import validate
from rankline.errors import ValidationFailed
from tests.components.labelled_log import ingest_log

pytestmark = pytest.mark.integration

LABELS = {"click": {}, "stars": {"type": "graded", "scale": (1, 10), "at_least": 6}, "seconds": {"type": "continuous"}}
MAPPED = {name: name for name in LABELS}


def rows(count: int = 40, **values: Any) -> list[dict[str, Any]]:
    """Events, of which every second one is clicked; ``values`` are the same in all."""
    return [
        {
            "user": f"u{n % 5}",
            "item": f"i{n % 8}",
            "at": 1_700_000_000 + n,
            "click": n % 2,
            "stars": 1 + n % 10,
            "seconds": n / 2,
            **values,
        }
        for n in range(count)
    ]


def raw_of(folder: Path, log: Sequence[dict[str, Any]], labels: dict[str, Any] | None = None) -> Path:
    labels = LABELS if labels is None else labels
    mapped = {name: name for name in labels} or {"rating": "stars"}
    return ingest_log(folder, log, {"labels": mapped}, labels)


def check(folder: Path, raw: Path, *, previous: Path | None = None, **settings: Any) -> list[str]:
    """The warnings of validate."""
    config = ValidateConfig(min_described_share=0, **settings)
    result = validate(raw, folder / "clean", folder / "report", config=config, previous=previous)
    return list(result["warnings"])


def replace_column(raw: Path, name: str, values: Any) -> None:
    """Write the events with another column."""
    events = pq.read_table(raw / "events.parquet")
    place = events.column_names.index(name)
    pq.write_table(events.set_column(place, name, values), raw / "events.parquet")


def test_labels_on_their_scales_pass(tmp_path: Path) -> None:
    assert check(tmp_path, raw_of(tmp_path, rows())) == []


@pytest.mark.parametrize(
    ("value", "labels", "setting"),
    [
        ({"stars": 11}, LABELS, "ingest.labels.stars.scale=[LOW, HIGH]"),
        ({"click": 3}, LABELS, "ingest.labels.click.type=count"),
        ({"seconds": -1}, {**LABELS, "seconds": {"type": "count"}}, "ingest.labels.seconds.scale=[LOW, HIGH]"),
        ({"stars": 8}, {}, "validate.scales.rating=[LOW, HIGH]"),
    ],
)
def test_a_value_beyond_its_scale_stops_the_run_and_names_the_setting(
    tmp_path: Path, value: dict[str, Any], labels: dict[str, Any], setting: str
) -> None:
    raw = raw_of(tmp_path, [*rows(), *rows(1, **value, user="other")], labels)
    with pytest.raises(ValidationFailed) as stopped:
        check(tmp_path, raw)
    assert setting in (stopped.value.hint or "")


@pytest.mark.parametrize(
    ("feedback", "sentence"), [(0.0, "some event is a positive"), (-1.0, "no feedback is below 0")]
)
def test_feedback_without_positives_or_below_0_is_critical(tmp_path: Path, feedback: float, sentence: str) -> None:
    raw = raw_of(tmp_path, rows())
    replace_column(raw, "feedback", pa.array([feedback] * 40, pa.float64()))
    with pytest.raises(ValidationFailed, match=sentence):
        check(tmp_path, raw)


def test_a_label_of_another_type_is_critical(tmp_path: Path) -> None:
    raw = raw_of(tmp_path, rows())
    replace_column(raw, "seconds", pa.array(["1"] * 40))
    with pytest.raises(ValidationFailed, match="every column is present with its type"):
        check(tmp_path, raw)


def test_few_positives_and_many_events_without_a_label_are_warnings(tmp_path: Path) -> None:
    log = rows()
    for row in log[2:]:
        row["click"] = "" if row["at"] % 3 else 0
    raw = raw_of(tmp_path, log, {"click": {}})

    warnings = check(tmp_path, raw, min_positive_share=0.1)
    assert [each.split(":")[1].strip() for each in warnings] == [
        "at least 10.00% of the events are positives",
        "labels make at most 50% of the events neither positive nor negative",
    ]
    assert check(tmp_path / "b", raw, max_unused_share=0.9) == []


def test_labels_and_feedback_that_moved_are_reported(tmp_path: Path) -> None:
    labels = {
        **LABELS,
        "stars": {"type": "graded", "scale": (1, 10), "weight": 0},
        "seconds": {"type": "count", "weight": 0},
    }
    check(tmp_path / "a", raw_of(tmp_path / "a", rows(), labels))
    moved = [{**row, "seconds": row["seconds"] * 10, "click": int(n % 4 == 0)} for n, row in enumerate(rows())]
    raw = raw_of(tmp_path / "b", moved, labels)

    warnings = " ".join(check(tmp_path / "b", raw, previous=tmp_path / "a/clean/profile.json"))
    assert "the values of seconds moved" in warnings
    assert "the values of click moved" in warnings
    assert "the values of feedback moved" in warnings
    assert "the values of stars moved" not in warnings


def test_what_happens_at_the_same_time_is_no_duplicate_if_its_label_differs(tmp_path: Path) -> None:
    one = {"user": "u", "item": "i", "at": 1_700_000_000}
    log = [{**one, "kind": kind} for kind in ("view", "click", "order")]
    columns = {
        "labels": {},
        "event_type": "kind",
        "event_types": {"view": "impression", "click": "click", "order": "purchase"},
    }
    raw = ingest_log(tmp_path, log, columns)
    assert pq.read_table(raw / "events.parquet").num_rows == 3
    assert not any("duplicate" in each for each in check(tmp_path, raw))

    events = pq.read_table(raw / "events.parquet")
    again = events.slice(2).set_column(0, events.schema.field("event_id"), pa.array(["again"]))
    pq.write_table(pa.concat_tables([events, again]), raw / "events.parquet")
    with pytest.raises(ValidationFailed, match="no event is a duplicate"):
        check(tmp_path / "again", raw)
