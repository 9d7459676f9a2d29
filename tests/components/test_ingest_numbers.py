"""Numbers, prices, and yes and no, as people write them all over the world."""

from pathlib import Path
from typing import Any

import duckdb
import pytest

from components.ingest.numbers import NUMBER_MACROS
from rankline.errors import SourceError
from tests.components.test_ingest_text import run, table

NNBSP, NBSP = "\u202f", "\u00a0"


@pytest.mark.parametrize(
    ("text", "point", "comma"),
    [
        ("3", 3, 3), ("12.5", 12.5, None), ("12,5", None, 12.5), ("1,234", None, 1.234), ("1.234", 1.234, 1234),
        ("1,234,567", 1_234_567, None), ("1.234.567", None, 1_234_567), ("1,23,456.00", 123_456, None),
        ("1 234", 1234, 1234), (f"1{NNBSP}234,50", 1234.5, 1234.5), (f"1{NBSP}234.5", 1234.5, 1234.5),
        ("1'299.50", 1299.5, 1299.5), ("1’299", 1299, 1299), ("1.234,50", 1234.5, 1234.5), ("1,234.50", 1234.5, 1234.5),
        ("12,-", 12, 12), ("12.–", 12, 12), ("1.299,-", 1299, 1299),
        ("−5", -5, -5), ("5-", -5, -5), ("(5)", -5, -5), ("- 5", -5, -5),
        ("12.5%", 12.5, None), ("12,5 %", None, 12.5), ("١٢٣٫٥", 123.5, 123.5), ("１２３", 123, 123), ("१२", 12, 12),
        ("1e3", 1000, None), ("12 34", None, None), ("1,2,3", None, None), ("", None, None), ("abc", None, None),
        ("12 34 567", None, None), ("1.2.3", None, None), ("2024-01-01", None, None), ("10:30", None, None),
    ],
)  # fmt: skip
def test_numbers_of_any_locale(text: str, point: float | None, comma: float | None) -> None:
    with duckdb.connect() as db:
        db.execute(NUMBER_MACROS)
        assert db.execute("SELECT number_point(?), number_comma(?)", [text, text]).fetchall() == [(point, comma)]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("text", "price", "code"),
    [
        ("€ 12.50", 12.5, "EUR"), ("12.50 EUR", 12.5, "EUR"), ("12.50€", 12.5, "EUR"), ("$9.50", 9.5, "USD"),
        ("-$9.50", -9.5, "USD"), ("($9.50)", -9.5, "USD"), ("US$ 12", 12, "USD"), ("USD 1,000.00", 1000, "USD"),
        ("£1,000.00", 1000, "GBP"), ("199 zł", 199, "PLN"), ("12 kr", 12, "kr"), ("12 Kč", 12, "CZK"),
        ("CHF 1'299.-", 1299, "CHF"), ("R$ 1.234,56", 1234.56, "BRL"), ("Rs. 1,23,456.00", 123_456, "INR"),
        ("₹1,23,456", 123_456, "INR"), ("1 200 руб.", 1200, "RUB"), (f"1{NNBSP}200,00{NBSP}€", 1200, "EUR"),
        ("¥1,234,567", 1_234_567, "JPY"), ("12", 12, None), ("XYZ 12", 12, "XYZ"), ("cheap", None, None),
    ],
)  # fmt: skip
def test_prices_of_any_currency(text: str, price: float | None, code: str | None) -> None:
    with duckdb.connect() as db:
        db.execute(NUMBER_MACROS)
        query = "SELECT number_point(without_mark(price_text(?))), currency_of(currency_mark(price_text(?)))"
        assert db.execute(query, [text, text]).fetchall() == [(price, code)]


def write_shop(folder: Path, prices: list[str], labels: list[str] | None = None) -> dict[str, Any]:
    """A log and items with these prices, tab-separated; the settings that read them."""
    items = "".join(f"i{n}\tThing {n}\t{price}\n" for n, price in enumerate(prices))
    (folder / "items.tsv").write_text("item_id\ttitle\tprix\n" + items)
    log = [f"u{n}\ti{n % len(prices)}\t{1_680_000_000 + n}\t{label}" for n, label in enumerate(labels or ["1"])]
    (folder / "log.tsv").write_text("user_id\titem_id\ttimestamp\tclicked\n" + "\n".join(log) + "\n")
    return {"tables": {"items": "items.tsv"}, "columns": {"title": "title", "price": "prix"}}


def test_one_currency_may_be_written_in_several_ways(tmp_path: Path) -> None:
    given = write_shop(tmp_path, ["12 €", "EUR 13", "14", "1 200,00 €"])
    run(tmp_path, "log.tsv", **given)
    assert [item["price"] for item in table(tmp_path, "items")] == [12, 13, 14, 1200]
    given = write_shop(tmp_path, ["12 zł", "13 €"])
    with pytest.raises(SourceError, match="several currencies"):
        run(tmp_path, "log.tsv", **given)


@pytest.mark.parametrize(("prices", "sign"), [(["12,50 €", "1,5 €", "x"], ","), (["12.50", "1.5"], ".")])
def test_the_decimal_sign_that_helps_is_named(tmp_path: Path, prices: list[str], sign: str) -> None:
    given = write_shop(tmp_path, prices)
    other = {",": ".", ".": ","}[sign]
    with pytest.raises(SourceError, match=f"ingest.files.decimal={sign}"):
        run(tmp_path, "log.tsv", files={"decimal": other}, **given)
    with pytest.raises(SourceError) as error:
        run(tmp_path, "log.tsv", files={"decimal": sign}, **write_shop(tmp_path, ["cheap"]))
    assert "decimal" not in error.value.hint


@pytest.mark.integration
@pytest.mark.parametrize(
    "words",
    [("true", "false"), ("True", "False"), ("t", "f"), ("yes", "no"), ("Y", "N"), ("ja", "nein"), ("on", "off")],
)
def test_yes_and_no_are_labels_and_numbers(tmp_path: Path, words: tuple[str, str]) -> None:
    given = write_shop(tmp_path, ["1"], [words[0], words[1], "", "1", "0.0"])
    given["columns"] |= {"labels": {"click": "clicked"}}
    assert run(tmp_path, "log.tsv", **given)["rejected"]["events"] == {}
    assert [event["click"] for event in table(tmp_path, "events")] == [1, 0, None, 1, 0]
    given["columns"] |= {"labels": {}, "event_numbers": ("clicked",)}
    run(tmp_path, "log.tsv", **given)
    assert [event["clicked"] for event in table(tmp_path, "events")] == [1, 0, None, 1, 0]
    given = write_shop(tmp_path, ["1"], ["maybe", words[0]])
    given["columns"] |= {"labels": {"click": "clicked"}}
    assert run(tmp_path, "log.tsv", max_rejected_share=0.9, **given)["rejected"]["events"] == {"unparsable click": 1}
