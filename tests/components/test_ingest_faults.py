"""Ingest over data as people have it: what looks right and is not is set aside or refused, never read as another."""

import gzip
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from components.ingest.config import IngestConfig
from components.ingest.readers import recbole, tables, text_stream
from components.ingest.step import ingest
from pipelines.recipes import labels
from rankline.errors import SourceError
from rankline.io.sources import File
from tests.components.shop_source import Rows, write

BARE = {"title": "", "category": "", "created_year": "", "labels": {}, "user_attributes": ()}
BIG = 12345678901234567890123


def run(folder: Path, log: Rows | pa.Table, catalogue: Rows | None = None, **settings: Any) -> dict[str, Any]:
    """Ingest of a log, and of a catalogue or else of the items that the log names."""
    columns = {**BARE, **settings.pop("columns", {})}
    if isinstance(log, pa.Table):
        pq.write_table(log, folder / "log.parquet")
        places = {"events": "log.parquet"}
    else:
        places = {"events": write(folder / "log.jsonl", log).name}
    if catalogue is not None:
        places["items"] = write(folder / "items.jsonl", catalogue).name
    given = {"source": str(folder), "format": "tables", "tables": places, "items_from_events": True, **settings}
    ingest(folder / "raw", config=IngestConfig(columns=columns, **{"max_rejected_share": 1.0, **given}))
    result: dict[str, Any] = json.loads((folder / "raw/summary.json").read_text())
    return result


def table(folder: Path, name: str) -> list[dict[str, Any]]:
    return pq.read_table(folder / "raw" / f"{name}.parquet").to_pylist()


def log_of(times: list[Any]) -> Rows:
    return [{"user_id": f"u{n}", "item_id": "i1", "timestamp": at} for n, at in enumerate(times)]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_iso_times_lose_neither_their_half_of_the_day_nor_their_zone(tmp_path: Path, zone: str) -> None:
    good = ["2024-06-01 10:00:00", "2024-06-01T10:00", "2024-06-01T10:00:00.5", "2024/06/01 10:00", "2024-06-01"]
    zoned = ["2024-06-01T10:00:00Z", "2024-06-01 12:00:00+02:00", "2024-06-01 10:00 UTC"]
    bad = [f"2024-06-01 10:00:00 {end}" for end in ("PM", "pm", "EST", "PDT", "CEST", "America/New_York", zone + " PM")]
    bad += ["2024-06-01 10:00 PM +02:00", "epoch", "infinity", "10:00", "2024"]
    columns = {"timestamp_unit": "iso", "time_zone": zone}
    result = run(tmp_path, log_of([*good, *zoned, *bad]), columns=columns)
    assert result["rejected"]["events"] == {"unparsable timestamp": len(bad)}
    saved = {event["user_id"]: event["event_timestamp"] for event in table(tmp_path, "events")}
    assert set(saved) == {f"u{n}" for n in range(len(good) + len(zoned))}
    assert {saved[f"u{n}"] for n in (5, 6, 7)} == {datetime(2024, 6, 1, 10, tzinfo=UTC)}
    if zone == "UTC":
        with pytest.raises(SourceError, match="%I:%M:%S %p"):
            run(tmp_path, log_of([*good, *bad]), columns=columns, max_rejected_share=0.1)


@pytest.mark.parametrize("known", ["", "known"])
def test_seconds_among_milliseconds_are_rejected(tmp_path: Path, known: str) -> None:
    log = log_of([1_700_000_000_000 + 1000 * n for n in range(4)])
    for row in log:
        row["known"] = row["timestamp"]
    for row in log[::2]:
        row[known or "timestamp"] //= 1000
    result = run(tmp_path, log, columns={"timestamp_unit": "ms", "known_at": known})
    fits = "s" if known else "ingest.columns.timestamp_unit=s"
    assert result["rejected"]["events"] == {f"implausible time; it would fit {fits}": 2}
    assert result["event_time"]["first"].startswith("2023-11-14")


