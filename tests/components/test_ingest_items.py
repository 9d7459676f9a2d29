"""Items alone, as a refresh reads them: from every format, and which of their columns they tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

from components.ingest.config import Columns, IngestConfig
from components.ingest.step import ingest
from pipelines.recipes import named
from pipelines.refresh import items_recipe
from rankline.contracts import ITEMS, SUPERSEDED
from rankline.errors import SourceError
from rankline.io import sources
from rankline.io.sources import Tables
from tests.components.test_ingest_text import refused, run, table

NONE: dict[str, Any] = {"title": "", "category": "", "created_year": "", "user_attributes": (), "labels": {}}


def read(folder: Path, config: IngestConfig) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The items, and the summary; no other table has a row."""
    ingest(folder / "raw", config=config)
    for name in ("events", "users", "queries"):
        assert parquet.read_metadata(folder / "raw" / f"{name}.parquet").num_rows == 0
    summary = json.loads((folder / "raw" / "summary.json").read_text())
    items = parquet.read_table(folder / "raw" / "items.parquet")
    assert items.column_names[: len(ITEMS.names)] == ITEMS.names
    return items.to_pylist(), summary


def test_recbole_items_without_their_events(tmp_path: Path) -> None:
    path = tmp_path / "changed.item"
    path.write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n7\tAlien\t1979\tHorror\n"
    )
    config = IngestConfig(source=str(tmp_path / "nowhere"), tables=Tables(items=str(path)), only_items=True)
    (item,), summary = read(tmp_path, config)
    assert (item["item_id"], item["title"], item["category"]) == ("7", "Alien (1979)", ["Horror"])
    assert summary["items_tell"] == ["title", "category", "created_at"]


def test_the_items_of_a_whole_source(tmp_path: Path) -> None:
    """The recipe's own: its events are not even looked for."""
    (tmp_path / "items.csv").write_text("sku,name,cost\na,An apple,3\nb,A pear,4\n")
    config = IngestConfig(
        source=str(tmp_path),
        format="tables",
        tables=Tables(events="no-such-file.csv", items="items.csv"),
        columns=Columns(**{**NONE, "item_id": "sku", "title": "name", "price": "cost"}),
        only_items=True,
        min_events=1000,
    )
    items, summary = read(tmp_path, config)
    assert [(item["title"], item["price"], item["available"]) for item in items] == [
        ("An apple", 3.0, True), ("A pear", 4.0, True),
    ]  # fmt: skip
    assert summary["items_tell"] == ["title", "price"]
    before = sources.source_digest(config)
    (tmp_path / "items.csv").write_text("sku,name,cost\na,An apple,3\n")
    assert sources.source_digest(config) != before


def test_beir_documents_without_judgments(tmp_path: Path) -> None:
    (tmp_path / "new.jsonl").write_text('{"_id": "d9", "title": "Waves", "text": "of light"}\n')
    recipe = items_recipe(named("search", source=str(tmp_path)), items=str(tmp_path / "new.jsonl"))
    (item,), summary = read(tmp_path, recipe.ingest)
    assert (item["item_id"], item["title"], item["text"]) == ("d9", "Waves", "of light")
    assert summary["items_tell"] == ["title", "text"]


def test_a_query_of_a_database(tmp_path: Path) -> None:
    import duckdb

    with duckdb.connect(str(tmp_path / "shop.duckdb")) as db:
        db.execute(
            "CREATE TABLE goods AS SELECT 'x' || i AS item_id, 'thing ' || i AS name, i % 2 = 0 AS stock "
            "FROM range(4) t(i)"
        )
    columns = Columns(**{**NONE, "title": "name", "available": "stock"})
    tables = Tables(events="events", items="goods")
    config = IngestConfig(source=str(tmp_path / "shop.duckdb"), format="sql", tables=tables, columns=columns)
    whole = items_recipe(_shop(config))
    assert len(read(tmp_path / "whole", whole.ingest)[0]) == 4
    some = items_recipe(_shop(config), items="SELECT * FROM goods WHERE NOT stock", only=["available"])
    items, summary = read(tmp_path / "some", some.ingest)
    assert [(item["item_id"], item["available"], item["title"]) for item in items] == [
        ("x1", False, None), ("x3", False, None),
    ]  # fmt: skip
    assert summary["items_tell"] == ["available"]


def test_items_that_are_not_there_are_refused(tmp_path: Path) -> None:
    config = items_recipe(named("movielens"), items=str(tmp_path / "none.item")).ingest
    with pytest.raises(SourceError, match="there are no files of items"):
        ingest(tmp_path / "raw", config=config)


def feed(folder: Path, lines: str, **more: Any) -> IngestConfig:
    """Changed items of a shop, in a CSV file."""
    folder.mkdir(exist_ok=True)
    (folder / "feed.csv").write_text(f"item_id,name,cost,stock\n{lines}")
    named = {**NONE, "title": "name", "price": "cost", "available": "stock"}
    tables = Tables(items=str(folder / "feed.csv"))
    config = {"source": str(folder), "format": "tables", "tables": tables, "columns": Columns(**named)}
    return IngestConfig(**{**config, "only_items": True, "changes": True, **more})


def test_of_two_rows_of_a_change_feed_the_later_counts(tmp_path: Path) -> None:
    lines = "a,An apple,1,yes\nb,A pear,5,yes\na,An apple,2,no\n"
    items, summary = read(tmp_path / "feed", feed(tmp_path / "feed", lines))
    assert {item["item_id"]: (item["price"], item["available"]) for item in items} == {"a": (2, False), "b": (5, True)}
    assert summary["rejected"]["items"] == {SUPERSEDED: 1}
    source = feed(tmp_path / "source", lines, changes=False, max_rejected_share=0.5)  # as training reads it
    items, summary = read(tmp_path / "source", source)
    assert (items[0]["price"], summary["rejected"]["items"]) == (1, {"duplicate item": 1})


