"""Prices and names of items as shops write them: what init proposes, and what ingest reads of it."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from components.ingest.numbers import NUMBER_MACROS
from tests.onboarding.proposals import Cell, csv, log, proposed, tried

SPELLINGS = {
    "10.99 EUR incl. VAT": (10.99, "EUR"),
    "10,99 € inkl. MwSt.": (10.99, "EUR"),
    "from 10.00 EUR": (10.0, "EUR"),
    "ab 10,00 €": (10.0, "EUR"),
    "10.00 - 20.00": (10.0, None),
    "$10.00 – $20.00": (10.0, "USD"),
    "10.00 bis 20.00 EUR": (10.0, "EUR"),
    "10€99": (10.99, "EUR"),
    "10.99/piece": (10.99, None),
    "10,99 € / Stück": (10.99, "EUR"),
    "10k": (10_000.0, None),
    "1.5k": (1500.0, None),
    "&euro;10.99": (10.99, "EUR"),
    "1000¢": (10.0, None),
    "-5.00": (-5.0, None),
}


@pytest.mark.parametrize("written", SPELLINGS)
def test_a_price_is_read_without_the_words_beside_it(written: str) -> None:
    sign = "comma" if "," in written else "point"
    with duckdb.connect() as db:
        db.execute(NUMBER_MACROS)
        query = f"SELECT number_{sign}(without_mark(price)), currency_of(currency_mark(price))"
        assert db.execute(f"{query} FROM (SELECT price_text($1) AS price)", [written]).fetchone() == SPELLINGS[written]


def shop(**columns: Cell) -> dict[str, str | bytes]:
    """A log, and its items with these columns."""
    items = csv(item_id=lambda n: f"i{n}", title=lambda n: f"a thing called {n}", **columns)
    return {"events.csv": log(), "items.csv": items}


@pytest.mark.integration
@pytest.mark.parametrize(
    ("every", "word", "share"), [(5, "NaN", 0.8), (5, "-", 0.8), (5, "N/A", 0.8), (8, "free", 1.0), (4, "inf", 0.75)]
)
def test_words_among_prices(tmp_path: Path, every: int, word: str, share: float) -> None:
    result = tried(tmp_path, shop(price=lambda n: f"{n + 1}.50" if n % every else word))
    assert result.settings["price"] == "price"
    assert result.proposal.stats("items", "price").filled == pytest.approx(share)
    assert result.result.rows_kept["items"] == 40


@pytest.mark.integration
def test_three_decimals_everywhere_may_be_thousands(tmp_path: Path) -> None:
    columns = proposed(tmp_path, shop(price=lambda n: f"{n + 1}.100")).column_mappings["items"]
    (price,) = [each for each in columns if each.setting == "price"]
    assert (price.confidence_label, "decimal=," in price.why) == ("likely", True)


@pytest.mark.parametrize(
    ("name", "cell"),
    [("rating", lambda n: n % 5), ("available", lambda n: 3 * n), ("row", lambda n: n), ("click", lambda n: n % 7)],
)
def test_a_name_of_our_own_is_no_further_column(tmp_path: Path, name: str, cell: Cell) -> None:
    result = tried(tmp_path, shop(**{name: cell}))
    assert name not in result.settings
    assert [gap.what for gap in result.proposal.gaps if gap.what.startswith(f"{name} of items is not read")]
