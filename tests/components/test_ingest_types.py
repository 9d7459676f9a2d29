"""Columns of every type that Parquet files and databases have: read, cast, or named."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.ingest.config import IngestConfig
from components.ingest.readers import transfer, typed
from components.ingest.step import ingest
from onboarding.survey.survey import survey
from rankline.errors import SourceError
from tests.components.test_ingest_text import run, table
from tests.servers.postgres import PASSWORD, Postgres

F16 = pa.float16()
DENSE = pa.UnionArray.from_dense(
    pa.array([0, 1], pa.int8()), pa.array([0, 0], pa.int32()), [pa.array([1]), pa.array(["b"])]
)
FAR_YEAR = "148108-07-06 14:00:27+00"
ENCODED: dict[str, tuple[Any, str, list[str | None]]] = {  # Arrow's types -> an array, its kind, its texts
    "float16": (pa.array([1.5, None], F16), "number", ["1.5", None]),
    "list of float16": (pa.array([[1.5, 2], None], pa.list_(F16)), "list", ["[1.5, 2.0]", None]),
    "fixed list of float16": (pa.array([[1.5, 2.0]], pa.list_(F16, 2)), "list", ["[1.5, 2.0]"]),
    "list view of float16": (pa.array([[1.5]], pa.list_view(F16)), "list", ["[1.5]"]),
    "struct of float16": (pa.array([{"x": 1.5}], pa.struct([("x", F16)])), "object", ["{'x': 1.5}"]),
    "decimal256": (pa.array([Decimal(10**50)], pa.decimal256(60)), "decimal", [str(10**50)]),
    "list of decimal256": (pa.array([[Decimal(10**50)]], pa.list_(pa.decimal256(60))), "list", [f"[{10**50}]"]),
    "null": (pa.nulls(2), "text", [None, None]),
    "list of null": (pa.array([[], None], pa.list_(pa.null())), "list", ["[]", None]),
    "runs": (pa.RunEndEncodedArray.from_arrays([2, 3], ["a", "b"]), "text", ["a", "a", "b"]),
    "runs of float16": (pa.RunEndEncodedArray.from_arrays([2], pa.array([1.5], F16)), "number", ["1.5", "1.5"]),
    "dictionary": (pa.array(["a", "b"]).dictionary_encode(), "text", ["a", "b"]),
    "dictionary of numbers": (pa.array([7, 8]).dictionary_encode(), "integer", ["7", "8"]),
    "string view": (pa.array(["a"], pa.string_view()), "text", ["a"]),
    "binary view": (pa.array([b"a"], pa.binary_view()), "text", ["a"]),
    "large list view": (pa.array([[1]], pa.large_list_view(pa.int64())), "list", ["[1]"]),
    "sparse union": (
        pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])]),
        "text", ["1", "b"],
    ),
    "dense union": (
        DENSE, "text", ["1", "b"],
    ),
    "uuid": (pa.array([bytes(16)], pa.uuid()), "other", ["00000000-0000-0000-0000-000000000000"]),
    "bool8": (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1], pa.int8())), "flag", ["true"]),
    "tensor": (
        pa.ExtensionArray.from_storage(
            pa.fixed_shape_tensor(pa.float32(), [1, 2]), pa.array([[1, 2]], pa.list_(pa.float32(), 2))
        ),
        "list", ["[1.0, 2.0]"],
    ),
    "seconds": (pa.array([10**9], pa.timestamp("s")), "naive", ["2001-09-09 01:46:40"]),
    "seconds of a far year": (pa.array([2**45], pa.timestamp("s", "UTC")), "instant", [FAR_YEAR]),
    "time": (pa.array([3600], pa.time32("s")), "other", ["01:00:00"]),
    "duration": (pa.array([1_000_000], pa.duration("us")), "other", ["00:00:01"]),
    "map": (pa.array([[("a", 1.5)]], pa.map_(pa.string(), F16)), "object", ["{a=1.5}"]),
}  # fmt: skip


@pytest.mark.parametrize("name", ENCODED)
def test_every_arrow_type_arrives(name: str) -> None:
    array, kind, texts = ENCODED[name]
    schema = pa.schema([("x", array.type)])
    part = typed.typed_part("events", "here", schema, iter([pa.record_batch([array], schema)]), selected=["x"])
    assert part.columns["x"].kind == kind
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        (batch,) = part.batches
        assert batch.schema.field("c0").type == part.schema.field("c0").type
        db.register("arriving", batch)
        rows = db.execute(f"SELECT CAST({part.columns['x'].sql} AS VARCHAR) FROM arriving").fetchall()
        assert [text for (text,) in rows] == texts


def test_half_floats_are_vectors(tmp_path: Path) -> None:
    vectors = pa.array([[0.5, 1.5], [2.5, -1.0]], pa.list_(F16))
    pq.write_table(
        pa.table({"item_id": ["i0", "i1"], "title": ["a", "b"], "embedding": vectors}), tmp_path / "items.parquet"
    )
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\nu,i0,1680000000\nu,i1,1680000001\n")
    given: dict[str, Any] = {"tables": {"items": "items.parquet"}, "columns": {"title": "title"}}
    given["columns"] |= {"item_vectors": ("embedding",)}
    run(tmp_path, **given)
    assert [item["embedding"] for item in table(tmp_path, "items")] == [[0.5, 1.5], [2.5, -1.0]]
    assert survey(str(tmp_path), only=("items.parquet",)).tables["items"].columns["embedding"].vectors == 1


def test_what_nothing_reads_is_named() -> None:
    with pytest.raises(SourceError, match="the column 'odd' cannot be read"):
        transfer.transferred(pa.ListArray.from_arrays(pa.array([0, 2], pa.int32()), DENSE), "here", "odd")
    assert "not encrypted" in str(transfer.batch_error("here", pa.ArrowNotImplementedError("encrypted")))
    assert "truncated" in str(transfer.batch_error("here", pa.ArrowInvalid("short")))


@pytest.mark.parametrize(
    ("first", "second", "kinds"),
    [
        (pa.nulls(2), pa.array(["a", "b"]), ["a", "b"]),
        (pa.array([1, 2]), pa.array(["a", "b"]), ["1", "2", "a", "b"]),
        (pa.array([1, 2]), pa.array([1.5, None]), ["1.0", "2.0", "1.5"]),
        (pa.array([[1], [2]]), pa.array([7, 8]), ["[1]", "[2]", "7", "8"]),
        (pa.array([{"a": 1}, None]), pa.array(["x", "y"]), ["{'a': 1}", "x", "y"]),
        (pa.array([True, False]), pa.array([datetime(2024, 1, 1)] * 2), ["true", "false", "2024-01-01 00:00:00"]),
    ],
)
def test_parts_that_type_a_column_differently_are_one_table(
    tmp_path: Path, first: Any, second: Any, kinds: list[str]
) -> None:
    for name, array in (("day-1", first), ("day-2", second)):
        log = pa.table({"user_id": [f"{name}-1", f"{name}-2"], "item_id": ["i1", "i2"], "channel": array})
        pq.write_table(log, tmp_path / f"{name}.parquet")
    surveyed = survey(str(tmp_path))
    rows = surveyed.db.execute("SELECT CAST(channel AS VARCHAR) FROM day WHERE channel IS NOT NULL").fetchall()
    assert list(dict.fromkeys(text for (text,) in rows)) == kinds
    result = run(tmp_path, "day-*.parquet", columns={"timestamp": "", "event_attributes": ("channel",)})
    assert result["rejected"]["events"] == {}


# -- databases -------------------------------------------------------------------------------------------------

FAR = ("infinity", "-infinity", "0044-03-15 (BC)", "0001-01-01", "12000-01-01", "290000-01-01", "9999-12-31")


def read(folder: Path, source: str, *, zone: str = "UTC", **settings: Any) -> dict[str, Any]:
    """Ingest of the tables log and things of a database."""
    columns = {"timestamp": "happened", "time_zone": zone, "title": "title", "created_at": "created", "category": ""}
    columns |= {"created_year": "", "labels": {}, "user_attributes": ()}
    given = {"source": source, "format": "sql", "tables": {"events": "log", "items": "things"}, "columns": columns}
    ingest(folder / "raw", config=IngestConfig(**{"max_rejected_share": 0.9, **given, **settings}))
    result: dict[str, Any] = json.loads((folder / "raw/summary.json").read_text())
    return result


@pytest.mark.parametrize("type", ["TIMESTAMP", "TIMESTAMPTZ", "DATE", "TIMESTAMP_S", "TIMESTAMP_MS"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_far_times_of_a_duckdb_file_are_rejected_by_row(tmp_path: Path, type: str, zone: str) -> None:
    with duckdb.connect(str(tmp_path / "shop.duckdb")) as db:
        db.execute("SET TimeZone = 'UTC'")
        rows = ", ".join(f"('u{n}', 'i{n % 3}', '{far}'::{type})" for n, far in enumerate((*FAR, "2024-01-01")))
        db.execute(f"CREATE TABLE log AS FROM (VALUES {rows}) AS t(user_id, item_id, happened)")
        rows = ", ".join(f"('i{n}', 'thing {n}', '{far}'::{type})" for n, far in enumerate((*FAR, "2024-01-01")))
        db.execute(f"CREATE TABLE things AS FROM (VALUES {rows}) AS t(item_id, title, created)")
    result = read(tmp_path, str(tmp_path / "shop.duckdb"), zone=zone)
    assert (result["rows"]["events"], result["rows"]["items"]) == (1, len(FAR) + 1)
    assert sum(result["rejected"]["events"].values()) == len(FAR)
    created = [item["created_at"] for item in table(tmp_path, "items")]
    assert [each is not None for each in created] == [False] * len(FAR) + [True]
    assert survey(str(tmp_path / "shop.duckdb")).tables["things"].columns["title"].values == len(FAR) + 1


@pytest.mark.integration
@pytest.mark.parametrize("type", ["timestamp", "timestamptz", "date"])
def test_far_times_of_postgres_are_rejected_by_row(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, type: str
) -> None:
    import psycopg

    far = [each.replace("(BC)", "BC") for each in FAR]
    with psycopg.connect(postgres.secret_url) as connection:
        connection.execute("DROP TABLE IF EXISTS log; DROP TABLE IF EXISTS things; SET TimeZone = 'UTC'")
        rows = ", ".join(f"('u{n}', 'i{n % 3}', '{each}'::{type})" for n, each in enumerate((*far, "2024-01-01")))
        connection.execute(f"CREATE TABLE log AS SELECT * FROM (VALUES {rows}) AS t(user_id, item_id, happened)")  # type: ignore[arg-type]
        rows = ", ".join(f"('i{n}', 'thing {n}', '{each}'::{type})" for n, each in enumerate((*far, "2024-01-01")))
        connection.execute(f"CREATE TABLE things AS SELECT * FROM (VALUES {rows}) AS t(item_id, title, created)")  # type: ignore[arg-type]
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    result = read(tmp_path, postgres.url)
    assert (result["rows"]["events"], result["rows"]["items"]) == (1, len(FAR) + 1)
    assert result["rejected"]["events"] == {"implausible time": len(FAR)}
    dates = {item["item_id"]: item["created_at"] for item in table(tmp_path, "items")}
    assert [dates[f"i{n}"] for n in range(len(FAR) + 1)] == [None] * len(FAR) + [datetime(2024, 1, 1, tzinfo=UTC)]
    assert survey(postgres.url).tables["things"].columns["title"].values == len(FAR) + 1


@pytest.mark.integration
def test_a_duckdb_file_reaches_no_other_file(tmp_path: Path) -> None:
    secret, written = tmp_path / "secret.txt", tmp_path / "written.csv"
    secret.write_text("not to be read")
    path = tmp_path / "shop.duckdb"
    with duckdb.connect(str(path)) as db:
        db.execute("CREATE TABLE log AS SELECT 'u' AS user_id, 'i' AS item_id, TIMESTAMP '2024-01-01' AS happened")
        db.execute("CREATE TABLE things AS SELECT 'i' AS item_id, 'thing' AS title, NULL::DATE AS created")
        db.execute(f"CREATE VIEW leak AS SELECT 'i' AS item_id, content AS title FROM read_text('{secret}')")
    for items in (
        "leak",
        f"SELECT 'i' AS item_id, content AS title FROM read_text('{secret}')",
        "SELECT getenv('HOME')",
    ):
        with pytest.raises(SourceError, match="refuses a query"):
            read(tmp_path, str(path), tables={"events": "log", "items": items})
    for more in (f"; COPY (SELECT 1) TO '{written}'", "; SET enable_external_access = true; SELECT 1"):
        with pytest.raises(SourceError, match="more than a query"):
            read(tmp_path, str(path), tables={"events": "log", "items": "SELECT * FROM things" + more})
    assert not written.exists()
    with pytest.raises(SourceError) as error:
        survey(str(path))
    assert "not to be read" not in str(error.value)
    assert read(tmp_path, str(path), tables={"events": "log", "items": "SELECT * FROM things;"})["rows"]["items"]


def test_postgres_runs_one_query(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg

    with psycopg.connect(postgres.secret_url) as connection:
        connection.execute("DROP TABLE IF EXISTS log; CREATE TABLE log AS SELECT 'u' AS user_id, 'i' AS item_id")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    query = "SELECT * FROM log) AS a; COMMIT; DROP TABLE log; SELECT * FROM (SELECT 1"
    with pytest.raises(SourceError, match="refuses a query"):
        read(tmp_path, postgres.url, tables={"events": query, "items": "SELECT 'i' AS item_id"})
    with psycopg.connect(postgres.secret_url) as connection:
        assert connection.execute("SELECT count(*) FROM log").fetchone() == (1,)


TYPES = {
    "BIT": ("'1010'::BIT", "1010"), "TIMETZ": ("'10:00:00+02'::TIMETZ", "10:00:00+02"), "ENUM": ("'a'::ENUM('a')", "a"),
    "INTERVAL": ("INTERVAL 3 DAY", "3 days"), "UUID": (f"'{'6' * 8}-0000-0000-0000-{'1' * 12}'::UUID", None),
    "UNION": ("union_value(num := 7)", "7"), "MAP": ("MAP {'a': 7}", "{a=7}"), "HUGEINT": ("7::UHUGEINT", "7"),
    "VARIANT": ("7::VARIANT", "7"),
}  # fmt: skip


def test_every_type_of_duckdb_is_read(tmp_path: Path) -> None:
    columns = ", ".join(f"{sql} AS of_{kind}" for kind, (sql, _) in TYPES.items())
    with duckdb.connect(str(tmp_path / "shop.duckdb")) as db:
        db.execute(f"CREATE TABLE log AS SELECT 'u' AS user_id, 'i' || i AS item_id, {columns} FROM range(9) AS t(i)")
    named = tuple(f"of_{kind}" for kind in TYPES)
    settings = {"title": "", "category": "", "created_year": "", "labels": {}, "user_attributes": (), "timestamp": ""}
    config = IngestConfig(
        source=str(tmp_path / "shop.duckdb"), format="sql", tables={"events": "log"}, items_from_events=True,
        columns={**settings, "event_attributes": named},
    )  # fmt: skip
    ingest(tmp_path / "raw", config=config)
    (event, *_) = pq.read_table(tmp_path / "raw/events.parquet").to_pylist()
    expected = {f"of_{kind}": text or f"{'6' * 8}-0000-0000-0000-{'1' * 12}" for kind, (_, text) in TYPES.items()}
    assert {name: event[name] for name in named} == expected
    surveyed = survey(str(tmp_path / "shop.duckdb"))
    assert surveyed.tables["log"].columns["of_BIT"].examples == ("1010",)
