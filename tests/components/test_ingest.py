"""Ingest over small RecBole files: what comes out, what is set aside, what is refused."""

import gzip
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from components.ingest import step
from components.ingest.config import Columns, IngestConfig
from components.ingest.readers import text_stream
from components.ingest.step import ingest
from rankline.contracts import EVENTS, ITEMS, REJECTED, USERS
from rankline.errors import RanklineError, SourceError, TooSmall
from rankline.io import digest
from rankline.io import sources as source

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
ITEM = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
USER = "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
EVENT_LINES = ["u1\ti1\t4\t300", "u2\ti1\t3\t100", "u1\ti2\t5\t300", "u3\ti2\t1\t200"]
ITEM_LINES = [
    "i1\tToy Story\t1995\tAnimation Comedy",
    "i2\tUnheard Of (2001)\t2001\t",
    "i3\tundated\tunknown\tDrama",
]
USER_LINES = ["u1\t24\tM\ttechnician\t85711", "u2\t53\tF\tother\t94043"]


def write(
    folder: Path,
    *,
    inter: list[str] = EVENT_LINES,
    item: list[str] = ITEM_LINES,
    user: list[str] | None = USER_LINES,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tables = {"inter": (INTER, inter), "item": (ITEM, item)} | ({"user": (USER, user)} if user is not None else {})
    for suffix, (header, lines) in tables.items():
        text = headers.get(suffix, header) + "".join(f"{line}\n" for line in lines)
        (folder / f"ml.{suffix}").write_bytes(text.encode("utf-8", "surrogateescape"))
    return folder


def run(folder: Path, raw: Path, **settings: Any) -> dict[str, Any]:
    return ingest(raw, config=IngestConfig(source=str(folder), **{"max_rejected_share": 0.9, **settings}))


def table(raw: Path, name: str) -> list[dict[str, Any]]:
    return pq.read_table(raw / f"{name}.parquet").to_pylist()


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def test_the_canonical_tables(tmp_path: Path) -> None:
    result = run(write(tmp_path / "source"), raw := tmp_path / "raw")
    events, items, users = (table(raw, name) for name in ("events", "items", "users"))
    # by time, then by line: event_id is the line
    assert [(event["event_id"], event["item_id"]) for event in events] == [
        ("000000000003", "i1"),
        ("000000000005", "i2"),
        ("000000000002", "i1"),
        ("000000000004", "i2"),
    ]
    assert events[0] == {
        "event_id": "000000000003",
        "event_timestamp": at(100),
        "known_at": at(100),
        "user_id": "u2",
        "query_id": None,
        "item_id": "i1",
        "rating": 3.0,
    }
    assert [item["title"] for item in items] == ["Toy Story (1995)", "Unheard Of (2001)", "undated"]
    assert [item["category"] for item in items] == [["Animation", "Comedy"], [], ["Drama"]]
    assert [item["created_at"] for item in items] == [
        datetime(1995, 1, 1, tzinfo=UTC),
        datetime(2001, 1, 1, tzinfo=UTC),
        None,
    ]
    assert {item["available"] for item in items} == {True}
    # u3 acted without a profile; the postcode was not declared
    assert users == [
        {"user_id": "u1", "age": "24", "gender": "M", "occupation": "technician"},
        {"user_id": "u2", "age": "53", "gender": "F", "occupation": "other"},
        {"user_id": "u3", "age": None, "gender": None, "occupation": None},
    ]
    assert result["rows"] == {"items": 3, "users": 3, "queries": 0, "events": 4}
    summary = json.loads((raw / "summary.json").read_text())
    assert summary["labels"] == ["rating"]
    assert summary["users_without_profile"] == summary["items_without_date"] == 1
    assert summary["event_time"] == {"first": at(100).isoformat(), "last": at(300).isoformat()}
    assert summary["source_digest"] == source.source_digest(source.Source(source=str(tmp_path / "source")))


@pytest.mark.parametrize(
    ("name", "contract"), [("items", ITEMS), ("users", USERS), ("events", EVENTS), ("rejected", REJECTED)]
)
def test_types_are_the_contracts(tmp_path: Path, name: str, contract: pa.Schema) -> None:
    run(write(tmp_path / "source"), tmp_path / "raw")
    actual = pq.read_schema(tmp_path / "raw" / f"{name}.parquet")
    assert pa.schema([actual.field(field.name) for field in contract]).equals(contract)


@pytest.mark.parametrize(
    ("suffix", "line", "reason"),
    [
        ("inter", "u1\ti1\t4", "wrong number of columns"),
        ("inter", "u1\ti1\t4\t500\textra", "wrong number of columns"),
        ("inter", "u1\ti1\t4\tyesterday", "unparsable timestamp"),
        ("inter", "u1\ti1\t4\t", "unparsable timestamp"),
        ("inter", "u1\ti1\t4\tnan", "unparsable timestamp"),
        ("inter", "u1\ti1\t4\t881250949000000", "implausible time; it would fit ingest.columns.timestamp_unit=us"),
        ("inter", "u1\ti1\tgood\t500", "unparsable rating"),
        ("inter", "u1\ti1\tinf\t500", "unparsable rating"),
        ("inter", "\ti1\t4\t500", "missing key"),
        ("inter", "u1\t \t4\t500", "missing key"),
        ("inter", "u2\ti1\t1\t100", "duplicate event"),
        ("inter", "u1\ti99\t4\t500", "unknown item"),
        ("inter", "u\udcff\ti1\t4\t500", "not UTF-8"),
        ("item", "i1\tToy Story again\t1995\tDrama", "duplicate item"),
        ("item", "\tNameless\t1995\tDrama", "missing key"),
        ("item", "i4\tShort", "wrong number of columns"),
        ("user", "u1\t30\tF\tother\t1", "duplicate user"),
        ("user", "\t30\tF\tother\t1", "missing key"),
    ],
)
def test_a_bad_row_is_rejected_with_its_reason(tmp_path: Path, suffix: str, line: str, reason: str) -> None:
    good = {"inter": EVENT_LINES, "item": ITEM_LINES, "user": USER_LINES}
    result = run(write(tmp_path / "source", **{suffix: [*good[suffix], line]}), raw := tmp_path / "raw")
    name = {"inter": "events", "item": "items", "user": "users"}[suffix]
    (row,) = table(raw, "rejected")
    assert (row["table"], row["reason"], row["row"]) == (name, reason, len(good[suffix]) + 2)
    assert row["raw"] == line.replace("\udcff", "\ufffd")
    assert result["rejected"] == {"items": {}, "users": {}, "queries": {}, "events": {}} | {name: {reason: 1}}
    assert result["rows"] == {"items": 3, "users": 3, "queries": 0, "events": 4}


def test_a_rating_may_be_absent_and_an_empty_line_is_no_row(tmp_path: Path) -> None:
    result = run(write(tmp_path / "source", inter=["u1\ti1\t\t100", "", "u1\ti2\t4\t200", ""]), tmp_path / "raw")
    assert [event["rating"] for event in table(tmp_path / "raw", "events")] == [None, 4.0]
    assert [event["event_id"] for event in table(tmp_path / "raw", "events")] == [
        "000000000002",
        "000000000004",
    ]
    assert result["rejected"]["events"] == {}


def test_the_events_of_a_rejected_item_are_rejected(tmp_path: Path) -> None:
    items = [*ITEM_LINES[:1], "i2\tbroken", *ITEM_LINES[2:]]
    result = run(write(tmp_path / "source", item=items), tmp_path / "raw")
    assert result["rejected"]["events"] == {"unknown item": 2}


def test_the_window_is_half_open_and_outside_is_not_rejected(tmp_path: Path) -> None:
    window = {"window_start": at(200).isoformat(), "window_end": "1970-01-01T00:05:00"}
    result = run(write(tmp_path / "source"), tmp_path / "raw", **window)
    assert [event["event_timestamp"] for event in table(tmp_path / "raw", "events")] == [at(200)]
    assert result["outside_window"] == 3
    assert result["rejected"]["events"] == {}


def test_known_time_and_attributes_come_from_their_columns(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "source",
        inter=["u1\ti1\t4\t300\t350\tphone\t1.5 2"],
        headers={"inter": INTER.rstrip() + "\tseen:float\tdevice:token\tscores:float_seq\n"},
        user=None,
    )
    columns = Columns(known_at="seen", event_attributes=("device", "scores"))
    run(folder, tmp_path / "raw", columns=columns)
    (event,) = table(tmp_path / "raw", "events")
    assert (event["event_timestamp"], event["known_at"]) == (at(300), at(350))
    assert (event["device"], event["scores"]) == ("phone", [1.5, 2.0])
    assert table(tmp_path / "raw", "users") == [{"user_id": "u1"}]


def test_the_same_data_gives_the_same_bytes_wherever_it_lies(tmp_path: Path) -> None:
    first = run(write(tmp_path / "here"), tmp_path / "raw 1")
    second = run(write(tmp_path / "there"), tmp_path / "raw 2")
    changed = run(write(tmp_path / "changed", inter=EVENT_LINES[:-1]), tmp_path / "raw 3")
    assert digest.tree_digest(tmp_path / "raw 1") == digest.tree_digest(tmp_path / "raw 2")
    assert first["data_digest"] == second["data_digest"] != changed["data_digest"]


@pytest.mark.integration
def test_row_groups_do_not_depend_on_how_the_rows_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "ROW_GROUP", 1000)
    monkeypatch.setattr(text_stream, "CHUNK_BYTES", 4096)
    lines = [f"u{n % 97}\ti{1 + n % 3}\t{1 + n % 5}\t{9000 - n}" for n in range(5010)]
    run(write(tmp_path / "source", inter=lines, user=None), tmp_path / "raw", memory_limit_mb=64)
    events = pq.ParquetFile(tmp_path / "raw" / "events.parquet")
    groups = [events.metadata.row_group(n).num_rows for n in range(events.metadata.num_row_groups)]
    assert groups == [1000] * 5 + [10]
    assert events.read(["event_id"])["event_id"].to_pylist() == [f"{row:012d}" for row in range(5011, 1, -1)]


