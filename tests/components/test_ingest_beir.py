"""Ingest over BEIR folders."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.ingest.config import IngestConfig
from components.ingest.step import ingest
from rankline.errors import SourceError

CORPUS = [
    {"_id": "d1", "title": "Capacitors", "text": "how they store charge", "metadata": {"year": 1961}},
    {"_id": "d2", "title": "", "text": "on filters", "metadata": {"year": 1962}},
    {"_id": "d3", "title": "", "text": "", "metadata": {}},
]
QUERIES = [{"_id": "q1", "text": "charge"}, {"_id": "q2", "text": "filters"}, {"_id": "q3", "text": "never judged"}]
QRELS = {"train": ["q1\td1\t2", "q1\td2\t0"], "dev": ["q2\td2\t1"], "test": ["q2\td1\t1", "q9\td1\t1", "q2\td9\t1"]}


def write(folder: Path, qrels: dict[str, list[str]] = QRELS) -> Path:
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text("".join(json.dumps(each) + "\n" for each in CORPUS))
    (folder / "queries.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, QUERIES)).encode()))
    for split, lines in qrels.items():
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n")
    return folder


def run(folder: Path, raw: Path, **settings: Any) -> dict[str, Any]:
    given = {"source": str(folder), "format": "beir", "max_rejected_share": 0.9, **settings}
    return ingest(raw, config=IngestConfig(**given))


def table(raw: Path, name: str) -> list[dict[str, Any]]:
    return pq.read_table(raw / f"{name}.parquet").to_pylist()


def test_a_collection_becomes_items_queries_and_events_with_their_split(tmp_path: Path) -> None:
    result = run(write(tmp_path / "source"), raw := tmp_path / "raw", columns={"item_numbers": ["metadata.year"]})
    assert result["rows"] == {"items": 3, "users": 0, "queries": 3, "events": 4}
    assert [(item["item_id"], item["title"], item["text"], item["year"]) for item in table(raw, "items")] == [
        ("d1", "Capacitors", "how they store charge", 1961.0),
        ("d2", None, "on filters", 1962.0),
        ("d3", None, None, None),
    ]
    assert table(raw, "queries")[0] == {"query_id": "q1", "text": "charge", "turns": None}
    events = table(raw, "events")
    # what was judged not to answer stays, as a relevance of 0
    assert [(each["query_id"], each["item_id"], each["relevance"], each["split"]) for each in events] == [
        ("q1", "d1", 2.0, "train"),
        ("q1", "d2", 0.0, "train"),
        ("q2", "d2", 1.0, "valid"),
        ("q2", "d1", 1.0, "test"),
    ]
    assert {each["event_timestamp"] for each in events} == {datetime(2000, 1, 1, tzinfo=UTC)}
    assert {each["user_id"] for each in events} == {None}
    rejected = [(row["table"], row["reason"], json.loads(row["raw"])["query-id"]) for row in table(raw, "rejected")]
    assert rejected == [("events", "unknown query", "q9"), ("events", "unknown item", "q2")]
    assert json.loads((raw / "summary.json").read_text())["items_without_words"] == 1


def test_a_pair_of_two_splits_stays_in_the_first(tmp_path: Path) -> None:
    write(tmp_path / "source", {"train": ["q1\td1\t1"], "test": ["q1\td1\t1", "q2\td2\t1"]})
    run(tmp_path / "source", tmp_path / "raw")
    assert [(each["query_id"], each["split"]) for each in table(tmp_path / "raw", "events")] == [
        ("q1", "train"),
        ("q2", "test"),
    ]
    assert [row["reason"] for row in table(tmp_path / "raw", "rejected")] == ["duplicate event"]


@pytest.mark.parametrize(
    ("gone", "matches"),
    [("corpus.jsonl", "corpus.jsonl"), ("queries.jsonl.gz", "queries.jsonl"), ("qrels", "no relevance judgments")],
)
def test_a_folder_with_a_missing_part_is_refused(tmp_path: Path, gone: str, matches: str) -> None:
    write(tmp_path)
    (tmp_path / gone).rename(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match=matches):
        run(tmp_path, tmp_path / "raw")


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("query\tdocument\trelevance\nq1\td1\t1\n", "query, document, relevance"),
        ("q1\td1\t1\n", "q1, d1, 1"),
        ("q1 0 d1 1\nq2 0 d1 1\n", "q1 0 d1 1"),
    ],
    ids=["other names", "none", "as TREC has it"],
)
def test_judgments_without_the_header_are_refused(tmp_path: Path, text: str, matches: str) -> None:
    write(tmp_path)
    (tmp_path / "qrels/test.tsv").write_text(text)
    with pytest.raises(SourceError, match=f"found: {matches}") as refused:
        run(tmp_path, tmp_path / "raw")
    assert "query-id, corpus-id, score" in str(refused.value)
    assert "test.tsv is not in BEIR's format" in str(refused.value)


def test_documents_need_no_title(tmp_path: Path) -> None:
    write(tmp_path / "source")
    (tmp_path / "source/corpus.jsonl").write_text('{"_id": "d1", "text": "on charge"}\n{"_id": "d2", "text": "x"}\n')
    run(tmp_path / "source", tmp_path / "raw")
    assert [(item["title"], item["text"]) for item in table(tmp_path / "raw", "items")] == [
        (None, "on charge"),
        (None, "x"),
    ]


def test_a_judgment_below_zero_is_as_little_relevant_as_one_of_zero(tmp_path: Path) -> None:
    source = write(tmp_path / "source", {"train": ["q1\td1\t2", "q1\td2\t-1", "q2\td1\t-2.0", "q2\td2\tbad"]})
    assert run(source, raw := tmp_path / "raw")["rejected"]["events"] == {"unparsable relevance": 1}
    assert [event["relevance"] for event in table(raw, "events")] == [2.0, 0.0, 0.0]
