"""Ingest over tables in files: what comes out of each format, what is set aside, what is refused."""

import gzip
import json
import re
import zoneinfo
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from components.ingest.config import Columns, IngestConfig, TextFiles
from components.ingest.step import ingest
from rankline.errors import RanklineError, SourceError
from tests.components.shop_source import COLUMNS, EVENTS, ITEMS, USERS, Rows, as_csv, write

LOG: Rows = [{"user_id": f"u{n}", "item_id": "i1", "timestamp": 1_700_000_000 + n, "rating": 4} for n in range(4)]
CATALOGUE: Rows = [{"item_id": "i1", "title": "One"}, {"item_id": "i2", "title": "Two"}]


def run(folder: Path, *, columns: dict[str, Any], tables: dict[str, str], **settings: Any) -> dict[str, Any]:
    given = {"source": str(folder), "format": "tables", "tables": tables, "columns": columns, **settings}
    return ingest(folder / "raw", config=IngestConfig(**given))


def small(folder: Path, log: Rows = LOG, catalogue: Rows = CATALOGUE, **settings: Any) -> dict[str, Any]:
    """Ingest of a log and a catalogue whose columns have the canonical names."""
    write(folder / "log.jsonl", log)
    write(folder / "items.jsonl", catalogue)
    columns = {"title": "title", "category": "", "created_year": "", **settings.pop("columns", {})}
    tables = {"events": "log.jsonl", "items": "items.jsonl", **settings.pop("tables", {})}
    return run(folder, columns=columns, tables=tables, **{"max_rejected_share": 0.9, **settings})


def table(folder: Path, name: str) -> list[dict[str, Any]]:
    return pq.read_table(folder / "raw" / f"{name}.parquet").to_pylist()


def summary(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "raw" / "summary.json").read_text())
    return result


def reasons(folder: Path) -> list[tuple[str, int, str]]:
    return [(row["table"], row["row"], row["reason"]) for row in table(folder, "rejected")]


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl", "csv.gz", "jsonl.zst"])
def test_every_format_gives_the_same_tables(tmp_path: Path, ending: str) -> None:
    for name, rows in (("events", EVENTS), ("items", ITEMS), ("users", USERS)):
        write(tmp_path / f"{name}.{ending}", rows)
    tables = {name: f"{name}.{ending}" for name in ("events", "items", "users")}
    run(tmp_path, columns=COLUMNS, tables=tables)
    events, items = table(tmp_path, "events"), table(tmp_path, "items")
    assert len(events) == 12
    assert events[3] == {
        "event_id": "000000000004",
        "event_timestamp": datetime(2023, 11, 14, 22, 16, 23, 3000, UTC),
        "known_at": datetime(2023, 11, 14, 22, 16, 23, 3000, UTC),
        "user_id": "u0",
        "query_id": None,
        "item_id": "i3",
        "click": 1.0,
        "purchase": 0.0,
        "feedback": 1.0,
        "device": 'a "phone", or\nso',
    }
    assert [(event["click"], event["purchase"]) for event in events[:3]] == [(1, 0), (0, 1), (0, 0)]
    assert items[2] == {
        "item_id": "i2",
        "title": "Thing 2",
        "text": None,
        "language": "en",
        "category": ["toys", "wood and steel"],
        "price": 3.0,
        "available": True,
        "created_at": datetime(2023, 3, 5, 8, tzinfo=UTC),
        "weight": 20.0,
        "image": [1.0, 1.0, -2.0],
    }
    assert [item["available"] for item in items] == [True, False, True, True]
    assert pq.read_schema(tmp_path / "raw/items.parquet").field("image").type == pa.list_(pa.float32())
    # u7 never acted, u2 has no profile: both are users
    assert [(user["user_id"], user["city"], user["age"]) for user in table(tmp_path, "users")] == [
        ("u0", "Ghent", 30.0),
        ("u1", "Ghent", 31.0),
        ("u7", "Ghent", 37.0),
        ("u2", None, None),
    ]
    result = summary(tmp_path)
    assert (result["users_without_history"], result["users_without_profile"], result["items_without_words"]) == (
        1,
        1,
        0,
    )
    assert reasons(tmp_path) == []


