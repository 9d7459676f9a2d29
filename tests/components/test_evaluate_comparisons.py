"""Which requests are compared, and with which system."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from components.evaluate.baselines.items import TrainingItems
from components.evaluate.comparisons import COUNT, CatalogueFacts, compare, item_changes
from components.evaluate.replay import ReplayRequest
from rankline.contracts import FrozenState, History
from rankline.evaluation.snapshot_requests import SnapshotRequest
from rankline.model.scoring import feature_names
from tests.serving.tiny_bundle import make_bundle

IDS = ["a", "b", "c"]
ITEMS: dict[str, Any] = {"a": {"title": "A\n film", "category": ["x"], "language": "en"}, "b": {"title": None}, "c": {}}
TRAINING = TrainingItems(IDS, {item: row for row, item in enumerate(IDS)}, np.array([3, 0, 1], np.float32))


def request(n: int, *, query: str | None = None) -> ReplayRequest:
    columns = {"item_id": ["a", "b"], "item_events_7d": [2.0, None], "item_trend": [float("nan"), 0.5], "other": [1, 1]}
    state = FrozenState(at=1.0, history=History(item_ids=["b"] * 30, times=[0.0] * 30, ratings=[0.0] * 30))
    asked = SnapshotRequest(f"r{n:03}", None if query else f"u{n}", query, state, ["a"], [0.0])
    return ReplayRequest(asked, orjson.dumps(columns))


def compared(**scores: list[float]) -> Any:
    count = len(scores["candidate"])
    facts = CatalogueFacts(ITEMS, TRAINING, feature_names())
    by_system = {name: {"ndcg@10": np.array(values)} for name, values in scores.items()}
    ranked = {name: [["a", "b"]] * count for name in scores}
    return compare([request(n) for n in range(count)], ranked, by_system, facts, metric="ndcg@10")


@pytest.mark.parametrize(
    ("scores", "other"),
    [
        ({"champion": [0.9], "popularity": [0.1]}, "champion"),
        ({"popularity": [0.1], "bm25": [0.2], "teacher": [0.9], "anchor": [0.8], "source_towers": [0.7]}, "bm25"),
        ({"popularity": [0.1], "untuned_encoder": [0.7], "control_words": [0.8]}, "untuned_encoder"),
        ({"teacher": [0.9]}, None),
    ],
)
def test_the_other_system_is_the_champion_or_the_strongest_baseline(scores: Any, other: str | None) -> None:
    both = compared(candidate=[0.5], **scores)
    assert (both.other if both else None) == other


def test_wins_and_losses_are_the_biggest_and_equal_requests_are_neither() -> None:
    gains = [0.0, 0.2, 0.5, -0.1, 0.5, -0.4]
    both = compared(candidate=[0.5 + gain for gain in gains], champion=[0.5] * len(gains))
    assert [each.request_id for each in both.wins] == ["r002", "r004", "r001"]
    assert [each.request_id for each in both.losses] == ["r005", "r003"]
    assert (both.better, both.worse, both.requests) == (3, 2, 6)


def test_there_are_at_most_twenty_and_texts_are_short() -> None:
    both = compared(candidate=[1.0] * 50, champion=[0.0] * 50)
    assert (len(both.wins), len(both.losses)) == (COUNT, 0)
    first = both.wins[0]
    assert (len(first.history), first.history_length) == (20, 30)
    assert first.targets == ["A film"]  # in one line
    assert [item.title for item in first.candidate] == ["A film", "b"]  # without a title, the id


def test_features_are_numbers_that_the_scorer_reads_and_zeros_are_left_out() -> None:
    first, second = compared(candidate=[1.0], champion=[0.0]).wins[0].candidate
    assert first.features == {"item_events_7d": 2.0, "training events": 3.0}
    assert second.features == {"item_trend": 0.5}


def test_items_that_came_and_went_are_counted_and_named(tmp_path: Any) -> None:
    champion = make_bundle(tmp_path / "champion", items=2)  # i0, i1
    items = {"i1": {"title": "one"}, "a": {"title": "A\nB", "language": "en"}, "b": {"language": "de"}}
    changes = item_changes(items, TRAINING, champion)
    assert (changes["count"], changes["new"], changes["gone"]) == (3, 2, 1)
    assert (changes["new_titles"], changes["gone_ids"]) == (["A B", "b"], ["i0"])
    assert changes["languages"] == {"de": 1, "en": 1, "unknown": 1}
    assert "new" not in item_changes(items, TRAINING, None)