def _missing(folder: Path) -> dict[str, Any]:
    return {"source": str(folder / "nowhere")}


def _empty_folder(folder: Path) -> dict[str, Any]:
    (folder / "empty").mkdir()
    return {"source": str(folder / "empty")}


def _empty_file(folder: Path) -> dict[str, Any]:
    (write(folder) / "ml.inter").write_bytes(b"")
    return {}


def _header_alone(folder: Path) -> dict[str, Any]:
    write(folder, inter=[])
    return {}


def _no_header(folder: Path) -> dict[str, Any]:
    write(folder, headers={"inter": "u1\ti1\t3\t100\n"})
    return {}


def _no_title(folder: Path) -> dict[str, Any]:
    write(folder, headers={"item": ITEM.replace("movie_title", "name")})
    return {}


def _no_items(folder: Path) -> dict[str, Any]:
    (write(folder) / "ml.item").unlink()
    return {}


def _two(folder: Path) -> dict[str, Any]:
    (write(folder) / "other.inter").write_text(INTER)
    return {}


def _all_bad(folder: Path) -> dict[str, Any]:
    write(folder, inter=[line + "000000000000" for line in EVENT_LINES])
    return {"max_rejected_share": 1.0}


def _too_much_bad(folder: Path) -> dict[str, Any]:
    write(folder, inter=[*EVENT_LINES, "u1\ti1\t4\tnever"])
    return {"max_rejected_share": 0.1}