def test_large_and_decimal_identifiers_keep_every_digit(tmp_path: Path) -> None:
    count = 4
    log = pa.table(
        {
            "user_id": pa.array([Decimal(BIG + n) for n in range(count)], pa.decimal128(38, 0)),
            "long": pa.array([Decimal(10**50 + n) for n in range(count)], pa.decimal256(60, 0)),
            "version": pa.array([Decimal("1.50"), Decimal("2.00"), None, None], pa.decimal128(10, 2)),
            "timestamp": pa.array([Decimal(1_700_000_000)] * count, pa.decimal128(20, 0)),
            "item_id": [1.0, 2.5, float(1 << 53), float("nan")],
            "short": pa.array([1, 2.5, 1 << 24, None], pa.float32()),
        }
    )
    extra = {"event_attributes": ["long", "version"]}
    result = run(tmp_path, log, columns=extra)
    saved = [[event[name] for name in ("user_id", "item_id", "long", "version")] for event in table(tmp_path, "events")]
    assert saved == [
        [f"{BIG}", "1", f"{10**50}", "1.5"],
        [f"{BIG + 1}", "2.5", f"{10**50 + 1}", "2"],
    ]
    assert result["rejected"]["events"] == {"item_id of more digits than its type can hold": 1, "missing key": 1}
    other = {"item_id": "long", "user_id": "short", "event_numbers": ["version"]}
    result = run(tmp_path, log, columns=other)
    saved = [[event[name] for name in ("user_id", "version")] for event in table(tmp_path, "events")]
    assert saved == [["1", 1.5], ["2.5", 2.0]]
    assert result["rejected"]["events"] == {"missing key": 1, "user_id of more digits than its type can hold": 1}


def test_a_database_with_huge_integers_objects_and_a_time_without_end(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "shop.duckdb")) as db:
        db.execute(
            f"CREATE TABLE log AS SELECT {BIG}::HUGEINT + n AS user, {{'id': {{'code': 'i' || n}}}} AS item, "
            "CASE n WHEN 2 THEN TIMESTAMP 'infinity' ELSE TIMESTAMP '2024-06-01 10:00' END AS at FROM range(3) AS t(n)"
        )
    settings: dict[str, Any] = {"source": str(tmp_path / "shop.duckdb"), "format": "sql", "tables": {"events": "log"}}
    names = {"user_id": "user", "item_id": "item.id.code", "timestamp": "at", "time_zone": "Europe/Berlin"}
    result = run(tmp_path, [], **settings, columns=names)
    assert [(event["user_id"], event["item_id"]) for event in table(tmp_path, "events")] == [
        (f"{BIG}", "i0"),
        (f"{BIG + 1}", "i1"),
    ]
    assert result["rejected"]["events"] == {"unparsable timestamp": 1}
    with pytest.raises(SourceError, match="item_id is not a plain value") as refused:
        run(tmp_path, [], **settings, columns={**names, "item_id": "item"})
    assert "outer.inner" in str(refused.value)
    for wrong in ("SELECT nope FROM log", "SELECT * FRO log", "SELECT * FROM log_2024"):
        with pytest.raises(SourceError, match="the file has log;") as refused:
            run(tmp_path, [], **{**settings, "tables": {"events": wrong}}, columns=names)
        assert "close the process" not in str(refused.value)


def test_keys_that_are_objects_lists_or_words_for_nothing(tmp_path: Path) -> None:
    users = [{"a": {"b": "u1"}}, {"a": {"b": {"c": 1}}}, {"a": {"b": ["u1", "u2"]}}]
    users += [{"a": {"b": word}} for word in ("nan", "NaN", "NULL", "null", "None", "<NA>", "\\N", "\0u", "nancy")]
    log = [{"user": user, "item_id": "None", "timestamp": 1_700_000_000} for user in users]
    result = run(tmp_path, log, columns={"user_id": "user.a.b"})
    # a user called None is nobody; an item may well be: "none of these" is an answer
    assert [(event["user_id"], event["item_id"]) for event in table(tmp_path, "events")] == [
        ("u1", "None"),
        ("nancy", "None"),
    ]
    assert result["rejected"]["events"] == {"missing key": 7, "user_id is not a plain value": 3}


