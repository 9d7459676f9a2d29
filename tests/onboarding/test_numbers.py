"""Proposals for prices, and for yes and no, as shops and loggers write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onboarding.inference.dry_run import dry_run
from onboarding.inference.proposal import propose
from onboarding.inference.render import render_map
from onboarding.survey.survey import survey
from pipelines.recipes import interactions

HEADER = "user_id;item_id;timestamp;bought\n"


def proposed(folder: Path) -> tuple[dict[str, str], str, int]:
    """Column of the items or events -> setting; the decimal sign; how many events ingest keeps."""
    surveyed = survey(str(folder))
    proposal = propose(surveyed, name="mine", time_zone="UTC")
    (folder / "mine.toml").write_text(render_map(proposal))
    result = dry_run(interactions(str(folder), str(folder / "mine.toml")).ingest)
    settings = {each.column: each.setting for role in proposal.column_mappings.values() for each in role}
    return settings, surveyed.files.decimal, result.rows_kept["events"]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("form", "decimal"),
    [
        ("1 2{n:02},00 €", ","),
        ("1\u202f2{n:02},5\u00a0zł", ","),
        ("{n},50 kr", ","),
        ("$1{n}.50", "."),
        ("CHF 1'2{n:02}.-", "."),
        ("1{n},-", "."),
    ],
)
def test_digits_with_a_currency_are_a_price_and_no_title(tmp_path: Path, form: str, decimal: str) -> None:
    log = "".join(f"u{n % 40};i{n % 20};{1_680_000_000 + n};{'yes' if n % 3 else 'no'}\n" for n in range(200))
    (tmp_path / "orders.csv").write_text(HEADER + log)
    items = "".join(f"i{n};red thing {n};{form.format(n=n)}\n" for n in range(20))
    (tmp_path / "items.csv").write_text("item_id;libelle;prix\n" + items)
    settings, sign, events = proposed(tmp_path)
    assert (settings["prix"], settings["libelle"], settings["bought"]) == ("price", "title", "labels.purchase")
    assert (sign, events) == (decimal, 200)


def test_a_price_needs_no_name(tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text(HEADER + "".join(f"u{n % 40};i{n % 20};{n};0\n" for n in range(200)))
    items = "".join(f"i{n};red thing number {n};€ {n}.50\n" for n in range(20))
    (tmp_path / "items.csv").write_text("item_id;words;x\n" + items)
    assert proposed(tmp_path)[0]["x"] == "price"


@pytest.mark.parametrize("words", [(True, False), ("True", "False"), ("Y", "N"), ("ja", "nein"), (1, 0)])
def test_booleans_are_labels_that_ingest_reads(tmp_path: Path, words: tuple[object, object]) -> None:
    log = [
        {"user_id": f"u{n % 40}", "item_id": f"i{n % 20}", "timestamp": 1_680_000_000 + n, "clicked": words[n % 2]}
        for n in range(200)
    ]
    (tmp_path / "impressions.jsonl").write_text("\n".join(map(json.dumps, log)))
    settings, _, events = proposed(tmp_path)
    assert (settings["clicked"], events) == ("labels.click", 200)