def _too_few(folder: Path) -> dict[str, Any]:
    write(folder)
    return {"min_events": 5}


def _outside(folder: Path) -> dict[str, Any]:
    write(folder)
    return {"window_start": "2024-01-01"}


def _unknown_format(folder: Path) -> dict[str, Any]:
    write(folder)
    return {"format": "cuneiform"}


REFUSALS = [
    (_missing, SourceError, "the source does not exist", "ingest.source"),
    (_empty_folder, SourceError, "holds no events", "ingest.source"),
    (_empty_file, SourceError, "0 bytes", "ingest.source"),
    (_header_alone, SourceError, "only a header", "ingest.source"),
    (_no_header, SourceError, "has no header that names", "name:type"),
    (_no_title, SourceError, "no column 'movie_title'", "ingest.columns.title"),
    (_no_items, SourceError, "ml.item", "ingest.source"),
    (_two, SourceError, "ml.inter, other.inter", "ingest.name"),
    (_all_bad, SourceError, "4 of 4 rows of events", "implausible time 4"),
    (_too_much_bad, SourceError, "1 of 5 rows of events", "ingest.max_rejected_share"),
    (_too_few, TooSmall, "holds 4 events", "ingest.min_events"),
    (_outside, TooSmall, "4 outside", "ingest.window_start"),
    (_unknown_format, SourceError, "cuneiform", "ingest.format"),
]


