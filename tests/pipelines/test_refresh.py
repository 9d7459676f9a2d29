"""The flow that refreshes a catalogue: what it reads, what it publishes, what it refuses, and who is served from it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as parquet
import pytest
import yaml

from pipelines.kubeflow.conformance import package_problems
from pipelines.package import compile_flow
from pipelines.recipes import named
from pipelines.refresh import items_recipe
from pipelines.schedules import worker
from pipelines.schedules.firing import Firing
from pipelines.schedules.store import ScheduleStore
from rankline.errors import UsageError
from rankline.model import catalogue as catalogues
from rankline.model.bundle import Bundle
from rankline.registry.model_registry import ModelRegistry
from tests.cli.in_process import rankline, refused
from tests.conftest import SmokeRun
from tests.pipelines import golden
from tests.serving.embedding_bundle import make_embedding_bundle, table
from tests.serving.tiny_bundle import publish

SETTINGS = (
    "ingest.format=tables",
    "ingest.tables.items=items.csv",
    "ingest.columns.title=title",
    "ingest.columns.category=category",
    "ingest.columns.created_year=",
    "ingest.columns.price=price",
    "ingest.columns.available=in_stock",
    'ingest.columns.item_numbers=["weight"]',
    "export.catalogue=",
    "catalogue.max_gone_share=0.1",
)


# What it reads ----------------------------------------------------------------------------------------------------


def test_a_refresh_reads_items_alone() -> None:
    result = items_recipe(named("movielens"))
    assert result.ingest.only_items
    assert result.ingest.source == named("movielens").ingest.source


def test_changed_items_are_read_from_another_place(tmp_path: Path) -> None:
    result = items_recipe(named("shop"), items=str(tmp_path / "changed.csv"), whole=True)
    assert (result.ingest.tables.items, result.ingest.tables.events) == (str(tmp_path / "changed.csv"), "")
    assert result.catalogue.whole
    query = items_recipe(named("shop", ["ingest.format=sql"]), items="SELECT * FROM items WHERE changed")
    assert query.ingest.tables.items == "SELECT * FROM items WHERE changed"


def test_partial_items_name_no_other_column() -> None:
    columns = items_recipe(named("shop"), items="prices.csv", only=["price", "available"]).ingest.columns
    assert columns.provided_columns([]) == ["price", "available"]
    assert (columns.item_id, columns.item_numbers) == ("sku", ())


def test_items_derived_from_events_are_read_from_them(tmp_path: Path) -> None:
    result = items_recipe(named("labels", source=str(tmp_path)))
    assert not result.ingest.only_items
    assert items_recipe(named("labels", source=str(tmp_path)), items="labels.csv").ingest.only_items


def test_a_column_that_items_do_not_have_is_refused() -> None:
    with pytest.raises(UsageError, match="items have no colour"):
        items_recipe(named("shop"), only=["price", "colour"])


def test_what_the_recipe_does_not_read_is_refused() -> None:
    """Else nothing would be read, and the answer be that nothing had changed."""
    with pytest.raises(UsageError, match="reads no price") as caught:
        items_recipe(named("smoke"), items="prices.item", only=["price"])
    assert (caught.value.expected, caught.value.exit_code) == ("ingest.columns.price", 2)
    assert caught.value.hint == "--set ingest.columns.price=COLUMN"
    assert items_recipe(named("smoke", ["ingest.columns.price=cost"]), only=["price"]).ingest.only == ("price",)
    with pytest.raises(UsageError, match="title and text of a beir source"):
        items_recipe(named("search", source="here"), only=["price"])


def test_the_source_itself_is_a_whole_catalogue(tmp_path: Path) -> None:
    feed = str(tmp_path / "feed.csv")
    assert items_recipe(named("shop")).catalogue.whole
    assert not items_recipe(named("shop"), whole=False).catalogue.whole
    assert not items_recipe(named("shop"), items=feed).catalogue.whole
    assert not items_recipe(named("labels", source=str(tmp_path))).catalogue.whole  # a log is no catalogue
    assert items_recipe(named("shop"), items=feed).ingest.changes
    assert not items_recipe(named("shop"), items=feed, whole=True).ingest.changes
    assert not items_recipe(named("shop")).ingest.changes


# The package ------------------------------------------------------------------------------------------------------


def test_the_package_is_the_golden_file_and_the_server_would_take_it(tmp_path: Path) -> None:
    path = compile_flow(golden.pinned("smoke"), tmp_path / "flow.yaml", flow="refresh")
    assert path.read_text() == golden.path("refresh").read_text(), "see the difference, then `make golden`"
    assert list(package_problems(path)) == []


def test_the_package_trains_nothing_and_needs_no_torch(tmp_path: Path) -> None:
    pipeline, _ = yaml.safe_load_all(golden.path("refresh").read_text())
    executors = pipeline["deploymentSpec"]["executors"]
    assert set(executors) == {
        f"exec-{step}" for step in ("resolve-inputs", "ingest", "catalogue", "publish", "summary", "refused")
    }
    images = {name: executor["container"]["image"].split("@")[0] for name, executor in executors.items()}
    assert images.pop("exec-catalogue").endswith("python-evaluate")
    assert {image.rsplit("-", 1)[-1] for image in images.values()} == {"data"}
    gate = pipeline["components"]["comp-exit-handler-1"]["dag"]["tasks"]["condition-2"]
    assert "'publish'" in gate["triggerPolicy"]["condition"]


# Run for real -----------------------------------------------------------------------------------------------------


class Shop:
    """A workspace whose champion is a tiny bundle, and the table its items came from."""

    def __init__(self, folder: Path) -> None:
        self.workspace, self.source = folder / "workspace", folder / "source"
        self.repository = self.workspace / "repository"
        self.source.mkdir(parents=True)
        self.champion: Bundle = make_embedding_bundle(folder / "bundle")
        publish(self.repository, self.champion)
        self.write("items.csv")

    def write(self, name: str, *, count: int = 40, rows: slice = slice(None), **changes: dict[str, Any]) -> Path:
        """A CSV file of some of the items."""
        with (self.source / name).open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["item_id", "title", "category", "price", "in_stock", "weight"])
            for row in table(count, **changes).to_pylist()[rows]:
                flag = "true" if row["available"] else "false"
                words = [row["item_id"], row["title"], *row["category"]]
                writer.writerow([*words, row["price"], flag, row["weight"]])
        return self.source / name

    @property
    def arguments(self) -> list[str]:
        settings = [f"ingest.source={self.source}", *SETTINGS]
        return ["--recipe", "smoke", "-w", str(self.workspace), *(word for each in settings for word in ("-s", each))]

    def refresh(self, *more: object, code: int = 0) -> dict[str, Any]:
        """The summary of a refresh."""
        done = rankline("refresh", *self.arguments, *more, "--json")
        assert done.returncode == code, done.stderr + done.stdout
        result: dict[str, Any] = json.loads(done.stdout)
        return result


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def server(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server that follows the shop's champion."""
    ready = tmp_path_factory.mktemp("server") / "ready.json"
    command = [sys.executable, "-P", "-m", "serving", "--repository", str(shop.repository), "--port", "0"]
    process = subprocess.Popen([*command, "--ready-file", str(ready)])
    try:
        until = time.monotonic() + 60
        while not ready.is_file() and time.monotonic() < until:
            time.sleep(0.1)
        with httpx.Client(base_url=json.loads(ready.read_text())["url"], timeout=20, trust_env=False) as client:
            yield client
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def unchanged(shop: Shop) -> dict[str, Any]:
    """The summary of a refresh from the source that the catalogue was built from."""
    return shop.refresh()


