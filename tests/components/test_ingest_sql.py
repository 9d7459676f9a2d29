"""Ingest out of databases: a DuckDB file, and a real Postgres server."""

import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from components.ingest.config import IngestConfig
from components.ingest.readers import sql
from components.ingest.step import ingest
from rankline.errors import SourceError
from rankline.io import digest, sources
from rankline.runtime.progress import Progress
from tests.components.shop_source import COLUMNS, EVENTS, ITEMS, USERS, write
from tests.servers.postgres import PASSWORD, Postgres

TABLES = {"events": "events", "items": "items", "users": "users"}


def run(folder: Path, **settings: Any) -> dict[str, Any]:
    given = {"format": "sql", "tables": TABLES, "columns": COLUMNS, **settings}
    return ingest(folder, config=IngestConfig(**given))


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The shop as a DuckDB file."""
    with duckdb.connect(str(tmp_path / "shop.duckdb")) as db:
        for name, rows in (("events", EVENTS), ("items", ITEMS), ("users", USERS)):
            db.execute(f"CREATE TABLE {name} AS FROM '{write(tmp_path / f'{name}.parquet', rows)}'")
    return tmp_path / "shop.duckdb"


def test_a_duckdb_file_and_files_give_the_same_rows(shop: Path, tmp_path: Path) -> None:
    before = digest.file_digest(shop)
    actual = run(tmp_path / "raw", source=str(shop))
    files = {name: f"{name}.parquet" for name in TABLES}
    same = run(tmp_path / "same", source=str(tmp_path), format="tables", tables=files)
    assert actual == same
    assert actual["rows"] == {"items": 4, "users": 4, "queries": 0, "events": 12}
    assert digest.file_digest(shop) == before
    assert not shop.with_suffix(".duckdb.wal").exists()


WINDOW = {"window_start": "2023-11-14T22:16:00", "window_end": "2023-11-14T22:20:00"}
AT = 'make_timestamptz("at" * 1000)'
SHOWN = {  # how the time is typed -> the column as SQL of DuckDB, is the window asked of the database?
    "number": ('"at"', {}, True),
    "timestamptz": (AT, {}, True),
    "naive": (f"timezone('Europe/Berlin', {AT})", {"time_zone": "Europe/Berlin"}, False),
    "text": (f"strftime(timezone('UTC', {AT}), '%c')", {"timestamp_unit": "%c", "time_zone": "UTC"}, False),
}


def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Table -> how many rows of it have come out of the database, counted from here on."""
    arrived: dict[str, int] = {}
    typed_part = sql.typed_part

    def counting(table: str, where: str, schema: Any, batches: Any, **more: Any) -> Any:
        def through() -> Any:
            for batch in batches:
                arrived[table] = arrived.get(table, 0) + len(batch)
                yield batch

        return typed_part(table, where, schema, through(), **more)

    monkeypatch.setattr(sql, "typed_part", counting)
    return arrived


