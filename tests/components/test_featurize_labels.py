"""Featurize with labels: what was shown in vain is in no target, history or count, and in what was shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as parquet
import pytest

from components.featurize.config import FeaturizeConfig
from components.featurize.snapshots import load_tables
from components.featurize.step import featurize
from rankline.errors import TooSmall, ValidationFailed
from rankline.train.examples import read_examples
from rankline.train.windows import next_weights, pad_windows
from tests.components.labelled_log import ingest_log

Rows = list[dict[str, Any]]
BEGIN = 1_700_000_000
SHOWN = {f"never{n}" for n in range(8)}  # items that nobody ever clicks
TYPES = {"labels": {}, "event_type": "kind", "event_types": {"view": "impression", "click": "click", "order": "buy"}}
CLICK_AND_BUY = {"click": {}, "buy": {"weight": 5, "after": "click"}}


def visits(*, users: int = 120, visits: int = 7, seed: int = 1) -> list[tuple[str, int, list[str], list[str]]]:
    """(user, time, items clicked, items shown in vain) of every visit: two of each."""
    rng = np.random.default_rng(seed)
    return [
        (
            f"u{user}",
            BEGIN + visit * 86_400 + user * 60,
            [f"i{item}" for item in rng.choice(40, 2, replace=False)],
            [f"never{item}" for item in rng.choice(8, 2, replace=False)],
        )
        for user in range(users)
        for visit in range(visits)
    ]


def by_types(*, with_requests: bool) -> Rows:
    """Impressions, clicks and orders as rows of their own: 1,680 clicks or orders, 1,680 impressions in vain."""
    rows = []
    for user, at, clicked, in_vain in visits():
        events = [("view", item, at + n) for n, item in enumerate([*in_vain, *clicked])]
        events += [("click", item, at + 30 + n) for n, item in enumerate(clicked)]
        events += [("order", clicked[0], at + 50)]
        rows += [
            {"user": user, "item": item, "at": time, "kind": kind, "page": f"{user}-{at}" if with_requests else ""}
            for kind, item, time in events
        ]
    return rows


def by_columns(name: str, positive: Any, negative: Any) -> Rows:
    """A row per item that was shown, with a value that says what happened."""
    return [
        {"user": user, "item": item, "at": at + n, name: positive if item in clicked else negative}
        for user, at, clicked, in_vain in visits()
        for n, item in enumerate([*in_vain, *clicked])
    ]


def logs() -> dict[str, tuple[Callable[[], Rows], dict[str, Any], dict[str, Any]]]:
    """Ways in which a log says that an item was not wanted: its rows, columns and labels."""
    liked = {"labels": {"like": "liked", "dislike": "disliked"}}
    half_stars = {"stars": {"type": "graded", "at_least": 3.5, "scale": (0.5, 5)}}
    cart = {"view": "impression", "add": "cart", "remove": "removed", "ping": ""}

    def dislikes() -> Rows:
        return [
            {**row, "disliked": "" if row["liked"] else "true", "liked": row["liked"] or ""}
            for row in by_columns("liked", "true", None)
        ]

    def click_0_beside_orders() -> Rows:
        return [{**row, "ordered": int(row["item"] == "i3")} for row in by_columns("clicked", 1, 0)]

    def removals() -> Rows:
        rows = by_columns("kind", "add", "add")
        taken_back = [{**row, "at": row["at"] + 100, "kind": "remove"} for row in rows if row["item"] in SHOWN]
        pings = [{**row, "item": "never0", "at": row["at"] + 200, "kind": "ping"} for row in rows[::5]]
        return [*rows, *taken_back, *pings]

    return {
        "types, requests": (
            lambda: by_types(with_requests=True), {**TYPES, "request_id": "page"}, CLICK_AND_BUY),
        "types, no requests": (lambda: by_types(with_requests=False), TYPES, CLICK_AND_BUY),
        "types, nothing declared": (
            lambda: by_types(with_requests=False),
            {**TYPES, "event_types": {"view": "impression", "click": "click", "order": "purchase"}}, {}),
        "dislikes": (dislikes, liked, {"like": {}, "dislike": {"weight": -1}}),
        "removals from the cart": (
            removals, {**TYPES, "event_types": cart}, {"cart": {}, "removed": {"weight": -1}}),
        "click=0 beside orders": (
            click_0_beside_orders, {"labels": {"click": "clicked", "purchase": "ordered"}}, {}),
        "half stars": (lambda: by_columns("stars", 4.5, 1.5), {"labels": {"stars": "stars"}}, half_stars),
        "0 to 100": (
            lambda: by_columns("score", 80, 30), {"labels": {"score": "score"}},
            {"score": {"type": "graded", "at_quantile": 0.6}}),
        "seconds": (
            lambda: by_columns("dwell", 45.5, 1.5), {"labels": {"dwell": "dwell"}},
            {"dwell": {"type": "continuous", "at_least": 10}}),
    }  # fmt: skip


def make(folder: Path, rows: Rows, columns: dict[str, Any], labels: dict[str, Any], **settings: Any) -> Path:
    """The features of a log."""
    raw = ingest_log(folder, rows, columns, labels)
    featurize(raw, folder / "features", config=FeaturizeConfig(history_days=400, check_rows=20, **settings))
    return folder / "features"


def read(features: Path, name: str) -> Rows:
    return list(parquet.read_table(features / f"{name}.parquet").to_pylist())


def summary(features: Path) -> dict[str, Any]:
    return dict(json.loads((features / "summary.json").read_text()))


@pytest.mark.integration
@pytest.mark.parametrize("log", logs())
def test_what_was_shown_in_vain_is_no_event_that_anything_counts(tmp_path: Path, log: str) -> None:
    rows, columns, labels = logs()[log]
    raw = ingest_log(tmp_path, rows(), columns, labels)
    with duckdb.connect() as db:
        load_tables(db, raw)
        counted, shown, rewarded = (
            {item for (item,) in db.sql(query).fetchall()}
            for query in (
                "SELECT DISTINCT item_id FROM events",
                "SELECT DISTINCT item_id FROM exposed WHERE feedback = 0",
                "SELECT DISTINCT item_id FROM exposed WHERE feedback > 0",
            )
        )
    assert counted == rewarded == {f"i{n}" for n in range(40)}
    assert shown == SHOWN


@pytest.mark.integration
@pytest.mark.parametrize(
    ("log", "split"),
    [("types, requests", "time_cut"), ("click=0 beside orders", "leave_last_out"), ("half stars", "leave_last_out")],
)
def test_what_was_shown_in_vain_is_nowhere_but_in_what_was_shown(tmp_path: Path, log: str, split: str) -> None:
    rows, columns, labels = logs()[log]
    features = make(tmp_path, rows(), columns, labels, split=split)

    requests = read(features, "requests")
    for name in ("targets", "history_items", "seen"):
        assert not {item for row in requests for item in row[name]} & SHOWN
    assert not {item for row in read(features, "sequences") for item in row["item_ids"]} & SHOWN
    popular = {row["item_id"]: row["item_events_total"] for row in read(features, "feast/sources/item_popularity")}
    assert not popular.keys() & SHOWN
    history = read(features, "feast/sources/user_history")
    assert not {item for row in history for name in ("history_items", "seen_items") for item in row[name]} & SHOWN

    shown = [set(row["shown"]) for row in requests]
    assert all(not items & set(row["targets"]) for items, row in zip(shown, requests))
    assert all(len(items) >= 2 and items <= SHOWN for items in shown)
    assert all(len(row["target_weights"]) == len(row["targets"]) for row in requests)
    if labels:
        check_exposures(features, labels)
    else:
        assert "labels" not in summary(features)
        assert not (features / "exposures.parquet").exists()


def check_exposures(features: Path, labels: dict[str, Any]) -> None:
    assert list(summary(features)["labels"]) == list(labels)
    exposures = read(features, "exposures")
    assert {row["split"] for row in exposures} == {row["split"] for row in read(features, "requests")}
    for row in exposures:
        weights = dict(zip(row["items"], row["feedback"]))
        assert set(row["targets"]) == {item for item in row["items"] if weights[item] > 0}
        assert set(row["shown"]) == {item for item in row["items"] if weights[item] == 0}
        assert not {item for item in row["items"] if weights[item] > 0} & SHOWN
        assert all(time < row["at"] for time in row["history_times"])
        assert {len(row[name]) for name in ("items", "positions", *(f"label_{name}" for name in labels))} == {
            len(row["feedback"])
        }
        assert set(row["shown"]) <= SHOWN


def test_one_exposure_has_the_largest_label_of_its_rows(tmp_path: Path) -> None:
    features = make(tmp_path, by_types(with_requests=True), {**TYPES, "request_id": "page"}, CLICK_AND_BUY)

    exposures = read(features, "exposures")
    assert len(exposures) == 120 * 7
    for row in exposures:
        assert len(row["items"]) == len(set(row["items"])) == 4
        assert sorted(row["label_click"]) == [0, 0, 1, 1]
        assert sorted(row["label_buy"]) == [0, 0, 0, 1]
        assert sorted(row["feedback"]) == [0, 0, 1, 5]
        assert row["target_weights"] == [5, 1]
    train = [row for row in read(features, "requests") if row["split"] == "train"]
    assert {weight for row in train for weight in row["target_weights"]} == {1, 5}


@pytest.mark.integration
def test_without_request_ids_what_was_shown_belongs_to_the_positive_that_follows(tmp_path: Path) -> None:
    named = make(tmp_path / "a", by_types(with_requests=True), {**TYPES, "request_id": "page"}, CLICK_AND_BUY)
    unnamed = make(tmp_path / "b", by_types(with_requests=False), TYPES, CLICK_AND_BUY)

    for name in ("exposures", "requests"):
        pairs = zip(read(named, name), read(unnamed, name), strict=True)
        for one, other in pairs:
            assert one["shown"] == other["shown"]
            assert (one["user_id"], one["at"], one["targets"]) == (other["user_id"], other["at"], other["targets"])


@pytest.mark.integration
@pytest.mark.parametrize(("later", "label"), [("return", "returned"), ("order", "buy")])
def test_what_happens_days_later_changes_nothing_before(tmp_path: Path, later: str, label: str) -> None:
    labels = {"click": {}, "buy": {"weight": 5}, "returned": {"weight": -1}}
    types = {"view": "impression", "click": "click", "order": "buy", "return": "returned"}
    columns = {**TYPES, "event_types": types, "request_id": "page"}
    rows = by_types(with_requests=True)
    clicks = [row for row in rows if row["kind"] == "click"]
    rows.append({**clicks[-1], "kind": "return", "at": clicks[-1]["at"] + 60})  # a label has to happen somewhere
    first = clicks[0]
    late = {**first, "kind": later, "at": first["at"] + 5 * 86_400}
    before, after = (
        {
            row["request_id"]: (row["targets"], row["history_items"], row["target_weights"])
            for row in parquet.read_table(make(tmp_path / name, log, columns, labels) / "requests.parquet").to_pylist()
            if row["at"] < late["at"] and row["split"] == "train"
        }
        for name, log in (("a", rows), ("b", [*rows, late]))
    )
    assert before
    assert {request: after[request] for request in before if request in after} == {
        request: value for request, value in before.items() if request in after
    }
    assert len(set(before) - set(after)) <= 1  # of this user, a request later


def all_clicked() -> Rows:
    """Everything that was shown was clicked, and something of it was bought."""
    return [row for row in by_types(with_requests=True) if row["item"] not in SHOWN]


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (all_clicked, {**TYPES, "request_id": "page"}),
        (lambda: [row for row in all_clicked() if row["kind"] != "view"], {**TYPES, "request_id": "page"}),
        (
            lambda: [{**row, "ordered": int(row["item"] < "i2")} for row in by_columns("clicked", 1, 1)],
            {"labels": {"click": "clicked", "buy": "ordered"}},
        ),
    ],
)
def test_a_log_without_negatives_has_no_exposures(
    tmp_path: Path, rows: Callable[[], Rows], columns: dict[str, Any]
) -> None:
    raw = ingest_log(tmp_path, rows(), columns, CLICK_AND_BUY)
    result = featurize(raw, tmp_path / "features", config=FeaturizeConfig(history_days=400))
    assert result["no_chances"].startswith("click: ")
    assert not (tmp_path / "features/exposures.parquet").exists()
    assert read(tmp_path / "features", "requests")


@pytest.mark.parametrize(
    ("value", "parts"), [(1, ("no impression without seen", "seen = 0")), (0, ("no impression with seen", "seen = 1"))]
)
def test_a_label_that_is_the_same_in_every_impression_is_refused(
    tmp_path: Path, value: int, parts: tuple[str, str]
) -> None:
    # of somebody else, who was shown nothing: it belongs to no impression
    other = {"user": "z", "item": "i1", "at": BEGIN, "clicked": "", "seen": 1 - value}
    rows = [{**row, "seen": value} for row in by_columns("clicked", 1, 0)]
    labels = {"click": {}, "seen": {"weight": 0}}
    with pytest.raises(TooSmall) as refused:
        make(tmp_path, [*rows, other], {"labels": {"click": "clicked", "seen": "seen"}}, labels)
    assert parts[0] in refused.value.message
    assert parts[1] in refused.value.hint
    assert "[labels.seen]" in refused.value.hint


def test_dislikes_alone_tell_no_chance_of_a_like(tmp_path: Path) -> None:
    rows, columns, labels = logs()["dislikes"]
    with pytest.raises(TooSmall, match="no impression without like"):
        make(tmp_path, rows(), columns, labels)


@pytest.mark.integration
@pytest.mark.parametrize("page", ["home", "list"])
def test_an_id_that_names_a_page_is_no_request(tmp_path: Path, page: str) -> None:
    rows = [{**row, "page": page} for row in by_types(with_requests=True)]
    with pytest.raises(ValidationFailed, match="used again on other days") as refused:
        make(tmp_path, rows, {**TYPES, "request_id": "page"}, CLICK_AND_BUY)
    assert page in refused.value.found
    assert read(make(tmp_path / "by time", rows, TYPES, CLICK_AND_BUY), "requests")


@pytest.mark.parametrize("split", ["leave_last_out", "time_cut"])
def test_a_quantile_is_that_of_the_training_events(tmp_path: Path, split: str) -> None:
    """Later events have larger values, which would raise the limit of all events."""
    rows = by_columns("dwell", 45.0, 1.5)
    times = sorted(row["at"] for row in rows)
    late = times[int(0.6 * len(times))]
    for row in rows:
        row["dwell"] += row["at"] % 1009 / 100 + 1000 * (row["at"] >= late) * (row["dwell"] > 2)
    labels = {"dwell": {"type": "continuous", "at_quantile": 0.75}}
    features = make(tmp_path, rows, {"labels": {"dwell": "dwell"}}, labels, split=split, min_history=1)
    fitted = summary(features)["labels"]["dwell"]["at_least"]
    before = json.loads((tmp_path / "raw/summary.json").read_text())["labels"]["dwell"]["at_least"]
    held_out = {row["request_id"] for row in read(features, "requests") if row["split"] != "train"}
    assert held_out
    assert fitted < before
    if split == "time_cut":
        cut = summary(features)["split"]["cut"]
        trained = [row["dwell"] for row in rows if row["at"] < datetime.fromisoformat(cut).timestamp()]
        assert sum(value < fitted for value in trained) / len(trained) == pytest.approx(0.75, abs=0.02)


def test_a_quantile_that_every_training_value_reaches_is_refused(tmp_path: Path) -> None:
    rows = by_columns("dwell", 45.0, 45.0)
    late = sorted(row["at"] for row in rows)[int(0.9 * len(rows))]
    rows = [{**row, "dwell": 90.0 if row["at"] >= late else 45.0} for row in rows]
    labels = {"dwell": {"type": "continuous", "at_quantile": 0.91}}
    with pytest.raises(ValidationFailed, match="every value of the label dwell counts in training"):
        make(tmp_path, rows, {"labels": {"dwell": "dwell"}}, labels, split="time_cut")


def test_events_of_users_keep_the_weights_of_their_labels(tmp_path: Path) -> None:
    features = make(tmp_path, by_types(with_requests=True), TYPES, CLICK_AND_BUY)
    sequences = read_examples(features, max_history=20).sequences
    assert {round(float(weight / sequences.weights[0].min())) for each in sequences.weights for weight in each} == {
        1,
        5,
    }
    assert np.concatenate(sequences.weights).mean() == pytest.approx(1, abs=1e-4)
    windows = sequences.windows(np.random.default_rng(1), 20)
    weight_BL, next_BL = next_weights(windows), pad_windows(windows)[2].numpy()
    assert weight_BL is not None
    assert ((weight_BL > 0) == (next_BL >= 0)).all()
    assert weight_BL[0, : len(windows[0][0]) - 1].tolist() == windows[0][2][1:].tolist()
    alike = make(tmp_path / "alike", by_types(with_requests=True), TYPES, {"click": {}, "buy": {}})
    assert read_examples(alike, max_history=20).sequences.weights == []