def test_prices_as_shops_write_them(tmp_path: Path) -> None:
    prices = ["€12.50", "€ 1,234.50", "1,234,567", "3", None, "cheap", "12,50"]
    catalogue = [{"item_id": f"i{n}", "cost": price, "lang": "zh_CN"} for n, price in enumerate(prices)]
    log = [{"user_id": "u", "item_id": "i5", "timestamp": 1_700_000_000}]
    columns = {"price": "cost", "language": "lang"}
    result = run(tmp_path, log, catalogue, columns=columns)
    items = table(tmp_path, "items")
    assert [item["price"] for item in items] == [12.5, 1234.5, 1234567.0, 3.0, None, None, None]
    assert {item["language"] for item in items} == {"zh-cn"}
    # an item without a price is an item, and so are its events
    assert (result["prices_not_read"], result["rejected"], result["rows"]["events"]) == (
        2, {"items": {}, "users": {}, "queries": {}, "events": {}}, 1,
    )  # fmt: skip
    with pytest.raises(SourceError, match=r"2 of 6 prices cannot be read[^$]*'cheap'[^$]*ingest\.files\.decimal"):
        run(tmp_path, log, catalogue, columns=columns, max_rejected_share=0.05)
    catalogue[3]["cost"] = "3 USD"
    with pytest.raises(SourceError, match=r"several currencies[^$]*USD and €"):
        run(tmp_path, log, catalogue, columns=columns)


def test_whether_an_item_can_be_had(tmp_path: Path) -> None:
    log = [{"user_id": "u", "item_id": "i0", "timestamp": 1_700_000_000}]
    result = [1.0, 0.0, "1.0", "0.0", None]
    items = [{"item_id": f"i{n}", "stock": stock} for n, stock in enumerate(result)]
    run(tmp_path, log, items, columns={"available": "stock"})
    assert [item["available"] for item in table(tmp_path, "items")] == [True, False, True, False, True]
    items += [{"item_id": "i9", "stock": 12}]
    with pytest.raises(SourceError, match=r"unparsable available 1[^$]*a stock count"):
        run(tmp_path, log, items, columns={"available": "stock"}, max_rejected_share=0.05)


def test_vectors_without_numbers_are_none(tmp_path: Path) -> None:
    log = [{"user_id": "u", "item_id": "i0", "timestamp": 1_700_000_000}]
    items: Rows = [{"item_id": "i0", "image": []}, {"item_id": "i1", "image": "[]"}]
    with pytest.raises(SourceError, match="no vector of image has numbers"):
        run(tmp_path, log, items, columns={"item_vectors": ["image"]})
    run(tmp_path, log, [*items, {"item_id": "i2", "image": [1, 2]}], columns={"item_vectors": ["image"]})
    assert [item["image"] for item in table(tmp_path, "items")] == [None, None, [1.0, 2.0]]


def test_duplicate_events_without_times_are_rejected_and_stop_nothing(tmp_path: Path) -> None:
    texts = [("good", "yes"), ("bad", "no")] * 4
    (tmp_path / "texts.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in texts))
    result = ingest(tmp_path / "raw", config=labels(str(tmp_path)).ingest)
    assert (result["rows"]["events"], result["rejected"]["events"]) == (2, {"duplicate event": 6})
    log = log_of([1_700_000_000]) * 2  # with times it is a fault of the log
    with pytest.raises(SourceError, match=r"duplicate event 1[^$]*timestamp must differ"):
        run(tmp_path, log, max_rejected_share=0.05)


def seen(path: Path, **files: Any) -> tuple[list[str], list[dict[str, Any]]]:
    """The columns of a CSV file and its rows, as its part has them."""
    part = tables.file_part(
        "events", File(str(path)), IngestConfig(source=str(path.parent), format="tables", files=files)
    )
    cells = [column.sql for column in part.columns.values()]
    return list(part.columns), [row for batch in part.batches for row in pa.table(batch).select(cells).to_pylist()]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('"user\nid";item;"at, UTC, or so"\nu;i;1\n', ["user id", "item", "at, UTC, or so"]),
        ('user,"item\r\n\r\nnumber",at\r\nu,i,1\r\n', ["user", "item number", "at"]),
        ("user,item,at\ru,i,1\r", ["user", "item", "at"]),
        ("\n  \r\nuser,item,at\nu,i,1\n", ["user", "item", "at"]),
        ('size 5",item,at\nu,i,1\n', ['size 5"', "item", "at"]),
    ],
)
def test_headers_as_sheets_write_them(tmp_path: Path, text: str, names: list[str]) -> None:
    (tmp_path / "log.csv").write_bytes(text.encode())
    assert seen(tmp_path / "log.csv") == (names, [{"c0": "u", "c1": "i", "c2": "1"}])


