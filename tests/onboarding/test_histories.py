"""Tables of prices over time: the newest price of an item counts, and its other rows are no fault."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import duckdb
import pytest

from tests.onboarding.proposals import log, proposed, tried

TIMES = {
    "valid_from": lambda n: f"2023-01-{n + 1:02}", "updated_at": lambda n: f"2023-01-01T{n:02}:00:00Z",
    "version": lambda n: n, "start_date": lambda n: 1_670_000_000 + n,
}  # fmt: skip


def prices(name: str, *, with_title: bool) -> str:
    rows = [
        f"i{item}{f',A thing called {item}' if with_title else ''},{10 * item + n}.50,{TIMES[name](n)}"
        for n in range(4)
        for item in range(5)
    ]
    return "\n".join([f"item_id{',title' if with_title else ''},price,{name}", *rows])


@pytest.mark.parametrize("name", TIMES)
def test_items_with_prices_over_time_have_the_newest(tmp_path: Path, name: str) -> None:
    result = tried(tmp_path, {"log.csv": log(200), "catalogue.csv": prices(name, with_title=True)})
    assert {
        "item_id": "item_id",
        "price": "price",
        name: "valid_from",
        "title": "title",
    }.items() <= result.settings.items()
    assert result.result.rows_kept == {"items": 5, "events": 200, "users": 8, "queries": 0} | {
        table: rows for table, rows in result.result.rows_kept.items() if table in ("users", "queries")
    }
    assert (result.result.tables_over_limit, result.result.hint) == ([], "")


def test_a_table_of_prices_beside_the_items_is_named_with_the_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = "item_id,title\n" + "".join(f"i{n},A thing called {n}\n" for n in range(5))
    files = {"log.csv": log(200), "items.csv": items, "prices.csv": prices("valid_from", with_title=False)}
    (gap,) = [gap for gap in proposed(tmp_path, files).gaps if gap.what.startswith("prices.csv")]
    monkeypatch.chdir(tmp_path)
    duckdb.execute(shlex.split(gap.advice.partition("price of each: ")[2])[2])
    rows = duckdb.sql("SELECT item_id, price FROM 'items.parquet' ORDER BY ALL").fetchall()
    assert rows == [(f"i{n}", f"{10 * n + 3}.50") for n in range(5)]


def test_a_second_log_is_no_history_of_items(tmp_path: Path) -> None:
    orders = re.sub("timestamp", "updated_at", log(200)).replace("user_id", "customer_id")
    proposal = proposed(tmp_path, {"log.csv": log(200), "orders.csv": orders})
    assert "items" not in proposal.roles
