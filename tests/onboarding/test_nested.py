"""Logs whose items are in lists of objects: recognised, and answered with the query that flattens them, which works."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import duckdb
import pytest

from onboarding.inference.dry_run import dry_run
from onboarding.inference.proposal import Proposal, propose
from onboarding.inference.render import render_map
from onboarding.survey.survey import survey
from pipelines.recipes import interactions
from tests.servers.postgres import PASSWORD, Postgres

SECONDS = 1_680_000_000


def ga4(n: int) -> dict[str, Any]:
    """An event of GA4 as BigQuery exports it."""
    return {
        "event_date": "20230501", "event_timestamp": f"{(SECONDS + n * 977) * 1_000_000}",
        "event_name": ("view_item", "add_to_cart", "purchase")[n % 3],
        "user_pseudo_id": f"{1_000_000 + n * 7 % 40}.{1_600_000_000 + n * 7 % 40}",
        "event_params": [{"key": "ga_session_id", "value": {"int_value": f"{n}"}}],
        "items": [{"item_id": f"SKU{n * 17 % 20}", "item_name": f"thing {n}"}],
    }  # fmt: skip


def segment(n: int) -> dict[str, Any]:
    """A message of Segment."""
    return {
        "messageId": f"m-{n}-abcdef", "userId": f"u{n % 40}", "event": ("Product Viewed", "Order Completed")[n % 2],
        "timestamp": f"2023-03-{n % 28 + 1:02}T10:{n % 60:02}:00Z",
        "properties": {"currency": "USD", "products": [{"product_id": f"p{n % 20}"}, {"product_id": f"p{n % 7}"}]},
    }  # fmt: skip


def order(n: int) -> dict[str, Any]:
    """An order of a shop."""
    return {
        "order_number": 1000 + n, "customer": {"id": f"c{n % 40}"},
        "created_at": f"2023-03-{n % 28 + 1:02}T10:00:{n % 60:02}Z",
        "line_items": [{"variant_id": n % 20, "sku": f"SKU-{n % 20}", "quantity": 1}],
    }  # fmt: skip


def customer(n: int) -> dict[str, Any]:
    """A customer with orders, which have lines."""
    at = [f"2023-03-{n % 28 + 1:02}T1{k}:00:{n % 60:02}Z" for k in range(2)]
    lines = [[{"sku": f"S{(n + k + each) % 20}", "quantity": each} for each in (1, 2)] for k in range(2)]
    orders = [{"order_id": 10 * n + k, "created_at": at[k], "lines": lines[k]} for k in range(2)]
    return {"customer_id": f"c{n % 60}", "orders": orders}


def storefront(n: int) -> dict[str, Any]:
    """An order as the GraphQL interface of a shop answers it."""
    edges = [{"node": {"quantity": 1, "product": {"id": f"gid://shop/Product/{(n + k) % 20}"}}} for k in range(2)]
    return {
        "name": f"#{n}", "customer": {"id": f"gid://shop/Customer/{n % 40}"}, "lineItems": {"edges": edges},
        "processedAt": f"2023-03-{n % 28 + 1:02}T10:00:{n % 60:02}Z",
    }  # fmt: skip


def otto(n: int) -> dict[str, Any]:
    """A session of OTTO."""
    kinds = ("clicks", "carts", "orders")
    events = [{"aid": (n * 7 + k) % 50, "ts": SECONDS * 1000 + n * 977 + k, "type": kinds[k]} for k in range(3)]
    return {"session": 11_000_000 + n % 60, "events": events}


def parameter(n: int) -> dict[str, Any]:
    """An event of GA4 whose item is a parameter."""
    item = {"key": "item_id", "value": {"string_value": f"SKU{n * 17 % 20}", "int_value": None}}
    page = {"key": "page", "value": {"string_value": f"/p/{n}", "int_value": None}}
    return {**ga4(n), "items": [], "event_params": [page, item]}


def basket(n: int) -> dict[str, Any]:
    """A basket with the ids of its items."""
    return {"user_id": f"u{n % 40}", "at": SECONDS + n, "items": [f"i{n % 20}", f"i{(n + 3) % 20}"][: n % 3 % 2 + 1]}


LOGS = {
    "ga4": (ga4, "objects (items)"), "segment": (segment, "objects (properties.products)"),
    "order": (order, "objects (line_items)"), "customer": (customer, "objects (orders.lines)"),
    "storefront": (storefront, "objects (lineItems.edges)"), "otto": (otto, "objects (events)"),
    "parameter": (parameter, "objects (event_params)"), "basket": (basket, "ids (items)"),
}  # fmt: skip


def proposed(source: Path) -> Proposal:
    return propose(survey(str(source)), name="mine", time_zone="UTC")


def write_log(folder: Path, kind: str, suffix: str) -> Path:
    rows = "\n".join(json.dumps(LOGS[kind][0](n)) for n in range(200))
    (folder / "log.json").write_text(rows)
    if suffix == "json":
        return folder / "log.json"
    path = folder / f"log.{suffix}"
    if suffix == "duckdb":
        with duckdb.connect(str(path)) as db:
            db.execute(f"CREATE TABLE log AS FROM read_json('{folder / 'log.json'}')")
    else:
        duckdb.sql(f"FROM read_json('{folder / 'log.json'}')").write_parquet(str(path))
    return path


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        *((kind, "json") for kind in LOGS),
        *((kind, "parquet") for kind in ("ga4", "customer", "basket")),
        *((kind, "duckdb") for kind in ("segment", "storefront", "parameter")),
    ],
)
def test_nested_items_are_answered_with_the_query_that_flattens_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, suffix: str
) -> None:
    proposal = proposed(write_log(tmp_path, kind, suffix))
    assert proposal.kind == "interactions"
    (gap,) = [gap for gap in proposal.gaps if gap.flag == "--events"]
    assert gap.what.endswith(f"are in lists of {LOGS[kind][1]}")
    if suffix == "duckdb":
        query = gap.advice.partition("the query: ")[2]
        surveyed = survey(str(tmp_path / "log.duckdb"), only=(query,))
    else:
        (tmp_path / "flat").mkdir()
        monkeypatch.chdir(tmp_path / "flat")
        command = shlex.split(gap.advice.partition("for each item: ")[2])
        assert command[:2] == ["duckdb", "-c"]
        duckdb.execute(command[2])
        surveyed = survey(str(tmp_path / "flat"))
    flat = propose(surveyed, name="mine", time_zone="UTC")
    assert (flat.kind, [gap.flag for gap in flat.gaps if gap.flag]) == ("interactions", [])
    settings = {setting: flat.column("events", setting) for setting in ("user_id", "item_id", "timestamp")}
    assert settings["item_id"] == "item_id"
    assert settings["user_id"] in ("user_pseudo_id", "userId", "customer.id", "customer_id", "session", "user_id")
    assert settings["timestamp"]
    (tmp_path / "mine.toml").write_text(render_map(flat))
    result = dry_run(interactions(surveyed.source, str(tmp_path / "mine.toml")).ingest)
    assert result.rows_kept["events"] >= 200
    assert result.hint == ""


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_lists_that_are_json_in_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    rows = [
        {**order(n), "customer": f"c{n % 40}", "line_items": json.dumps(order(n)["line_items"])} for n in range(200)
    ]
    (tmp_path / "log.json").write_text("\n".join(map(json.dumps, rows)))
    table = duckdb.sql(f"FROM read_json('{tmp_path / 'log.json'}')")
    path = tmp_path / f"log.{suffix}"
    table.write_csv(str(path)) if suffix == "csv" else table.write_parquet(str(path))
    (gap,) = [gap for gap in proposed(path).gaps if gap.flag == "--events"]
    (tmp_path / "flat").mkdir()
    monkeypatch.chdir(tmp_path / "flat")
    duckdb.execute(shlex.split(gap.advice.partition("for each item: ")[2])[2])
    flat = proposed(tmp_path / "flat")
    assert (flat.column("events", "item_id"), flat.column("events", "user_id")) == ("item_id", "customer")


WRITTEN = {
    "blanks": "i{a} i{b}", "bars": "i{a}|i{b}", "semicolons": "i{a};i{b}", "Python": "['i{a}', 'i{b}']",
    "JSON": '[""i{a}"", ""i{b}""]', "Postgres": "{{i{a},i{b}}}", "judged": "N{a}-1 N{b}-0",
}  # fmt: skip


@pytest.mark.parametrize("kind", WRITTEN)
def test_ids_in_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    cells = [WRITTEN[kind].format(a=n % 20, b=(n + 3) % 20) for n in range(200)]
    name = "impressions" if kind == "judged" else "items"
    rows = [f'u{n % 40},"{cell}",{SECONDS + n}' for n, cell in enumerate(cells)]
    (tmp_path / "log.csv").write_text("\n".join([f"user_id,{name},at", *rows]))
    (gap,) = [gap for gap in proposed(tmp_path / "log.csv").gaps if gap.flag == "--events"]
    (tmp_path / "flat").mkdir()
    monkeypatch.chdir(tmp_path / "flat")
    duckdb.execute(shlex.split(gap.advice.partition("for each item: ")[2])[2])
    flat = proposed(tmp_path / "flat")
    assert (flat.column("events", "item_id"), flat.table("events").rows) == ("item_id", 400)
    sign = "N" if kind == "judged" else "i"
    assert set(flat.survey.values("events", "item_id")) == {f"{sign}{n}" for n in range(20)}
    assert ("labels.click" in {each.setting for each in flat.column_mappings["events"]}) == (kind == "judged")


@pytest.mark.parametrize("item", ["A12-B{n}", "red shoes {n}", "shop|{n}", "{n}.0", "(new) {n}", "Product {n}, blue"])
def test_ids_of_one_item_are_no_lists(tmp_path: Path, item: str) -> None:
    rows = [f'u{n % 40},"{item.format(n=n % 20)}",{SECONDS + n}' for n in range(200)]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,product,at", *rows]))
    assert not any("lists of" in gap.what for gap in proposed(tmp_path / "log.csv").gaps)


ORDERS = {
    "Instacart": ("order_id,user_id,order_number", "order_id,product_id,add_to_cart_order", "{n},u{user},{n}"),
    "a shop": ("id,customer_id,created_at", "order_id,sku,quantity", "{n},u{user},2023-03-28T10:00:00Z"),
    "sessions": ("session_id,visitor_id,started_at", "session_id,item_id,clicked", "{n},u{user},2023-03-28T10:00:00Z"),
}


@pytest.mark.parametrize(
    ("kind", "suffix"), [("Instacart", "csv"), ("a shop", "parquet"), ("a shop", "duckdb"), ("sessions", "csv")]
)
def test_users_and_items_in_two_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, suffix: str) -> None:
    orders, lines, row = ORDERS[kind]
    heads = [row.format(n=1000 + n, user=n % 40) for n in range(200)]
    rows = [f"{1000 + n},{500 + (n * 3 + k) % 50},{k % 2}" for n in range(200) for k in range(2)]
    source = tmp_path / "source"
    source.mkdir()
    for name, text in (("orders", [orders, *heads]), ("order_lines", [lines, *rows])):
        (tmp_path / f"{name}.csv").write_text("\n".join(text))
        table = duckdb.sql(f"FROM read_csv('{tmp_path / name}.csv')")
        if suffix == "duckdb":
            with duckdb.connect(str(source / "shop.duckdb")) as db:
                db.execute(f"CREATE TABLE {name} AS FROM read_csv('{tmp_path / name}.csv')")
        else:
            path = str(source / f"{name}.{suffix}")
            table.write_csv(path) if suffix == "csv" else table.write_parquet(path)
    (gap,) = [gap for gap in proposed(source).gaps if gap.flag == "--events"]
    assert f"by {lines.partition(',')[0]}" in gap.what
    if suffix == "duckdb":
        query = gap.advice.partition("the query: ")[2]
        flat = propose(survey(str(source / "shop.duckdb"), only=(query,)), name="mine", time_zone="UTC")
    else:
        (tmp_path / "flat").mkdir()
        monkeypatch.chdir(tmp_path / "flat")
        duckdb.execute(shlex.split(gap.advice.partition("as one log: ")[2])[2])
        flat = proposed(tmp_path / "flat")
    settings = [flat.column("events", setting) for setting in ("user_id", "item_id")]
    assert settings == [orders.split(",")[1], lines.split(",")[1]]
    assert flat.table("events").rows == 400


def test_lists_in_postgres(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg

    with psycopg.connect(postgres.secret_url) as connection:
        connection.execute("DROP TABLE IF EXISTS orders")
        connection.execute("CREATE TABLE orders (customer_id text, created_at timestamptz, line_items jsonb)")
        for n in range(100):
            values = (f"c{n % 40}", order(n)["created_at"], json.dumps(order(n)["line_items"]))
            connection.execute("INSERT INTO orders VALUES (%s, %s, %s)", values)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    proposal = propose(survey(postgres.url, only=("orders",)), name="mine")
    (gap,) = [gap for gap in proposal.gaps if gap.flag == "--events"]
    flat = propose(survey(postgres.url, only=(gap.advice.partition("the query: ")[2],)), name="mine")
    assert (flat.column("events", "item_id"), flat.column("events", "user_id")) == ("item_id", "customer_id")
    assert flat.table("events").rows == 100


def test_objects_are_no_texts_and_one_value_is_no_label(tmp_path: Path) -> None:
    rows = [{"params": [{"key": f"k{n}", "value": "some words in an object"}], "date": "20230501"} for n in range(100)]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    proposal = proposed(tmp_path)
    assert proposal.kind == "interactions"
    assert not any(each.setting in ("query_text", "text") for each in proposal.column_mappings["events"])


@pytest.mark.parametrize("text", ["{'a': 1}", '{"a": 1}', '[{"a": 1}]', "{a=1}", "[{'name': 'x'}]"])
@pytest.mark.parametrize("other", ["a {word} here", "[1, 2]", "{}", "Size: {S, M}"])
def test_objects_are_no_texts_and_texts_no_objects(tmp_path: Path, text: str, other: str) -> None:
    rows = [{"item_id": f"i{n}", "a": text, "b": other} for n in range(10)]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = survey(str(tmp_path)).tables["items"].columns
    assert (columns["a"].objects, columns["b"].objects) == (1, 0)