def test_a_change_feed_without_rows_says_that_nothing_changed(tmp_path: Path) -> None:
    assert read(tmp_path, feed(tmp_path, ""))[0] == []
    with pytest.raises(SourceError, match="the source has no items"):
        ingest(tmp_path / "raw", config=feed(tmp_path, "", changes=False))


def test_an_empty_stock_cell_changes_nothing_in_a_partial_update(tmp_path: Path) -> None:
    lines = "a,,3,\nb,,,no\n"
    items, summary = read(tmp_path / "some", feed(tmp_path / "some", lines, only=("price", "available")))
    assert [(item["price"], item["available"]) for item in items] == [(3, None), (None, False)]
    assert (summary["items_tell"], summary["items_only"]) == (["price", "available"], True)
    items, summary = read(tmp_path / "all", feed(tmp_path / "all", lines))
    assert ([item["available"] for item in items], summary["items_only"]) == ([True, False], False)


def test_a_rejected_row_names_its_item(tmp_path: Path) -> None:
    good = "".join(f"i{row},thing,1,yes\n" for row in range(38))
    path = tmp_path / "feed.csv"
    config = feed(tmp_path, good)
    path.write_bytes(path.read_bytes() + b"a,An apple,1,perhaps\nb,A p\xe9ar,1,yes\n")
    ingest(tmp_path / "raw", config=config)
    rejected = parquet.read_table(tmp_path / "raw" / "rejected.parquet").to_pylist()
    assert [(row["key"], row["reason"]) for row in rejected] == [("a", "unparsable available"), ("b", "not UTF-8")]


def test_a_title_alone_carries_its_year(tmp_path: Path) -> None:
    path = tmp_path / "titles.item"
    path.write_text("item_id:token\tmovie_title:token_seq\trelease_year:token\n7\tAlien\t1979\n")
    result = items_recipe(named("movielens"), items=str(path), only=["title"])
    (item,), summary = read(tmp_path, result.ingest)
    assert (item["title"], summary["items_tell"]) == ("Alien (1979)", ["title"])


def test_a_column_that_only_names_has_to_be_there(tmp_path: Path) -> None:
    path = tmp_path / "titles.item"
    path.write_text("item_id:token\tmovie_title:token_seq\n7\tAlien\n")
    result = items_recipe(named("movielens"), items=str(path), only=["title", "category"])
    with pytest.raises(SourceError, match="have no column 'class'"):
        ingest(tmp_path / "raw", config=result.ingest)


def _shop(config: IngestConfig) -> Any:
    import dataclasses

    return dataclasses.replace(named("shop"), ingest=config)


# -- versions of items -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "price"),
    [
        (("2023-01-01", "2023-03-01", "2023-02-01"), 2), (("2023-01-01", "2023-03-01", "2024-01-01"), 2),
        (("2024-03-01", "2024-01-01", "2024-02-01"), 2), ((1_672_531_200, 1_677_628_800, 1_675_209_600), 2),
        ((1, 3, 2), 2), (("2023-01-01T10:00:00Z", "2023-01-01T11:00:00Z", "2023-01-01T10:30:00Z"), 2),
        (("2023-03-01", "2023-03-01", "2023-01-01"), 2),
    ],
)  # fmt: skip
def test_the_newest_price_that_holds_at_the_last_event_counts(
    tmp_path: Path, times: tuple[Any, ...], price: float
) -> None:
    rows = [f"i{item},Thing {item},{n + 1},{time}" for item in range(3) for n, time in enumerate(times)]
    (tmp_path / "prices.csv").write_text("\n".join(["item_id,title,price,valid_from", *rows]))
    log = [f"u{n},i{n % 3},{1_680_000_000 + n}" for n in range(30)]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,timestamp", *log]))
    columns = {"title": "title", "price": "price", "valid_from": "valid_from"}
    result = run(tmp_path, tables={"items": "prices.csv"}, columns=columns)
    assert [item["price"] for item in table(tmp_path, "items")] == [price] * 3
    assert result["rejected"]["items"] == {SUPERSEDED: 6}
    assert "holds_from" not in table(tmp_path, "items")[0]


def test_rows_of_prices_without_a_time_are_rejected_and_repeats_without_the_setting_name_it(tmp_path: Path) -> None:
    rows = [f"i{item},Thing {item},{n},{'soon' if item == n == 2 else f'2023-0{n + 1}-01'}" for item in range(9)
            for n in range(3)]  # fmt: skip
    (tmp_path / "prices.csv").write_text("\n".join(["item_id,title,price,valid_from", *rows]))
    log = [f"u{n},i{n % 9},{1_680_000_000 + n}" for n in range(30)]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,timestamp", *log]))
    given: dict[str, Any] = {"title": "title", "price": "price"}
    assert "ingest.columns.valid_from" in refused(tmp_path, tables={"items": "prices.csv"}, columns=given)
    given |= {"valid_from": "valid_from"}
    result = run(tmp_path, tables={"items": "prices.csv"}, columns=given, max_rejected_share=0.2)
    assert result["rejected"]["items"] == {SUPERSEDED: 17, "unparsable valid_from": 1}
    assert [item["price"] for item in table(tmp_path, "items")] == [2, 2, 1, 2, 2, 2, 2, 2, 2]
