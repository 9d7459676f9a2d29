"""Requests in words: which become requests, how they are split, and what they carry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from components.featurize import queries as asking
from components.featurize.config import FeaturizeConfig
from components.featurize.step import featurize
from rankline.contracts import FrozenState
from rankline.errors import TooSmall, ValidationFailed
from rankline.evaluation import snapshot_requests
from rankline.features import transforms
from rankline.model.scoring import context_features
from tests.components.asked_world import INSTANT, events, queries, write_asked

RELEVANCE, SPLIT = pa.field("relevance", pa.float64()), pa.field("split", pa.string())


def requests(folder: Path, **settings: Any) -> list[dict[str, Any]]:
    """The requests that the queries of a clean folder become."""
    config = FeaturizeConfig(**settings)
    with duckdb.connect() as db:
        worded = asking.requests(db, folder, asking.query_texts(folder, turns=config.turns), config)
    table_rows = worded.request_table.table.to_pylist()
    assert table_rows
    return table_rows


@pytest.fixture(scope="module")
def created(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asked")
    featurize(write_asked(folder / "clean"), folder / "features", config=FeaturizeConfig())
    return folder / "features"


def test_every_query_is_a_request_without_a_user(created: Path) -> None:
    rows = parquet.read_table(created / "requests.parquet").to_pylist()
    assert {row["query_id"]: row["query"] for row in rows} == {q["query_id"]: q["text"] for q in queries()}
    assert all(row["user_id"] is None and not row["history_items"] and not row["seen"] for row in rows)
    assert all(row["targets"] == [row["query_id"].partition(":")[0]] for row in rows)
    assert {row["split"] for row in rows} == {"train", "valid", "test"}


def test_it_is_frozen_with_the_context_of_its_moment_and_the_items_of_its_day(created: Path) -> None:
    (first, *_), stated = (
        list(snapshot_requests.read_snapshot_requests(created, "test")),
        parquet.read_table(created / "requests.parquet"),
    )
    assert first.query
    assert first.user_id is None
    row = next(row for row in stated.to_pylist() if row["request_id"] == first.request_id)
    expected = context_features(FrozenState(at=INSTANT.timestamp()))
    assert {name: row[name] for name in transforms.CONTEXT} == pytest.approx(expected)
    assert len(first.state.item_features["item_id"]) == 48
    # its own answer was not known before it was asked
    assert not any(first.state.item_features["item_events_total"])


def test_the_same_words_are_never_in_two_splits(tmp_path: Path) -> None:
    entity_rows = [{**query, "text": f"Same  words {n // 4}"} for n, query in enumerate(queries())]
    rows = requests(write_asked(tmp_path / "clean", asked=entity_rows))
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["query"], set()).add(row["split"])
    assert all(len(each) == 1 for each in splits.values())
    assert len({split for each in splits.values() for split in each}) == 3


def test_a_source_that_is_split_stays_so_and_gives_up_a_part_for_choosing_by(tmp_path: Path) -> None:
    result = [{**event, "split": "test" if n % 5 == 0 else "train"} for n, event in enumerate(events())]
    rows = requests(write_asked(tmp_path / "clean", answered=result, columns=(SPLIT,)))
    place = {event["query_id"]: event["split"] for event in result}
    assert all((row["split"] == "test") == (place[row["query_id"]] == "test") for row in rows)
    valid = [row for row in rows if row["split"] == "valid"]
    train = [row for row in rows if row["split"] == "train"]
    assert len(valid) == pytest.approx(min(50, (len(valid) + len(train)) / 4), abs=1)


def test_a_split_that_there_is_not_is_refused(tmp_path: Path) -> None:
    folder = write_asked(tmp_path / "clean", answered=events(split="holdout"), columns=(SPLIT,))
    with pytest.raises(ValidationFailed, match="holdout"):
        requests(folder)
    assert len(requests(write_asked(tmp_path / "b" / "clean"), query_split="random")) == 192


def test_by_time_the_later_queries_are_tested_on(tmp_path: Path) -> None:
    from datetime import timedelta

    result = [{**event, "event_timestamp": INSTANT + timedelta(hours=n)} for n, event in enumerate(events())]
    result = [{**event, "known_at": event["event_timestamp"]} for event in result]
    rows = requests(write_asked(tmp_path / "clean", answered=result), query_split="time")
    latest = {split: max(row["at"] for row in rows if row["split"] == split) for split in ("train", "valid", "test")}
    earliest = {split: min(row["at"] for row in rows if row["split"] == split) for split in ("train", "valid", "test")}
    assert latest["train"] < earliest["valid"]
    assert latest["valid"] < earliest["test"]


def test_judgments_of_no_relevance_are_no_answers_and_the_best_come_first(tmp_path: Path) -> None:
    base = events()[0]
    result = [
        {**base, "event_id": str(n), "item_id": item, "relevance": grade}
        for n, (item, grade) in enumerate([("red-kettle", 1.0), ("blue-kettle", 0.0), ("red-lamp", 2.0)])
    ]
    result += [{**event, "relevance": 1.0} for event in events()[4:]]
    rows = requests(write_asked(tmp_path / "clean", answered=result, columns=(RELEVANCE,)))
    assert next(row for row in rows if row["query_id"] == base["query_id"])["targets"] == ["red-lamp", "red-kettle"]


def test_of_a_conversation_the_last_turns_are_read_newest_first(tmp_path: Path) -> None:
    entity_rows = [{"query_id": q["query_id"], "turns": ["hi", "hello", q["text"], f"now {n}"]}
             for n, q in enumerate(queries())]  # fmt: skip
    rows = requests(write_asked(tmp_path / "clean", asked=entity_rows), turns=2)
    assert all(row["query"].startswith("now ") and row["query"].count("\n") == 1 for row in rows)


def test_a_query_without_words_is_refused(tmp_path: Path) -> None:
    entity_rows = [{**query, "text": None} if n == 7 else query for n, query in enumerate(queries())]
    with pytest.raises(ValidationFailed, match="without words"):
        requests(write_asked(tmp_path / "clean", asked=entity_rows))


def test_too_few_queries_are_refused(tmp_path: Path) -> None:
    folder = write_asked(tmp_path / "clean", answered=events()[:6])
    with pytest.raises(TooSmall, match="too small"):
        featurize(folder, tmp_path / "features", config=FeaturizeConfig())
