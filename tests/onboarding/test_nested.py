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


LOGS = {"ga4": (ga4, "items"), "segment": (segment, "properties.products"), "order": (order, "line_items")}


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


@pytest.mark.parametrize("kind", LOGS)
@pytest.mark.parametrize("suffix", ["json", "parquet", "duckdb"])
def test_nested_items_are_answered_with_the_query_that_flattens_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, suffix: str
) -> None:
    proposal = proposed(write_log(tmp_path, kind, suffix))
    assert proposal.kind == "interactions"
    (gap,) = [gap for gap in proposal.gaps if gap.flag == "--events"]
    assert gap.what.endswith(f"are in lists of objects ({LOGS[kind][1]})")
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
    assert settings["user_id"] in ("user_pseudo_id", "userId", "customer.id")
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