@pytest.mark.integration
def test_nothing_changed_publishes_nothing(shop: Shop, unchanged: dict[str, Any]) -> None:
    result = unchanged
    assert result["outcome"] == "nothing changed"
    assert "All 40 items are unchanged" in result["verdict"]
    assert [step["step"] for step in result["steps"]] == ["resolve_inputs", "ingest", "catalogue"]
    assert [event.kind for event in ModelRegistry(shop.repository).history()] == ["registered", "promoted"]


@pytest.mark.integration
def test_prices_stock_and_takedowns_reach_the_server(shop: Shop, server: httpx.Client) -> None:
    """A file of three columns; the server that is running answers from it a little later, and never without i1."""
    first = server.get("/v1/model").json()["revision"]
    prices = shop.write("prices.csv", rows=slice(0, 3), i1={"price": 3.5, "available": False})
    done = rankline("refresh", *shop.arguments, "--items", prices, "--only", "price,available")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "items: 0 added, 1 changed, 1 withdrawn, 0 gone, 39 unchanged, 0 set aside, 0 unknown" in done.stdout
    assert "40 items, 0 texts read anew, index exact with recall 1.000" in done.stdout
    champion_record = ModelRegistry(shop.repository).champion_record()
    assert champion_record is not None
    until = time.monotonic() + 30
    while server.get("/v1/model").json()["revision"] == first and time.monotonic() < until:
        time.sleep(0.2)
    assert server.get("/v1/model").json()["revision"] == champion_record.revision != first
    answered = [item["item_id"] for item in server.post("/v1/recommend", json={"k": 40}).json()["items"]]
    assert answered
    assert "i1" not in answered
    retained = ModelRegistry(shop.repository).bundle(shop.champion.model_id)
    row = parquet.read_table(retained.catalogue / "items.parquet").to_pylist()[1]
    assert (row["title"], row["price"], row["available"], row["weight"]) == ("The love of 1", 3.5, False, 1.0)