@pytest.mark.parametrize("kind", SHOWN)
def test_the_window_is_asked_of_the_database_where_it_can_tell(
    shop: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expression, settings, pushed = SHOWN[kind]
    arrived = counted(monkeypatch)
    query = f'SELECT * REPLACE ({expression} AS "at") FROM events ORDER BY rowid'
    tables = {**TABLES, "events": query}
    actual = run(tmp_path / "raw", source=str(shop), tables=tables, columns={**COLUMNS, **settings}, **WINDOW)
    assert (actual["rows"]["events"], actual["outside_window"]) == (4, 8)
    assert arrived == {"events": 4 if pushed else 12, "items": 4, "users": 3}


def test_database_files_that_are_refused(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no_such_table"):
        run(tmp_path / "raw", source=str(shop), tables={**TABLES, "events": "no_such_table"})
    with pytest.raises(SourceError, match="'sku' meant"):
        run(tmp_path / "raw", source=str(shop), columns={**COLUMNS, "item_id": "skuu"})
    with pytest.raises(SourceError, match="does not exist"):
        run(tmp_path / "raw", source=str(tmp_path / "gone.duckdb"))
    (tmp_path / "no.duckdb").write_text("this is no database")
    with pytest.raises(SourceError, match="cannot be read"):
        run(tmp_path / "raw", source=str(tmp_path / "no.duckdb"))


def fill(server: Postgres) -> None:
    import psycopg

    with psycopg.connect(server.secret_url) as db:
        db.execute(
            """
            DROP TABLE IF EXISTS events, items, users;
            CREATE TABLE events (customer text, sku varchar(9), at bigint, kind text, device text);
            CREATE TABLE items (sku text, name text, words text, tags varchar(40)[], cost numeric(9, 2), stock boolean,
                                lang char(2), since timestamptz, weight integer, image real[]);
            CREATE TABLE users (customer text, city text, age smallint)
            """
        )
        for name, rows in (("events", EVENTS), ("items", ITEMS), ("users", USERS)):
            marks = ", ".join(["%s"] * len(rows[0]))
            db.cursor().executemany(f"INSERT INTO {name} VALUES ({marks})", [list(row.values()) for row in rows])


def ordered() -> dict[str, str]:
    return {
        "events": "SELECT * FROM events ORDER BY at -- oldest first",
        "items": "SELECT * FROM items ORDER BY sku",
    } | {"users": "SELECT * FROM users ORDER BY customer"}


@pytest.mark.integration
def test_postgres_and_files_give_the_same_rows(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(postgres)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    monkeypatch.setattr(sql, "FETCH_ROWS", 5)
    actual = run(tmp_path / "raw", source=postgres.url, tables=ordered())
    for name, rows in (("events", EVENTS), ("items", ITEMS), ("users", USERS)):
        write(tmp_path / f"{name}.csv", rows)
    same = run(tmp_path / "same", source=str(tmp_path), format="tables", tables={n: f"{n}.csv" for n in TABLES})
    assert actual == same
    arrived = counted(monkeypatch)
    instants = "SELECT customer, sku, to_timestamp(at / 1000.0) AS at, kind, device FROM events"
    for events in ("events", instants):
        arrived.clear()
        window = run(tmp_path / "window", source=postgres.url, tables={**TABLES, "events": events}, **WINDOW)
        assert (window["rows"]["events"], window["outside_window"]) == (4, 8)
        assert arrived == {"events": 4, "items": 4, "users": 3}


def test_numbers_of_postgres_keep_every_digit(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(postgres)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    big = 12345678901234567890123
    customer = f"{big}::numeric + row_number() OVER (ORDER BY at)"
    events = f"SELECT {customer} AS customer, sku, at::numeric, kind, device FROM events"
    run(tmp_path / "raw", source=postgres.url, tables={**TABLES, "events": events})
    users = [event["user_id"] for event in pq.read_table(tmp_path / "raw/events.parquet").to_pylist()]
    assert users == [f"{big + n}" for n in range(1, 13)]


def test_postgres_rows_come_in_an_order_of_their_own(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    fill(postgres)
    monkeypatch.setenv("SHOP_URL", postgres.secret_url)
    settings: dict[str, Any] = {"source": "", "connection": "SHOP_URL"}
    seen = sources.source_digest(IngestConfig(format="sql", tables=TABLES, **settings))
    first = run(tmp_path / "first", **settings)
    with psycopg.connect(postgres.secret_url) as db:  # the same rows, stored the other way round
        db.execute("CREATE TABLE other AS SELECT * FROM events ORDER BY at DESC; DROP TABLE events")
        db.execute("ALTER TABLE other RENAME TO events")
    assert run(tmp_path / "second", **settings) == first
    assert sources.source_digest(IngestConfig(format="sql", tables=TABLES, **settings)) == seen
    with psycopg.connect(postgres.secret_url) as db:
        db.execute("UPDATE events SET device = 'desk' WHERE at = (SELECT min(at) FROM events)")
    assert sources.source_digest(IngestConfig(format="sql", tables=TABLES, **settings)) != seen


@pytest.mark.parametrize("way", ["environment", "variable", "wrong", "unset", "garbled"])
def test_the_password_is_in_no_message_and_no_file(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    fill(postgres)
    monkeypatch.delenv("PGPASSWORD", raising=False)
    settings = {"source": postgres.url}
    result = {
        "environment": ("PGPASSWORD", PASSWORD),
        "variable": ("SHOP_URL", postgres.secret_url),
        "wrong": ("SHOP_URL", postgres.secret_url.replace(PASSWORD, PASSWORD + "-not")),
        "unset": ("OTHER", ""),
        "garbled": ("SHOP_URL", f"postgres//me:{PASSWORD}@nowhere"),
    }[way]
    monkeypatch.setenv(*result)
    if way != "environment":
        settings |= {"connection": "SHOP_URL"}
    if way in ("environment", "variable"):
        run(tmp_path / "raw", **settings)
        with pytest.raises(SourceError) as refused:
            run(tmp_path / "refused", **settings, tables={**TABLES, "events": "SELECT gone FROM events"})
        assert "gone" in str(refused.value)
    else:
        with pytest.raises(SourceError) as refused:
            run(tmp_path / "raw", **settings)
        with pytest.raises(SourceError):
            sources.source_digest(IngestConfig(format="sql", tables=TABLES, **settings))
    assert PASSWORD not in str(refused.value)
    assert PASSWORD not in json.dumps(IngestConfig(format="sql", tables=TABLES, **settings).model_dump())
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or PASSWORD.encode() not in path.read_bytes()


@pytest.mark.integration
def test_a_server_that_is_killed_half_way(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg

    fill(postgres)
    with psycopg.connect(postgres.secret_url) as db:
        db.execute(
            "CREATE TABLE many AS SELECT 'u' || n AS customer, 'i1' AS sku, 1700000000000 + n AS at, 'view' AS kind, "
            "repeat('x', 200) AS device FROM generate_series(1, 60000) AS n"
        )
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    monkeypatch.setattr(sql, "FETCH_ROWS", 1000)
    batches = []

    class Killing(Progress):
        def update(self, done: int, total: int = 0) -> None:
            batches.append(done)
            if len(batches) == 3:
                postgres.kill()

    tables = {**TABLES, "events": "SELECT * FROM many"}
    config = IngestConfig(format="sql", source=postgres.url, tables=tables, columns=COLUMNS)
    with pytest.raises(SourceError) as refused:
        ingest(tmp_path / "raw", config=config, progress=Killing())
    assert 3 <= len(batches) < 60
    assert "the connection was lost" in str(refused.value)
    assert "run again" in str(refused.value)
    assert list((tmp_path / "raw").iterdir()) == []
    with pytest.raises(SourceError, match="cannot be reached"):
        ingest(tmp_path / "raw", config=config)
    postgres.start()
    actual = ingest(tmp_path / "raw", config=config)
    assert actual["rows"]["events"] == 60_000
    assert pq.read_metadata(tmp_path / "raw/events.parquet").num_rows == 60_000