@pytest.mark.parametrize("header", ['"user,item\nu,i\n', "x" * 200_000 + ",y\n", "\n\n"])
def test_a_header_that_is_none_is_refused(tmp_path: Path, header: str) -> None:
    (tmp_path / "log.csv").write_text(header)
    with pytest.raises(SourceError, match="has no header that names"):
        seen(tmp_path / "log.csv")


@pytest.mark.parametrize(
    ("name", "stored", "hint"),
    [
        ("log.csv", gzip.compress(b"a,b\n", mtime=0), "name it log.csv.gz"),
        ("log.csv", b"\x28\xb5\x2f\xfd\x00", "name it log.csv.zst"),
        ("log.csv", b"PK\x03\x04\x14\x00", "save an Excel sheet as CSV"),
        ("log.jsonl", b"PAR1\x15\x04", "name it log.parquet"),
        ("log.csv.gz", b"a,b\n1,2\n", "name it log.csv"),
        ("log.csv.zst", gzip.compress(b"a,b\n", mtime=0), "name it log.csv.gz"),
    ],
)
def test_a_file_that_is_not_what_its_name_says(tmp_path: Path, name: str, stored: bytes, hint: str) -> None:
    (tmp_path / name).write_bytes(stored)
    with pytest.raises(SourceError, match="not what its name says") as refused:
        text_stream.open_text(File(str(tmp_path / name)), "utf-8")
    assert str(refused.value).endswith(hint) or (hint == "save an Excel sheet as CSV" and hint in str(refused.value))


@pytest.mark.parametrize(
    ("header", "matches"),
    [
        ("user_id:token\titem_id:token\tuser_id:token", "found: 'user_id' of type 'token'"),
        ("user_id:token\titem_id:tokens", "found: 'item_id' of type 'tokens'[^$]*write item_id:token"),
        ("user_id:token\trating:float_sequence", "write rating:float_seq"),
        ("user_id\titem_id", "such a header"),
    ],
)
def test_a_recbole_header_that_is_wrong_names_the_column(tmp_path: Path, header: str, matches: str) -> None:
    (tmp_path / "set.inter").write_text(f"{header}\n")
    with pytest.raises(SourceError, match=matches):
        next(recbole.read_parts(IngestConfig(source="x"), {"events": [File(str(tmp_path / "set.inter"))]}))


@pytest.mark.parametrize(
    "settings",
    [
        {"columns": {"item_attributes": ["Title"]}},
        {"columns": {"item_numbers": ["metadata.Price"]}},
        {"columns": {"event_attributes": ["raw"]}},
        {"columns": {"user_attributes": ["Row"]}},
        {"columns": {"item_attributes": ["reject_reason"]}},
        {"columns": {"item_attributes": ["price_as_written"]}},
        {"columns": {"event_numbers": ["event_id"]}},
        {"columns": {"item_attributes": ["Color"], "item_numbers": ["color"]}},
        {"columns": {"item_attributes": ["a.year", "b.year"]}},
        {"format": "sql", "source": "mysql://shop/db"},
    ],
)
def test_settings_that_cannot_be_meant(settings: dict[str, Any]) -> None:
    message = "canonical and internal columns have these names|would be one column|not mysql://"
    with pytest.raises(ValidationError, match=message):
        IngestConfig(**{"source": "here", **settings})
