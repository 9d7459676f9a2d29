"""Which rows of a log are one exposure, and what an exposure carries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as parquet
import pytest

from components.featurize import interactions, tables
from components.featurize.config import FeaturizeConfig
from components.featurize.snapshots import load_tables
from components.featurize.step import featurize
from components.ingest.config import IngestConfig
from components.ingest.step import ingest
from rankline.features.rating_scale import to_stars
from tests.components.labelled_log import ingest_log
from tests.components.test_featurize_labels import BEGIN, by_columns, make, read

MINUTE = 60
LABELS = {"click": {}, "cart": {"weight": 3}, "removed": {"weight": -1}, "hover": {"weight": 0}}
TYPES = {"view": "impression", "click": "click", "add": "cart", "remove": "removed", "hover": "hover", "ping": ""}
COLUMNS = {"labels": {}, "event_type": "kind", "event_types": TYPES, "request_id": "page"}
# labels have to occur in a log: a visit of somebody else's
OTHERS = "z view x 0 | z view y 0 | z click x 1 | z hover x 1 | z add y 2 | z remove w 3"


def exposures(folder: Path, log: str) -> list[dict[str, float | None]]:
    """Item -> feedback of each exposure of a log: `user kind item minute [request]`, one after the other."""
    rows = []
    for event in f"{log} | {OTHERS}".split(" | "):
        user, kind, item, minute, *page = event.split()
        at = BEGIN + round(float(minute) * MINUTE)
        rows.append({"user": user, "kind": kind, "item": item, "at": at, "page": page[0] if page else ""})
    raw = ingest_log(folder, rows, COLUMNS, LABELS)
    with duckdb.connect() as db:
        load_tables(db, raw, FeaturizeConfig(impression_window_s=30 * MINUTE))
        groups = db.sql(
            """
            SELECT exposure, list(item_id ORDER BY row), list(feedback ORDER BY row) FROM exposed
            WHERE exposure IN (SELECT exposure FROM grouped JOIN logged USING (row) WHERE user_id <> 'z')
            GROUP BY exposure ORDER BY min(row)
            """
        ).fetchall()
    return [dict(zip(items, feedback)) for _, items, feedback in groups]


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("u view a 0 | u view b 0 | u click a 1", [{"a": 1, "b": 0}]),
        ("u view a 0 | u view b 0 | u click a 1 | u click b 2", [{"a": 1, "b": 1}]),
        ("u view a 0 | u click a 1 | u view b 2", [{"a": 1}, {"b": 0}]),
        ("u view a 0 | u click a 1 | u view a 2", [{"a": 1}, {"a": 0}]),
        ("u view a 0 | u view b 0 | u click a 31", [{"a": 0, "b": 0}, {"a": 1}]),
        ("u view a 0 | u view b 5 | u view c 36", [{"a": 0, "b": 0}, {"c": 0}]),
        ("u view a 0 | v view b 0 | u click a 1 | v click b 1", [{"a": 1}, {"b": 1}]),
        # b is clicked after the next page was shown: it was no negative of the first
        ("u view a 0 | u view b 0 | u click a 1 | u view c 2 | u click b 3", [{"a": 1}, {"b": 1, "c": 0}]),
        ("u view a 0 | u click a 1 | u add a 2", [{"a": 3}]),
        ("u add a 0 | u remove a 5 | u add b 6", [{"a": 0, "b": 3}]),
        ("u add a 0 | u remove a 50", [{"a": 3}, {"a": 0}]),
        ("u remove a 0", [{"a": 0}]),
        ("u view a 0 | u click a 1 | u hover a 2 | u hover b 2 | u ping c 2", [{"a": 1}]),
        # ids of requests decide, whatever the times are
        ("u view a 0 p | u view b 0 q | u click a 90 p | u click b 0 q", [{"a": 1}, {"b": 1}]),
        ("u view a 0 p | u view b 0 p | u add b 1 p | u remove b 99 p", [{"a": 0, "b": 0}]),
        ("u view a 0 p | v view a 0 p | u click a 1 p", [{"a": 1}, {"a": 0}]),
        ("u view a 0 p | u hover b 0 p | u click a 0 p", [{"a": 1, "b": None}]),
    ],
)
def test_rows_of_one_request_are_one_exposure(
    tmp_path: Path, log: str, expected: list[dict[str, float | None]]
) -> None:
    assert exposures(tmp_path, log) == expected


@pytest.mark.integration
def test_an_exposure_is_of_the_split_of_its_last_event_and_knows_nothing_of_itself(tmp_path: Path) -> None:
    rows = by_columns("stars", 4.5, 1.5)
    # somebody who never liked anything, and is shown things all the same
    rows += [{"user": "new", "item": f"never{n}", "at": BEGIN + n, "stars": 1.5} for n in range(3)]
    labels = {"stars": {"type": "graded", "at_least": 3.5, "scale": (0.5, 5)}}
    features = make(tmp_path, rows, {"labels": {"stars": "stars"}}, labels)

    shown, requests = read(features, "exposures"), read(features, "requests")
    assert {round(rating, 5) for row in requests for rating in row["history_ratings"]} == {
        round(float(to_stars(4.5, (0.5, 5))), 5)
    }
    assert {rating for row in [*requests, *shown] for rating in row["target_ratings"]} == {4.5}  # on their own scale
    held_out = [row for row in requests if row["split"] != "train"]
    first: dict[tuple[str, str], str] = {}
    for row in sorted(shown, key=lambda row: row["at"]):
        for item in row["targets"]:
            first.setdefault((row["user_id"], item), row["split"])
    for row in held_out:
        # at least as late: an exposure with the targets of two splits is of the later one
        assert first[row["user_id"], row["targets"][0]] in (row["split"], "test")
    assert {row["split"] for row in shown} == {"train", "valid", "test"}

    (new,) = [row for row in shown if row["user_id"] == "new"]
    assert (new["history_items"], new["targets"], len(new["shown"])) == ([], [], 3)
    assert (new["user_events_total"], new["ctx_log_hours_since_last"], new["ctx_log_history"]) == (0, 0, 0)
    assert all(len(row["label_stars"]) == len(row["items"]) for row in shown)


@pytest.mark.integration
def test_the_latest_exposures_of_each_split_are_kept(tmp_path: Path) -> None:
    labels = {"stars": {"type": "graded", "at_least": 3.5}}
    rows = by_columns("stars", 4.5, 1.5)
    every = read(make(tmp_path / "a", rows, {"labels": {"stars": "stars"}}, labels), "exposures")
    few = read(make(tmp_path / "b", rows, {"labels": {"stars": "stars"}}, labels, exposure_requests=20), "exposures")

    for split in ("train", "valid", "test"):
        times = sorted(row["at"] for row in every if row["split"] == split)
        latest = sorted(row["at"] for row in few if row["split"] == split)
        assert (len(latest), latest) == (20, times[-20:])


def write_beir(folder: Path, *, queries: int = 40) -> Path:
    """A BEIR folder whose judgments go from -1 to 4, and queries that nothing answers."""
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(
        "".join(f'{{"_id": "d{n}", "title": "document {n}", "text": "words of {n}"}}\n' for n in range(60))
    )
    (folder / "queries.jsonl").write_text(
        "".join(f'{{"_id": "q{n}", "text": "what is {n}"}}\n' for n in range(queries + 3))
    )
    grades = [f"q{n}\td{n + grade + 1}\t{grade}" for n in range(queries) for grade in range(-1, 5)]
    grades += [f"q{queries + n}\td{n}\t0" for n in range(3)]
    (folder / "qrels/test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *grades[::2]]) + "\n")
    (folder / "qrels/train.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *grades[1::2]]) + "\n")
    return folder


@pytest.mark.integration
@pytest.mark.parametrize("declared", [{}, {"relevance": {"type": "graded"}}])
def test_grades_of_judgments_are_weights_and_those_of_0_and_below_negatives(
    tmp_path: Path, declared: dict[str, Any]
) -> None:
    source = write_beir(tmp_path / "set")
    ingest(tmp_path / "raw", config=IngestConfig(source=str(source), format="beir", labels=declared))
    config = FeaturizeConfig(min_requests=1, query_split="random")
    featurize(tmp_path / "raw", tmp_path / "features", config=config)

    requests = {row["query_id"]: row for row in read(tmp_path / "features", "requests")}
    assert requests.keys() == {f"q{n}" for n in range(40)}
    assert requests["q7"]["targets"] == ["d12", "d11", "d10", "d9"]
    assert requests["q7"]["target_weights"] == [4, 3, 2, 1]
    assert sorted(requests["q7"]["shown"]) == ["d7", "d8"]
    if not declared:
        assert not (tmp_path / "features/exposures.parquet").exists()
        return
    shown = {row["query_id"]: row for row in read(tmp_path / "features", "exposures")}
    assert shown.keys() == {f"q{n}" for n in range(43)}
    assert all(row["split"] == requests[query]["split"] for query, row in shown.items() if query in requests)
    assert dict(zip(shown["q7"]["items"], shown["q7"]["label_relevance"]))["d7"] == -1
    assert (shown["q40"]["targets"], shown["q40"]["shown"]) == ([], ["d0"])


@pytest.mark.parametrize("seed", range(8))
def test_ratings_that_all_count_are_read_as_if_they_were_not_declared(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [
        {"user": f"u{user}", "item": f"i{item}", "at": BEGIN + 3600 * int(hour), "stars": int(rng.integers(1, 6))}
        for user, item, hour in np.unique(rng.integers(0, (6, 7, 40), (int(rng.integers(12, 60)), 3)), axis=0)
    ]
    declared = {"rating": {"type": "graded", "at_least": 1, "scale": (1, 5)}}
    plain = user_requests(ingest_log(tmp_path / "plain", rows, {"labels": {"rating": "stars"}}))
    labelled = user_requests(ingest_log(tmp_path / "labelled", rows, {"labels": {"rating": "stars"}}, declared))

    assert plain.column_names == [name for name in labelled.column_names if name not in ("target_weights", "shown")]
    assert labelled.select(plain.column_names).equals(plain)
    assert "feedback" not in parquet.read_schema(tmp_path / "plain/raw/events.parquet").names
    assert not any(labelled["shown"].to_pylist())


def user_requests(raw: Path) -> Any:
    """The requests of users, without features."""
    with duckdb.connect() as db:
        load_tables(db, raw, FeaturizeConfig(impression_window_s=1800))
        log = interactions.read_log(db, raw)
    return tables.requests(log, interactions.log_split(log.log, FeaturizeConfig()), {}, max_history=50).table


def test_the_stars_of_a_scale() -> None:
    assert to_stars([0.5, 2.75, 5, 0], (0.5, 5)).tolist() == [1, 3, 5, 0]
    assert to_stars([1, 10, 5.5, 0], (1, 10)).tolist() == [1, 5, 3, 0]
    assert to_stars([100, 50, 120, 0], (0, 100)).tolist() == [5, 3, 5, 0]
    assert to_stars([0, 3.2, 5], None).tolist() == [0, 3.2, 5]
    assert np.array_equal(to_stars([1.0, 2.5, 5.0], (1, 5)), [1, 2.5, 5])