@pytest.mark.parametrize(("arrange", "kind", "matches", "hint"), REFUSALS, ids=[each[0].__name__ for each in REFUSALS])
def test_what_is_refused(tmp_path: Path, arrange: Any, kind: type[RanklineError], matches: str, hint: str) -> None:
    settings = {"source": str(tmp_path), **arrange(tmp_path)}
    with pytest.raises(kind) as refused:
        ingest(tmp_path / "raw", config=IngestConfig(**settings))
    assert type(refused.value) is kind
    assert matches in str(refused.value)
    assert hint in str(refused.value)
    assert refused.value.expected
    assert refused.value.where


def test_rejected_rows_survive_the_refusal(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        ingest(tmp_path / "raw", config=IngestConfig(source=str(tmp_path), **_too_much_bad(tmp_path)))
    assert [row["raw"] for row in table(tmp_path / "raw", "rejected")] == ["u1\ti1\t4\tnever"]


@pytest.mark.parametrize(
    "settings",
    [
        {"sauce": "x"},
        {"window_start": "2024-02-01", "window_end": "2024-01-01"},
        {"window_start": "soon"},
        {"columns": {"labels": {"stars": "rating"}}},
        {"columns": {"item_attributes": ("price",)}},
    ],
)
def test_settings_that_cannot_be_meant(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        IngestConfig(source="here", **settings)


def test_one_moment_written_in_two_ways_is_one_setting() -> None:
    assert IngestConfig(source="x", window_end="2024-01-01") == IngestConfig(
        source="x", window_end="2024-01-01T01:00:00+01:00"
    )


@pytest.mark.parametrize("path", ["", "ml", "ml.inter"])
def test_a_source_is_found_by_folder_by_name_or_by_file(tmp_path: Path, path: str) -> None:
    write(tmp_path)
    actual = source.find_files(source.Source(source=str(tmp_path / path)))
    assert {name: Path(file.path).name for name, (file,) in actual.items()} == {
        "events": "ml.inter",
        "items": "ml.item",
        "users": "ml.user",
    }


def test_a_set_that_is_already_split_keeps_its_split(tmp_path: Path) -> None:
    write(tmp_path, inter=EVENT_LINES[:2])
    (tmp_path / "ml.inter").rename(tmp_path / "ml.test.inter")
    (tmp_path / "ml.train.inter.gz").write_bytes(gzip.compress((INTER + "\n".join(EVENT_LINES[2:])).encode()))
    run(tmp_path, tmp_path / "raw")
    assert {event["event_id"]: event["split"] for event in table(tmp_path / "raw", "events")} == {
        "000000000002": "train",
        "000000000003": "train",
        "000000000005": "test",
        "000000000006": "test",
    }


def test_a_set_without_the_columns_that_movielens_has(tmp_path: Path) -> None:
    write(
        tmp_path,
        inter=["u1\ti1\t300"],
        item=["i1\tToy Story"],
        user=["u1"],
        headers={
            "inter": "user_id:token\titem_id:token\ttimestamp:float\n",
            "item": "item_id:token\ttitle:token_seq\n",
            "user": "user_id:token\n",
        },
    )
    run(tmp_path, tmp_path / "raw", columns={"title": "title"})
    assert table(tmp_path / "raw", "items")[0]["title"] == "Toy Story"
    summary = json.loads((tmp_path / "raw/summary.json").read_text())
    assert summary["absent_columns"] == [
        "events.rating", "items.class", "items.release_year", "users.age", "users.gender", "users.occupation",
    ]  # fmt: skip
    assert summary["labels"] == []


def test_interactions_alone_are_enough_where_the_settings_say_so(tmp_path: Path) -> None:
    (write(tmp_path, user=None) / "ml.item").unlink()
    result = run(tmp_path, tmp_path / "raw", items_from_events=True)
    assert result["rows"] == {"items": 2, "users": 3, "queries": 0, "events": 4}