def test_many_files_and_folders_that_name_a_column(tmp_path: Path) -> None:
    for n, market in enumerate(("be", "nl", "__HIVE_DEFAULT_PARTITION__")):
        write(tmp_path / f"log/market={market}/part-{n}.parquet", LOG[n : n + 1])
    (tmp_path / "log/_SUCCESS").touch()
    write(tmp_path / "items.jsonl", CATALOGUE)
    columns = {"title": "title", "event_attributes": ("market",)}
    run(tmp_path, columns=columns, tables={"events": "log", "items": "items.jsonl"})
    # null sorts first by its folder's name; a row's number counts on through the files
    assert [(event["event_id"][-1], event["user_id"], event["market"]) for event in table(tmp_path, "events")] == [
        ("2", "u0", "be"),
        ("3", "u1", "nl"),
        ("1", "u2", None),
    ]
    run(tmp_path, columns=columns, tables={"events": "log/market=*/part-[01].parquet", "items": "items.jsonl"})
    assert [event["market"] for event in table(tmp_path, "events")] == ["be", "nl"]


def test_a_url_is_read_like_a_folder(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for n in (0, 1):
        path = write(tmp_path / f"log{n}.csv.gz", LOG[2 * n : 2 * n + 2])
        memory.pipe(f"/ingest-test/log/day={n}/log.csv.gz", path.read_bytes())
    memory.pipe("/ingest-test/items.parquet", write(tmp_path / "items.parquet", CATALOGUE).read_bytes())
    settings = {"columns": {"title": "title", "event_attributes": ["day"]}, "format": "tables"}
    config = IngestConfig(source="memory://ingest-test", tables={"events": "log", "items": "items.parquet"}, **settings)
    assert ingest(tmp_path / "raw", config=config)["rows"]["events"] == 4
    assert [event["day"] for event in table(tmp_path, "events")] == ["0", "0", "1", "1"]


def test_files_of_one_table_may_type_a_column_in_different_ways(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    for n, item in enumerate((7, "7", 7.0)):
        log = {
            "user_id": [f"u{n}"],
            "item_id": [item],
            "timestamp": [1_700_000_000],
            **({"device": ["tv"]} if n else {}),
        }
        pq.write_table(pa.table(log), tmp_path / f"log/{n}.parquet")
    seven = [{"item_id": 7, "title": "Seven"}]
    small(tmp_path, catalogue=seven, tables={"events": "log"})
    assert [event["item_id"] for event in table(tmp_path, "events")] == ["7", "7", "7"]
    small(tmp_path, catalogue=seven, tables={"events": "log"}, columns={"event_attributes": ("device",)})
    assert [event["device"] for event in table(tmp_path, "events")] == [None, "tv", "tv"]
    assert summary(tmp_path)["rows_without_column"] == {"events.device": 1}
    with pytest.raises(SourceError, match=r"no column 'devices'[^$]*0\.parquet"):
        small(tmp_path, tables={"events": "log"}, columns={"event_attributes": ("devices",)})


def test_a_web_address_is_read_and_one_that_is_gone_refused(tmp_path: Path) -> None:
    import functools
    import http.server
    import threading

    write(tmp_path / "web/log.csv.gz", LOG)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        assert small(tmp_path, tables={"events": f"{base}/log.csv.gz"})["rows"]["events"] == 4
        with pytest.raises(SourceError, match=r"gone\.csv"):
            small(tmp_path, tables={"events": f"{base}/gone.csv"})
        server.shutdown()


def test_a_url_that_nothing_reads_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no installed package reads"):
        small(tmp_path, tables={"events": "pigeon://post/log.csv"})


def test_a_read_only_source_stays_as_it_is(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name, rows in (("events", EVENTS), ("items", ITEMS), ("users", USERS)):
        write(source / f"{name}.csv.gz", rows)
    before = sorted(source.rglob("*"))
    source.chmod(0o555)
    try:
        config = IngestConfig(
            source=str(source), format="tables", columns=COLUMNS,
            tables={name: f"{name}.csv.gz" for name in ("events", "items", "users")},
        )  # fmt: skip
        assert ingest(tmp_path / "raw", config=config)["rows"]["events"] == 12
    finally:
        source.chmod(0o755)
    assert sorted(source.rglob("*")) == before


def test_a_csv_as_excel_writes_it(tmp_path: Path) -> None:
    rows = [
        {"item_id": "i1", "title": "Café; crème", "cost": "1.234,50"},
        {"item_id": "i2", "title": "Tee", "cost": "2"},
    ]
    text = "sep=;\r\n" + as_csv(rows, delimiter=";")
    (tmp_path / "items.csv").write_bytes(text.encode("utf-8-sig"))
    settings = {"tables": {"items": "items.csv"}, "columns": {"price": "cost"}, "files": {"decimal": ","}}
    small(tmp_path, **settings)
    assert [(item["item_id"], item["title"], item["price"]) for item in table(tmp_path, "items")] == [
        ("i1", "Café; crème", 1234.5),
        ("i2", "Tee", 2.0),
    ]
    # a point is no decimal sign then: 1.5 is no number rather than fifteen
    (tmp_path / "items.csv").write_text("item_id;title;cost\ni2;Tea;1.5\ni1;Tee;2,5\n")
    small(tmp_path, **settings)
    assert [item["price"] for item in table(tmp_path, "items")] == [None, 2.5]


@pytest.mark.parametrize("encoding", ["cp1252", "gb18030", "utf-16"])
def test_text_in_another_encoding(tmp_path: Path, encoding: str) -> None:
    title = {"cp1252": "Crème brûlée, für später, señor", "gb18030": "北京的秋天非常漂亮我们都很喜欢"}.get(
        encoding, "Łódź"
    )
    rows = [{"item_id": f"i{n}", "title": f"{title} {n}"} for n in range(1, 40)]
    (tmp_path / "items.csv").write_bytes(as_csv(rows).encode(encoding))
    tables = {"items": "items.csv", "events": write(tmp_path / "log.parquet", LOG).name}
    small(tmp_path, tables=tables, files={"encoding": encoding})
    assert table(tmp_path, "items")[0]["title"] == f"{title} 1"
    with pytest.raises(SourceError, match="encoding") as refused:
        small(tmp_path, tables=tables, max_rejected_share=0.5)
    fits = str(refused.value).partition("ingest.files.encoding=")[2].split(",")[0].strip()
    assert rows[0]["title"].encode(encoding).decode(fits) == rows[0]["title"], fits


def test_sound_utf_8_is_not_read_as_something_else(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,title\ni1,Crème\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"ingest\.files\.encoding=utf-8"):
        small(tmp_path, tables={"items": "items.csv"}, files={"encoding": "cp1252"})


def test_rows_of_a_csv_that_cannot_be_read_keep_their_place(tmp_path: Path) -> None:
    lines = ["user_id,item_id,timestamp,rating"] + [f"u{n},i1,17000000{n:02},3" for n in range(10)]
    lines[3], lines[8] = "u2,i1", "u7,i1,1700000007,3,4,5"
    lines[5] = "u4,i1,1700000004,good"
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    small(tmp_path, tables={"events": "log.csv"})
    assert reasons(tmp_path) == [
        ("events", 3, "wrong number of columns"),
        ("events", 5, "unparsable rating"),
        ("events", 8, "wrong number of columns"),
    ]
    rejected = table(tmp_path, "rejected")
    assert rejected[0]["raw"] == "u2,i1"
    assert json.loads(rejected[1]["raw"]) == {
        "user_id": "u4", "item_id": "i1", "timestamp": "1700000004", "rating": "good",
    }  # fmt: skip
    assert [int(event["event_id"]) for event in table(tmp_path, "events")] == [1, 2, 4, 6, 7, 9, 10]


@pytest.mark.parametrize(
    ("table_name", "changes", "reason"),
    [
        ("log", {"timestamp": "yesterday"}, "unparsable timestamp"),
        ("log", {"timestamp": None}, "unparsable timestamp"),
        ("log", {"timestamp": -5}, "implausible time"),
        ("log", {"timestamp": 9_000_000_000}, "implausible time"),
        ("log", {"timestamp": 1_700_000_000_000}, "implausible time; it would fit ingest.columns.timestamp_unit=ms"),
        ("log", {"item_id": "i9"}, "unknown item"),
        ("log", {"item_id": None}, "missing key"),
        ("log", {"user_id": "u0", "timestamp": 1_700_000_000}, "duplicate event"),
        ("log", {"rating": "four"}, "unparsable rating"),
        ("log", {"rating": {"stars": 4}}, "unparsable rating"),
        ("catalogue", {"item_id": "i1"}, "duplicate item"),
        ("catalogue", {"heavy": "very"}, "unparsable heavy"),
        ("catalogue", {"stock": "maybe"}, "unparsable available"),
        ("catalogue", {"image": [1, 2, 3]}, "image has not 2 numbers, as most have"),
        ("catalogue", {"image": [1, "x"]}, "unparsable image"),
    ],
)
def test_a_bad_row_is_rejected_with_its_reason(
    tmp_path: Path, table_name: str, changes: dict[str, Any], reason: str
) -> None:
    catalogue = [{**item, "heavy": 1, "stock": True, "image": [1, 2.5]} for item in CATALOGUE]
    rows = {"log": list(LOG), "catalogue": catalogue}
    extra = {
        "log": {**LOG[0], "user_id": "new", "timestamp": 1_700_009_999},
        "catalogue": {**catalogue[0], "item_id": "i3"},
    }
    rows[table_name].append({**extra[table_name], **changes})
    columns = {"item_numbers": ("heavy",), "available": "stock", "item_vectors": ("image",)}
    small(tmp_path, rows["log"], rows["catalogue"], columns=columns)
    name = {"log": "events", "catalogue": "items"}[table_name]
    assert reasons(tmp_path) == [(name, len(rows[table_name]), reason)]
    assert json.loads(table(tmp_path, "rejected")[0]["raw"]) == rows[table_name][-1]


def test_lines_that_are_no_objects_are_rejected(tmp_path: Path) -> None:
    good = json.dumps(LOG[0])
    (tmp_path / "log2.jsonl").write_text(f"{good}\n{good[:20]}\n[1, 2]\n\n{good.replace('u0', 'u9')}\n")
    small(tmp_path, tables={"events": "log2.jsonl"})
    assert reasons(tmp_path) == [("events", 2, "not a JSON object"), ("events", 3, "not a JSON object")]


def times(folder: Path, stated: list[str], **columns: Any) -> list[datetime]:
    log = [{**LOG[0], "user_id": f"u{n}", "timestamp": each} for n, each in enumerate(stated)]
    small(folder, log, columns=columns)
    return [event["event_timestamp"] for event in table(folder, "events")]


@pytest.mark.parametrize(
    ("stated", "unit", "zone"),
    [
        ("1700000000", "s", ""),
        ("1700000000000", "ms", ""),
        ("1700000000000000", "us", ""),
        ("1700000000000000000", "ns", ""),
        ("2023-11-14T22:13:20Z", "iso", ""),
        ("2023-11-14 23:13:20+01", "iso", ""),
        ("2023-11-14T23:13:20+01:00", "iso", "Asia/Tokyo"),  # what a time says of itself counts
        ("2023-11-14T22:13:20", "iso", "UTC"),
        ("2023-11-14 23:13:20", "iso", "Europe/Berlin"),
        ("14.11.2023 23:13:20", "%d.%m.%Y %H:%M:%S", "Europe/Berlin"),
        ("14.11.2023 23:13:20 +0100", "%d.%m.%Y %H:%M:%S %z", ""),
    ],
)
def test_times_are_read_as_the_settings_say(tmp_path: Path, stated: str, unit: str, zone: str) -> None:
    actual = times(tmp_path, [stated], timestamp_unit=unit, time_zone=zone)
    assert actual == [datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)]


def test_times_that_clocks_showed_twice_or_never_are_rejected(tmp_path: Path) -> None:
    stated = ["2024-10-27 01:59:59", "2024-10-27 02:30:00", "2024-10-27 03:00:00", "2024-03-31 02:30:00"]
    actual = times(tmp_path, stated, timestamp_unit="iso", time_zone="Europe/Berlin")
    assert actual == [datetime(2024, 10, 26, 23, 59, 59, tzinfo=UTC), datetime(2024, 10, 27, 2, tzinfo=UTC)]
    assert reasons(tmp_path) == [
        ("events", 2, "ambiguous time: clocks of Europe/Berlin showed it twice"),
        ("events", 4, "time that clocks of Europe/Berlin skipped"),
    ]


@pytest.mark.parametrize("zone", ["America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kolkata"])
def test_every_half_hour_of_two_years_agrees_with_the_standard_library(tmp_path: Path, zone: str) -> None:
    local = [datetime(2022, 1, 1) + timedelta(minutes=30 * n) for n in range(2 * 365 * 48)]
    clock = zoneinfo.ZoneInfo(zone)
    expected, refused = [], 0
    for each in local:
        both = [each.replace(tzinfo=clock, fold=fold).astimezone(UTC) for fold in (0, 1)]
        means = {at for at in both if at.astimezone(clock).replace(tzinfo=None) == each}
        expected += means if len(means) == 1 else []
        refused += len(means) != 1
    pq.write_table(
        pa.table({"user_id": ["u"] * len(local), "item_id": ["i1"] * len(local), "timestamp": pa.array(local)}),
        tmp_path / "log.parquet",
    )
    small(tmp_path, tables={"events": "log.parquet"}, columns={"time_zone": zone})
    assert [event["event_timestamp"] for event in table(tmp_path, "events")] == expected
    assert len(reasons(tmp_path)) == refused
    assert (refused > 0) == (zone != "Asia/Kolkata")


def test_identifiers_that_a_source_types_as_fractions_stay_whole(tmp_path: Path) -> None:
    log = pa.table({"user_id": [1.0, None, 2.0], "item_id": [7, 7, 7], "timestamp": [1_700_000_000] * 3})
    pq.write_table(log, tmp_path / "log.parquet")
    small(tmp_path, catalogue=[{"item_id": "7", "title": "Seven"}], tables={"events": "log.parquet"})
    assert [(event["user_id"], event["item_id"]) for event in table(tmp_path, "events")] == [("1", "7"), ("2", "7")]
    assert reasons(tmp_path) == [("events", 2, "missing key")]


def test_only_columns_that_are_named_are_read(tmp_path: Path) -> None:
    log = pa.table({"user_id": ["u", None], "item_id": ["i1"] * 2, "timestamp": [1_700_000_000] * 2, "page": ["x"] * 2})
    pq.write_table(log, tmp_path / "log.parquet")
    small(tmp_path, tables={"events": "log.parquet"})
    (row,) = table(tmp_path, "rejected")
    assert json.loads(row["raw"]) == {"user_id": None, "item_id": "i1", "timestamp": 1_700_000_000}
    small(tmp_path, tables={"events": "log.parquet"}, columns={"event_attributes": ["page"]})
    assert json.loads(table(tmp_path, "rejected")[0]["raw"])["page"] == "x"


def test_items_from_events_and_items_without_words(tmp_path: Path) -> None:
    write(tmp_path / "log.csv", LOG)
    run(tmp_path, columns={}, tables={"events": "log.csv"}, items_from_events=True)
    assert [(item["item_id"], item["title"], item["available"]) for item in table(tmp_path, "items")] == [
        ("i1", None, True)
    ]
    assert summary(tmp_path)["items_without_words"] == 1


def test_queries_from_the_words_of_events(tmp_path: Path) -> None:
    log = [{**LOG[n], "asked": requests} for n, requests in enumerate(["red shoes", "red shoes", "blue hat", None])]
    small(tmp_path, log, columns={"query_text": "asked"})
    queries, events = table(tmp_path, "queries"), table(tmp_path, "events")
    assert [query["text"] for query in queries] == ["red shoes", "blue hat"]
    assert [event["query_id"] for event in events] == [
        queries[0]["query_id"], queries[0]["query_id"], queries[1]["query_id"], None,
    ]  # fmt: skip
    assert "event_query_text" not in events[0]
    assert summary(tmp_path)["rows"]["queries"] == 2


def test_queries_of_their_own_with_turns_and_a_split(tmp_path: Path) -> None:
    log = [
        {"q": "a", "item_id": "i1", "part": "train"},
        {"q": "b", "item_id": "i2", "part": "dev"},
        {"q": "c", "item_id": "i2", "part": "test"},
        {"q": "a", "item_id": "i2", "part": "later"},
    ]
    requests = [{"q": "a", "said": ["hello", "a refund?"]}, {"q": "b", "said": ["when?"]}, {"q": "b", "said": []}]
    write(tmp_path / "queries.jsonl", requests)
    columns = {"user_id": "", "query_id": "q", "turns": "said", "split": "part", "timestamp": "", "labels": {}}
    small(tmp_path, log, columns=columns, tables={"queries": "queries.jsonl"})
    assert table(tmp_path, "queries") == [
        {"query_id": "a", "text": "a refund?", "turns": ["hello", "a refund?"]},
        {"query_id": "b", "text": "when?", "turns": ["when?"]},
    ]
    events = table(tmp_path, "events")
    assert [(event["query_id"], event["split"]) for event in events] == [("a", "train"), ("b", "valid")]
    assert {event["event_timestamp"] for event in events} == {datetime(2000, 1, 1, tzinfo=UTC)}
    assert reasons(tmp_path) == [
        ("events", 3, "unknown query"),
        ("events", 4, "unknown split"),
        ("queries", 3, "duplicate query"),
    ]


def test_one_moment_may_see_a_click_and_a_purchase(tmp_path: Path) -> None:
    log = [{**LOG[0], "kind": kind} for kind in ("view", "buy", "view", "share")]
    columns = {"event_type": "kind", "event_types": {"view": "click", "buy": "purchase"}}
    small(tmp_path, log, columns=columns)
    assert [(event["click"], event["purchase"]) for event in table(tmp_path, "events")] == [(1, 0), (0, 1)]
    assert reasons(tmp_path) == [("events", 3, "duplicate event"), ("events", 4, "unknown event type")]


def _renamed(folder: Path) -> dict[str, Any]:
    return {"log": [{**{k: v for k, v in row.items() if k != "timestamp"}, "time_stamp": 1} for row in LOG]}


def _naive(folder: Path) -> dict[str, Any]:
    return {"log": [{**LOG[0], "timestamp": "2024-01-01 10:00"}], "columns": {"timestamp_unit": "iso"}}


def _milliseconds(folder: Path) -> dict[str, Any]:
    return {"log": [{**row, "timestamp": row["timestamp"] * 1000} for row in LOG]}


def _seconds(folder: Path) -> dict[str, Any]:
    return {"columns": {"timestamp_unit": "ms"}}


def _cut_gzip(folder: Path) -> dict[str, Any]:
    whole = gzip.compress(as_csv([{**LOG[0], "user_id": f"{n * 7919}"} for n in range(90_000)]).encode())
    (folder / "log.csv.gz").write_bytes(whole[: len(whole) // 2])
    return {"tables": {"events": "log.csv.gz"}}


def _cut_parquet(folder: Path) -> dict[str, Any]:
    path = write(folder / "log.parquet", LOG)
    path.write_bytes(path.read_bytes()[:-40])
    return {"tables": {"events": "log.parquet"}}


def _no_parquet(folder: Path) -> dict[str, Any]:
    (folder / "log.parquet").write_text("user_id,item_id\n")
    return {"tables": {"events": "log.parquet"}}


def _empty(folder: Path) -> dict[str, Any]:
    (folder / "log.csv").touch()
    return {"tables": {"events": "log.csv"}}


def _header(folder: Path) -> dict[str, Any]:
    (folder / "log.csv").write_text("user_id,item_id,timestamp,rating\n")
    return {"tables": {"events": "log.csv"}}


def _twice(folder: Path) -> dict[str, Any]:
    (folder / "log.csv").write_text("user_id,item_id,item_id\nu,i,i\n")
    return {"tables": {"events": "log.csv"}}


def _array(folder: Path) -> dict[str, Any]:
    (folder / "log.json").write_text(json.dumps(LOG))
    return {"tables": {"events": "log.json"}}


def _excel(folder: Path) -> dict[str, Any]:
    (folder / "log.xlsx").write_bytes(b"PK\x03\x04")
    return {"tables": {"events": "log.xlsx"}}


def _nowhere(folder: Path) -> dict[str, Any]:
    return {"tables": {"events": "gone/*.csv"}}


def _no_items(folder: Path) -> dict[str, Any]:
    return {"tables": {"items": ""}}


def _no_queries(folder: Path) -> dict[str, Any]:
    return {"log": [{**row, "q": "a"} for row in LOG], "columns": {"query_id": "q"}}


def _strangers(folder: Path) -> dict[str, Any]:
    return {"log": [{**row, "item_id": "x"} for row in LOG], "max_rejected_share": 1.0}


REFUSALS = [
    (_renamed, "no column 'timestamp'", "is 'time_stamp' meant? set ingest.columns.timestamp"),
    (_naive, "time without a zone 1", "set ingest.columns.time_zone"),
    (_milliseconds, "4 of 4 rows", "timestamp_unit=ms"),
    (_seconds, "4 of 4 rows", "timestamp_unit=s"),
    (_cut_gzip, "to its end", "fetch it again"),
    (_cut_parquet, "to its end", "fetch it again"),
    (_no_parquet, "to its end", "fetch it again"),
    (_empty, "0 bytes", "fetch the data again"),
    (_header, "the source has no events", "fetch the data again"),
    (_twice, "names every column once", "header"),
    (_array, "one array", "jq"),
    (_excel, "log.xlsx", "rename or convert"),
    (_nowhere, "no files of events", "ingest.tables.events"),
    (_no_items, "no table of items", "ingest.items_from_events=true"),
    (_no_queries, "the queries have no words", "ingest.tables.queries"),
    (_strangers, "4 of 4 rows of events", "unknown item 4"),
]


@pytest.mark.parametrize(("arrange", "matches", "hint"), REFUSALS, ids=[each[0].__name__ for each in REFUSALS])
def test_what_is_refused(tmp_path: Path, arrange: Any, matches: str, hint: str) -> None:
    with pytest.raises(RanklineError) as refused:
        small(tmp_path, **arrange(tmp_path))
    assert type(refused.value) is SourceError
    assert matches in str(refused.value)
    assert hint in str(refused.value)
    assert refused.value.expected
    assert refused.value.where
    assert not (tmp_path / "raw/events.parquet").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"columns": {"time_zone": "CET+1"}},
        {"columns": {"timestamp_unit": "minutes"}},
        {"columns": {"event_type": "kind"}},
        {"columns": {"event_type": "kind", "event_types": {"view": "seen"}}},
        {"columns": {"item_vectors": ("title",)}},
        {"files": {"encoding": "klingon"}},
        {"files": {"decimal": ";"}},
        {"source": "postgresql://me:secret@host/db"},
    ],
)
def test_settings_that_cannot_be_meant(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        IngestConfig(**{"source": "here", **settings})
    assert "secret" not in str(refused.value)


def test_the_settings_that_the_page_names_exist() -> None:
    text = (Path(__file__).parents[2] / "docs/data.md").read_text()
    named = re.findall(r"`(?:ingest\.)?columns\.(\w+)|`ingest\.(?:files|columns)\.(\w+)", text)
    assert named
    for name in named:
        assert {*name} - {""} <= {*Columns.model_fields, *TextFiles.model_fields}