@pytest.mark.integration
def test_a_refused_refresh_changes_nothing(shop: Shop) -> None:
    before = (shop.repository / "champion.json").read_bytes(), ModelRegistry(shop.repository).history()
    half = shop.write("half.csv", rows=slice(0, 20))
    result = shop.refresh("--items", half, "--whole", code=3)
    assert result["outcome"] == "refused"
    (reason,) = result["reasons"]
    assert "catalogue.max_gone_share" in reason
    assert "publish" not in [step["step"] for step in result["steps"]]
    assert ((shop.repository / "champion.json").read_bytes(), ModelRegistry(shop.repository).history()) == before


@pytest.mark.integration
def test_items_deleted_in_the_source_are_removed(shop: Shop) -> None:
    """The recipe's own table is all there is, unless it is said not to be."""
    shop.write("items.csv", rows=slice(0, 39), i1={"price": 3.5, "available": False})
    assert shop.refresh("--no-whole")["outcome"] != "refused"
    result = shop.refresh()
    (matches,) = (step["result"]["counts"] for step in result["steps"] if step["step"] == "catalogue")
    assert (result["outcome"], matches["gone"], matches["items"]) == ("published", 1, 39)
    shop.write("items.csv", i1={"price": 3.5, "available": False})
    assert shop.refresh()["outcome"] == "published"


def test_a_column_that_is_not_read_is_wrong_usage(shop: Shop) -> None:
    lines = refused("refresh", *shop.arguments, "--items", shop.source / "items.csv", "--only", "language", code=2)
    assert "--set ingest.columns.language=COLUMN" in lines


def test_runs_are_listed_with_their_flow(shop: Shop, unchanged: dict[str, Any]) -> None:
    result = json.loads(rankline("runs", "list", "-w", shop.workspace, "--json").stdout)
    assert {line["flow"] for line in result} == {"refresh"}
    assert all(line["run"].endswith("-smoke-refresh") for line in result)


@pytest.mark.slow  # a run like those above, begun by a claim
def test_a_schedule_refreshes(shop: Shop) -> None:
    store, timestamp = ScheduleStore(shop.workspace), datetime(2026, 11, 1, 12, tzinfo=UTC)
    shop.write("items.csv", i5={"price": 77.0})
    requested = {"name": "often", "recipe": "smoke", "cron": "0 */15 * * * *", "flow": "refresh"}
    settings = (f"ingest.source={shop.source}", *SETTINGS)
    store.create(
        {**requested, "settings": settings, "directory": str(shop.source)}, now=datetime(2026, 10, 1, tzinfo=UTC)
    )
    firings = store.firings("often")
    firings.create(
        Firing("often", timestamp.isoformat(), None, timestamp.isoformat(), "scheduled", 1, timestamp.isoformat())
    )
    with subprocess.Popen(worker.worker_command(shop.workspace, "often", timestamp), stdin=subprocess.PIPE) as process:
        assert process.wait(300) == 0
    ended = firings.read(timestamp)
    assert ended is not None
    assert (ended.outcome, ended.exit_code, ended.error) == ("published", 0, "")
    retained = ModelRegistry(shop.repository).bundle(shop.champion.model_id)
    assert parquet.read_table(retained.catalogue / "items.parquet").to_pylist()[5]["price"] == 77.0
    shop.write("items.csv")


def test_without_a_champion_there_is_nothing_to_refresh(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    arguments = [str(tmp_path / "workspace") if word == str(shop.workspace) else word for word in shop.arguments]
    assert "there is no champion" in refused("refresh", *arguments, code=2)
    assert not (tmp_path / "workspace" / "runs").exists()


@pytest.mark.slow  # the tests of the component have a small champion
def test_a_trained_champion_finds_its_own_items_unchanged(smoke: SmokeRun, tmp_path: Path) -> None:
    """What a real run ranked is what a refresh of the same source reads; a new word more is read, by the champion."""
    workspace = smoke.copy(tmp_path / "workspace")
    result = json.loads(rankline("refresh", "--recipe", "smoke", "-w", workspace, "--json").stdout)
    assert (result["outcome"], result["reasons"]) == ("nothing changed", [])
    header = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"
    (tmp_path / "new.item").write_text(f"{header}\nnew\tnew garden thing\t2021\tgarden\n")
    done = rankline("refresh", "--recipe", "smoke", "-w", workspace, "--items", tmp_path / "new.item", "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    matches = next(step["result"] for step in json.loads(done.stdout)["steps"] if step["step"] == "catalogue")
    assert (matches["counts"]["added"], matches["embedded"]) == (1, 1)
    models = ModelRegistry(workspace / "repository")
    bundle = models.bundle(models.champion())
    scratch = catalogues.build(bundle, parquet.read_table(bundle.catalogue / "items.parquet"), tmp_path / "scratch")
    assert scratch.embedded == matches["items"]
    for precision, close in (("fp32", 1e-5), ("fp16", 1e-5), ("int8", 0.02)):  # int8's scales depend on the batch
        retained, whole = (
            np.load(folder / f"vectors.{precision}.npy") for folder in (bundle.catalogue, tmp_path / "scratch")
        )
        np.testing.assert_allclose(retained, whole, atol=close)
