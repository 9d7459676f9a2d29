"""Ingest of labels: which events are positives, negatives, or neither."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankline.errors import SourceError
from tests.components.labelled_log import events, ingest_log, summary

KINDS = {"labels": {}, "event_type": "kind"}


def rows(name: str, values: list[Any]) -> list[dict[str, Any]]:
    """One event per value, each of its own user, item and second."""
    return [{"user": f"u{n}", "item": f"i{n}", "at": 1_700_000_000 + n, name: value} for n, value in enumerate(values)]


def feedback(raw: Path) -> list[float | None]:
    return [event["feedback"] for event in events(raw)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "0", ""], [1, 0, None]),
        (["true", "False", ""], [1, 0, None]),
        (["yes", "no", None], [1, 0, None]),
        (["t", "F", ""], [1, 0, None]),
    ],
)
@pytest.mark.parametrize("declared", [{}, {"click": {}}])
def test_a_click_is_a_positive_and_its_absence_a_negative(
    tmp_path: Path, values: list[str], expected: list[float | None], declared: dict[str, Any]
) -> None:
    raw = ingest_log(tmp_path, rows("clicked", values), {"labels": {"click": "clicked"}}, declared)

    assert feedback(raw) == [event["click"] for event in events(raw)] == expected
    counts = summary(raw)["feedback"]
    assert (counts["positives"], counts["negatives"], counts["neither"]) == (1, 1, 1)


def test_types_of_event_are_labels_impressions_or_kept_out_of_learning(tmp_path: Path) -> None:
    kinds = ["view", "click", "order", "scroll", "ping", "return"]
    labels = {
        "click": {},
        "purchase": {"weight": 5, "after": "click"},
        "hover": {"weight": 0},
        "returned": {"weight": -1},
    }
    types = {
        "view": "impression", "click": "click", "order": "purchase", "scroll": "hover", "ping": "",
        "return": "returned",
    }  # fmt: skip
    raw = ingest_log(tmp_path, rows("kind", kinds), {**KINDS, "event_types": types}, labels)

    assert feedback(raw) == [0, 1, 5, None, None, 0]
    assert [event["purchase"] for event in events(raw)] == [0, 0, 1, None, None, 0]
    assert [event["hover"] for event in events(raw)] == [0, 0, 0, 1, None, 0]
    counts = summary(raw)["feedback"]
    assert counts["event_types"]["ping"] == {"positives": 0, "negatives": 0, "neither": 1}
    assert counts["event_types"]["view"] == {"positives": 0, "negatives": 1, "neither": 0}
    assert counts["labels"]["purchase"] == {"count": 1, "do_not": 3, "unknown": 2, "low": 0, "high": 1}
    assert "event_type_as_written" not in events(raw)[0]


def test_types_without_declared_labels(tmp_path: Path) -> None:
    types = {"shown": "impression", "buy": "purchase", "open": "click", "ping": ""}
    raw = ingest_log(tmp_path, rows("kind", ["shown", "buy", "open", "ping"]), {**KINDS, "event_types": types})

    assert feedback(raw) == [0, 1, 1, None]
    assert summary(raw)["labels"] == ["click", "purchase"]


def test_a_dislike_beside_a_like_is_a_negative(tmp_path: Path) -> None:
    log = [
        {**row, "disliked": no} for row, no in zip(rows("liked", ["1", "1", "0", "", ""]), ["0", "1", "1", "1", "0"])
    ]
    labels = {"like": {"weight": 2}, "dislike": {"weight": -1}}
    raw = ingest_log(tmp_path, log, {"labels": {"like": "liked", "dislike": "disliked"}}, labels)

    assert feedback(raw) == [2, 0, 0, 0, None]


@pytest.mark.parametrize(
    ("label", "values", "expected", "limit", "scale"),
    [
        ({"type": "graded", "at_least": 3.5, "scale": (0.5, 5)}, ["0.5", "3.5", "5"], [0, 3.5, 5], 3.5, [0.5, 5]),
        ({"type": "graded", "at_least": 70}, ["0", "69.9", "100"], [0, 0, 100], 70, [0, 100]),
        ({"type": "graded", "at_quantile": 0.5}, ["1", "4", "7", "10"], [0, 4, 7, 10], 4, [1, 10]),
        ({"type": "graded"}, ["-1", "0", "4"], [0, 0, 4], None, [-1, 4]),
        ({"type": "graded", "at_least": -1}, ["-2", "-1", "0", "1"], [0, 1, 2, 3], -1, [-2, 1]),
        ({"type": "graded", "weight": 0.5}, ["1", "2"], [0.5, 1], None, [1, 2]),
        ({"type": "continuous", "at_quantile": 0.75}, ["3", "30", "300", "5"], [0, 1, 1, 0], 30, None),
        ({"type": "count", "weight": 3}, ["0", "2", ""], [0, 3, None], None, None),
    ],
)  # fmt: skip
def test_what_counts_is_at_least_a_value_or_a_quantile(
    tmp_path: Path, label: dict[str, Any], values: list[str], expected: list[float], limit: float, scale: list[float]
) -> None:
    raw = ingest_log(tmp_path, rows("value", values), {"labels": {"grade": "value"}}, {"grade": label})

    assert feedback(raw) == expected
    reported = summary(raw)["labels"]["grade"]
    assert (reported["at_least"], reported["at_quantile"], reported["scale"]) == (limit, None, scale)


def test_requests_and_positions_are_kept(tmp_path: Path) -> None:
    log = [
        {**row, "page": page, "slot": slot}
        for row, page, slot in zip(rows("c", [1, 0, 0]), ["p1", "p1", "nan"], [0, 1, ""])
    ]
    columns = {"labels": {"click": "c"}, "request_id": "page", "position": "slot"}
    raw = ingest_log(tmp_path, log, columns)

    assert [(event["request_id"], event["position"]) for event in events(raw)] == [("p1", 1), ("p1", 2), (None, None)]
    assert pq.read_schema(raw / "events.parquet").field("position").type == pa.int32()
    # a log that counts from 1 stays, and so does one without labels, which has no requests
    raw = ingest_log(tmp_path / "b", [{**row, "slot": int(row["slot"] or 0) + 1} for row in log], columns)
    assert [event["position"] for event in events(raw)] == [1, 2, 1]
    raw = ingest_log(tmp_path / "c", log, {**columns, "labels": {"rating": "c"}})
    assert not {"request_id", "position", "feedback"} & events(raw)[0].keys()


def test_the_same_item_at_the_same_time_is_one_event_per_label_and_request(tmp_path: Path) -> None:
    one = {"user": "u", "item": "i", "at": 1_700_000_000}
    log = [
        {**one, "c": 0, "page": "p"},
        {**one, "c": 1, "page": "p"},
        {**one, "c": 0, "page": "q"},
        {**one, "c": 0, "page": "p"},
    ]
    raw = ingest_log(tmp_path, [*log, *rows("c", [1] * 30)], {"labels": {"click": "c"}, "request_id": "page"})

    labels = [(each["click"], each["request_id"]) for each in events(raw) if each["user_id"] == "u"]
    assert labels == [(0, "p"), (1, "p"), (0, "q")]
    assert summary(raw)["rejected"]["events"] == {"duplicate event": 1}


@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        (["0", "0"], {}, "no event is a positive"),
        (["0", "0"], {"click": {}}, "no event is a positive"),
        (["", ""], {"click": {}}, "no event is a positive"),
        (["1", "3"], {"click": {"type": "graded", "at_least": 4}}, "no event is a positive"),
        (["1", "1", "2"], {"click": {"type": "graded", "at_quantile": 0.5}}, "every value of the label click counts"),
    ],
)
def test_a_log_without_a_positive_is_refused(
    tmp_path: Path, values: list[str], labels: dict[str, Any], message: str
) -> None:
    with pytest.raises(SourceError, match=message) as refused:
        ingest_log(tmp_path, rows("clicked", values), {"labels": {"click": "clicked"}}, labels)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("label", "values"),
    [
        ({}, ["0", "0"]),
        ({}, ["", ""]),
        ({"weight": 0}, ["1", "1"]),
        ({"weight": -1}, ["", ""]),
        ({"weight": 0, "type": "continuous"}, ["3.5", ""]),
    ],
)
def test_a_declared_label_that_teaches_nothing_is_refused(
    tmp_path: Path, label: dict[str, Any], values: list[str]
) -> None:
    log = [{**row, "other": value} for row, value in zip(rows("clicked", ["1", "0"]), values)]
    columns = {"labels": {"click": "clicked", "other": "other"}}
    with pytest.raises(SourceError, match="nothing can be learnt of the label other"):
        ingest_log(tmp_path, log, columns, {"click": {}, "other": label})


def test_clicks_alone_and_a_rare_complaint_are_enough(tmp_path: Path) -> None:
    log = [{**row, "complaint": 0} for row in rows("clicked", ["1", "1"])]
    columns = {"labels": {"click": "clicked", "complaint": "complaint"}}
    raw = ingest_log(tmp_path, log, columns, {"click": {}, "complaint": {"weight": -1}})
    assert feedback(raw) == [1, 1]


def test_ratings_alone_are_read_as_before(tmp_path: Path) -> None:
    raw = ingest_log(tmp_path, rows("stars", ["1", "5"]), {"labels": {"rating": "stars"}})
    assert "feedback" not in events(raw)[0]
    assert summary(raw)["labels"] == ["rating"]
    assert "feedback" not in summary(raw)
