"""catalogue and publish: what changed is laid over what is there, checked by every check, and only then served over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from components.catalogue import checks
from components.catalogue.config import CatalogueConfig
from components.catalogue.merge import Changes, merge
from components.catalogue.rejected import RejectedItems
from components.catalogue.step import CATALOGUE_FOLDER, CHECKS_FILE, catalogue, publish, served_revision
from rankline.contracts import ITEMS, REJECTED, SUPERSEDED
from rankline.errors import IntegrityError, StaleEvidence
from rankline.model import catalogue as catalogues
from rankline.model.bundle import Bundle, open_bundle, read_catalogue
from rankline.model.catalogue import IndexSettings
from rankline.registry.model_registry import ModelRegistry
from tests.serving.embedding_bundle import (
    SCHEMA,
    make_embedding_bundle,
    table,
    without_embedding,
    without_ranges,
)
from tests.serving.tiny_bundle import flip_byte
from tests.serving.tiny_bundle import publish as promote

ALL = [name for name in ITEMS.names if name != "item_id"]


@pytest.fixture(scope="module")
def created(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_embedding_bundle(tmp_path_factory.mktemp("made") / "bundle")


def write_raw(folder: Path, items: pa.Table, provided: list[str] = ALL) -> Path:
    """What ingest leaves of some items."""
    folder.mkdir(parents=True)
    parquet.write_table(items, folder / "items.parquet")
    (folder / "summary.json").write_text(json.dumps({"items_tell": provided}))
    return folder


def refreshed(
    tmp_path: Path, bundle: Bundle, items: pa.Table, *, provided: list[str] = ALL, **settings: Any
) -> dict[str, Any]:
    """What the step says of some items."""
    raw = write_raw(tmp_path / "raw", items, provided)
    result = catalogue(raw, tmp_path / "revision", config=CatalogueConfig(**settings), bundle=bundle)
    written = json.loads((tmp_path / "revision" / CHECKS_FILE).read_text())
    assert {name: written[name] for name in result} == result
    return written


def rows(count: int, **changes: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(row) for row in table(count, **changes).to_pylist()]


# Merging items ------------------------------------------------------------------------------------------


def test_items_replace_those_of_their_id_and_new_ones_come_behind() -> None:
    new = table(43, i2={"price": 7.0}, i4={"available": False}).take([42, 2, 3, 4, 41])
    merged = merge(table(41), new, Changes(provided=ALL))
    assert merged.items["item_id"].to_pylist() == [f"i{row}" for row in (*range(41), 42, 41)]
    assert (merged.added, merged.changed, merged.withdrawn, merged.gone) == (["i42", "i41"], ["i2", "i4"], ["i4"], [])
    assert merged.unchanged == 39
    assert merged.items.schema == SCHEMA
    assert [merged.items["price"][row].as_py() for row in (1, 2, 3)] == [2.0, 7.0, 4.0]


def test_values_that_are_not_provided_stay() -> None:
    """Prices and stock alone: no title is lost, and a declared column that the file lacks is kept."""
    new = pa.table({"item_id": ["i1", "i9", "new"], "price": [5.0, 10.0, 3.0], "available": [False, True, True]})
    empty = {name: pa.nulls(3, ITEMS.field(name).type) for name in ITEMS.names if name not in new.column_names}
    new = pa.table({**{name: new[name] for name in new.column_names}, **empty})
    merged = merge(table(), new, Changes(provided=["price", "available"]))
    actual = {row["item_id"]: row for row in merged.items.to_pylist()}
    before = {row["item_id"]: row for row in table().to_pylist()}
    assert actual["i1"] == before["i1"] | {"price": 5.0, "available": False}
    assert actual["i9"] == before["i9"]  # the same price again is no change
    assert merged.changed == merged.withdrawn == ["i1"]
    assert (actual["new"]["title"], actual["new"]["category"], actual["new"]["weight"]) == (None, [], None)


def test_a_whole_catalogue_takes_the_others_out() -> None:
    merged = merge(table(), table(30), Changes(provided=ALL, whole=True))
    assert merged.items["item_id"].to_pylist() == [f"i{row}" for row in range(30)]
    assert merged.gone == [f"i{row}" for row in range(30, 40)]
    assert not merge(table(), table(), Changes(provided=ALL, whole=True)).counts["gone"]
    assert merge(table(), table(), Changes(provided=ALL)).is_unchanged


def test_a_column_that_was_not_there_comes_behind() -> None:
    new = table(2).append_column("colour", pa.array(["red", None]))
    merged = merge(table(), new, Changes(provided=ALL))
    assert merged.items["colour"].to_pylist() == ["red", *[None] * 39]
    assert merged.changed == ["i0"]


def test_a_partial_feed_leaves_what_its_empty_cells_do_not_state() -> None:
    """An empty stock cell puts no withdrawn item back; a title without its year keeps the year."""
    years = pa.array([1999] * 40, pa.int32())
    before = table(i1={"available": False}, i2={"title": "A river (1999)"}).append_column("release_year", years)
    new = table(3, i1={"available": None, "price": None}, i2={"price": 9.0, "category": []})
    merged = merge(before, new, Changes(provided=["price", "available", "category"], partial=True))
    actual = merged.items.to_pylist()
    assert actual[1] == before.to_pylist()[1]
    assert (actual[2]["price"], actual[2]["category"]) == (9.0, before.to_pylist()[2]["category"])
    assert merged.changed == ["i2"]
    new = table(3, i2={"title": "A lake"}).take([2])
    assert merge(before, new, Changes(provided=["title"], partial=True)).items["title"][2].as_py() == "A lake (1999)"
    dated = new.set_column(1, "title", pa.array(["A lake (2001)"])).append_column("release_year", pa.array([2001]))
    actual = merge(before, dated, Changes(provided=["title"], partial=True)).items.to_pylist()[2]
    assert (actual["title"], actual["release_year"]) == ("A lake (2001)", 1999)  # the year itself was not provided


def test_a_feed_without_words_adds_no_ghost() -> None:
    merged = merge(table(), table(42).take([3, 40, 41]), Changes(provided=["price", "available"], partial=True))
    assert (merged.added, merged.unknown, merged.is_unchanged) == ([], ["i40", "i41"], True)
    worded = merge(table(), table(41, i40={"available": None}), Changes(provided=["title", "price"], partial=True))
    assert (worded.added, worded.items["available"][40].as_py()) == (["i40"], True)


def test_rejected_is_not_gone() -> None:
    merged = merge(table(), table(30), Changes(provided=ALL, whole=True, rejected={"i33", "i5"}))
    assert (merged.retained, len(merged.gone), merged.items["item_id"][30].as_py()) == (["i33"], 9, "i33")


def test_a_declared_column_of_another_type_is_refused() -> None:
    new = table(2).set_column(8, "weight", pa.array(["heavy", "light"]))
    with pytest.raises(IntegrityError, match="column weight of the items has another type than in training"):
        merge(table(), new, Changes(provided=ALL))
    assert merge(table(), table(2).set_column(8, "weight", pa.array([0, 1])), Changes(provided=ALL)).is_unchanged


def test_whose_a_torn_row_may_be_is_read_from_its_words(tmp_path: Path) -> None:
    rejected = [
        {"table": "items", "row": 1, "reason": "unparsable available", "raw": '{"item_id":"a"}', "key": "a"},
        {"table": "items", "row": 2, "reason": "wrong number of columns", "raw": 'b,"A pear", and more', "key": None},
        {"table": "items", "row": 3, "reason": "missing key", "raw": ",c,1", "key": None},
        {"table": "items", "row": 4, "reason": SUPERSEDED, "raw": "d", "key": "d"},
        {"table": "users", "row": 1, "reason": "duplicate user", "raw": "e", "key": "e"},
    ]
    parquet.write_table(pa.Table.from_pylist(rejected, schema=REJECTED), tmp_path / "rejected.parquet")
    assert RejectedItems.read(tmp_path, {*"abcde"}) == RejectedItems(3, 1, frozenset("ab"))


# The step ---------------------------------------------------------------------------------------------------------


@pytest.mark.integration
def test_changed_items_are_published(tmp_path: Path, created: Bundle) -> None:
    result = refreshed(
        tmp_path, created, table(41, i3={"title": "A river"}, i6={"available": False}, i8={"price": 2.5})
    )
    assert result["outcome"] == "publish", result["failures"]
    assert result["counts"] == {
        "items": 41, "added": 1, "changed": 3, "withdrawn": 1, "gone": 0, "unchanged": 37, "set_aside": 0, "unknown": 0,
    }  # fmt: skip
    assert result["embedded"] == 2
    assert [check["name"] for check in result["checks"]] == [
        "gone", "added", "available", "words", "vectors fp32", "lengths fp32", "recall", "canaries", "agreement",
    ]  # fmt: skip
    assert all(check["met"] for check in result["checks"])
    later = open_bundle(created.folder, catalogue=tmp_path / "revision" / CATALOGUE_FOLDER)
    assert later.revision == result["revision"] != created.revision
    actual, displayed = read_catalogue(later, "fp32")
    assert (actual.withdrawn.tolist(), displayed[8]["price"], displayed[3]["title"]) == ([6], 2.5, "A river")
    whole = catalogues.build(created, parquet.read_table(later.catalogue / catalogues.ITEMS), tmp_path / "whole")
    assert whole.items == 41
    np.testing.assert_allclose(actual.vectors_ID, np.load(tmp_path / "whole" / "vectors.fp32.npy"), atol=1e-5)


def test_nothing_changed_writes_nothing(tmp_path: Path, created: Bundle) -> None:
    result = refreshed(tmp_path, created, table(12))
    assert (result["outcome"], result["counts"]["unchanged"]) == ("unchanged", 40)
    assert not (tmp_path / "revision" / CATALOGUE_FOLDER).exists()


def test_rejected_rows_are_reported_and_their_items_stay(tmp_path: Path, created: Bundle) -> None:
    """One unreadable stock flag in a whole catalogue takes no item out."""
    raw = write_raw(tmp_path / "raw", table(39))
    row = {"table": "items", "row": 40, "reason": "unparsable available", "raw": "i39,…", "key": "i39"}
    parquet.write_table(pa.Table.from_pylist([row], schema=REJECTED), raw / "rejected.parquet")
    result = catalogue(raw, tmp_path / "revision", config=CatalogueConfig(whole=True), bundle=created)
    assert (result["outcome"], result["counts"]["gone"], result["counts"]["set_aside"]) == ("unchanged", 0, 1)
    assert "1 items stay because of that: i39" in result["notes"]
    assert result["notes"] in result["sentence"]


def test_unknown_ids_of_a_price_feed_are_named(tmp_path: Path, created: Bundle) -> None:
    raw = write_raw(tmp_path / "raw", table(42, i1={"price": 8.0}), ["price"])
    (raw / "summary.json").write_text(json.dumps({"items_tell": ["price"], "items_only": True}))
    result = catalogue(raw, tmp_path / "revision", config=CatalogueConfig(), bundle=created)
    assert (result["outcome"], result["counts"]["added"], result["unknown"]) == ("publish", 0, ["i40", "i41"])
    assert "2 unknown items without words were not added: i40, i41." in result["sentence"]


def test_without_reuse_every_text_is_read_again(tmp_path: Path, created: Bundle) -> None:
    assert refreshed(tmp_path, created, table(41), reuse=False)["embedded"] == 41


def test_a_model_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    make_embedding_bundle(tmp_path / "bundle")
    with pytest.raises(IntegrityError, match="cannot embed items by itself"):
        refreshed(tmp_path, without_embedding(tmp_path / "bundle"), table(41))


# Every check, refusing --------------------------------------------------------------------------------------------


def refusal(result: dict[str, Any], name: str) -> str:
    """The one check that was not met, as it was said."""
    assert result["outcome"] == "refused"
    assert [check["name"] for check in result["checks"] if not check["met"]] == [name]
    (sentence,) = result["failures"]
    return str(sentence)


def test_too_many_gone_is_refused(tmp_path: Path, created: Bundle) -> None:
    result = refreshed(tmp_path, created, table(31), whole=True)
    assert "9 of 40 available items" in refusal(result, "gone")
    assert "i31, i32, i33, i34, i35" in result["failures"][0]
    assert not (tmp_path / "revision" / CATALOGUE_FOLDER).exists()  # nothing is embedded for nothing


@pytest.mark.integration
def test_too_many_withdrawn_is_refused(tmp_path: Path, created: Bundle) -> None:
    """A stock column read upside down."""
    out = {f"i{row}": {"available": False} for row in range(9)}
    assert "(22.5%, allowed: 20.0%" in refusal(refreshed(tmp_path / "a", created, table(**out)), "gone")
    assert refreshed(tmp_path / "b", created, table(**out), max_gone_share=0.25)["outcome"] == "publish"


def test_too_many_new_ones_are_refused(tmp_path: Path, created: Bundle) -> None:
    assert "5 items would be added to 40" in refusal(
        refreshed(tmp_path, created, table(45), max_new_share=0.1), "added"
    )


@pytest.mark.integration
def test_words_of_most_items_that_change_are_refused(tmp_path: Path, created: Bundle) -> None:
    """A spreadsheet that lost its titles: the scorer reads frozen features, so the canaries would not see it."""
    lost = {f"i{row}": {"title": "#REF!"} for row in range(40)}
    result = refreshed(tmp_path / "a", created, table(**lost))
    sentence = refusal(result, "words")
    assert "The words of 40 of 40 items would change (100.0%, allowed: 50.0%, catalogue.max_changed_share)" in sentence
    assert "--set catalogue.max_changed_share=1" in sentence
    assert not (tmp_path / "a" / "revision" / CATALOGUE_FOLDER).exists()
    prices = {f"i{row}": {"price": 3.0} for row in range(40)}  # which are no words
    assert refreshed(tmp_path / "b", created, table(**prices))["outcome"] == "publish"
    allowed = refreshed(tmp_path / "c", created, table(**lost), max_changed_share=1, min_agreement=0)
    assert allowed["outcome"] == "publish", allowed["failures"]


@pytest.mark.integration
def test_vectors_far_longer_than_the_models_own_are_refused(tmp_path: Path) -> None:
    """What a price of 1e30 made of an item, in a bundle that does not say what its prices were."""
    bundle = without_ranges(make_embedding_bundle(tmp_path / "bundle"))
    result = refreshed(tmp_path, bundle, table(41, i40={"price": 1e30}), min_agreement=0)
    sentence = refusal(result, "lengths fp32")
    assert "catalogue.max_norm), such as i40. If this is intended: --set catalogue.max_norm=" in sentence
    meant = float(sentence.rsplit("=", 1)[1])
    again = refreshed(tmp_path / "b", bundle, table(41, i40={"price": 1e30}), min_agreement=0, max_norm=meant)
    assert again["outcome"] == "publish", again["failures"]


@pytest.mark.integration
def test_a_price_beyond_those_of_training_is_the_dearest_of_training(tmp_path: Path, created: Bundle) -> None:
    """A slip of the keyboard may not become everybody's first answer."""
    for name, price in (("a", 40.0), ("b", 1e6), ("c", 1e30)):
        (tmp_path / name).mkdir()
        result = refreshed(tmp_path / name, created, table(41, i40={"price": price, "weight": price}))
        assert result["outcome"] == "publish", result["failures"]
    vectors = [np.load(tmp_path / name / "revision" / CATALOGUE_FOLDER / "vectors.fp32.npy")[40] for name in "abc"]
    np.testing.assert_array_equal(vectors[0], vectors[1])
    np.testing.assert_array_equal(vectors[0], vectors[2])


def test_prices_move_nothing_in_a_model_that_never_saw_one(tmp_path: Path) -> None:
    """What it would weigh them by is what it began with: noise."""
    without = {f"i{row}": {"price": None} for row in range(40)}
    bundle = make_embedding_bundle(tmp_path / "bundle", items=table(**without))
    result = refreshed(tmp_path, bundle, table())
    assert (result["outcome"], result["counts"]["changed"]) == ("publish", 40)
    now = np.load(tmp_path / "revision" / CATALOGUE_FOLDER / "vectors.fp32.npy")
    np.testing.assert_array_equal(now, np.load(bundle.catalogue / "vectors.fp32.npy"))


def test_too_few_available_is_refused(tmp_path: Path, created: Bundle) -> None:
    assert "41 items would be available" in refusal(
        refreshed(tmp_path, created, table(41), min_available=50), "available"
    )


def test_a_vector_that_is_no_number_is_refused(tmp_path: Path) -> None:
    bundle = make_embedding_bundle(tmp_path / "bundle", broken=["i3"])
    result = refreshed(tmp_path, bundle, table(41, i3={"title": "A river"}))
    assert "1 vectors are not finite, such as i3" in refusal(result, "vectors fp32")


def test_vectors_of_another_size_are_refused(tmp_path: Path, created: Bundle) -> None:
    catalogues.build(created, table(), tmp_path / "out")
    (good,) = checks.check_vectors(tmp_path / "out", created, items=40)
    assert good.met
    np.save(tmp_path / "out" / "vectors.fp32.npy", np.load(tmp_path / "out" / "vectors.fp32.npy")[:, :7])
    (bad,) = checks.check_vectors(tmp_path / "out", created, items=40)
    assert not bad.met
    assert "(40, 7), expected (40, 8)" in bad.sentence


def test_an_index_that_misses_is_refused(tmp_path: Path) -> None:
    narrow = IndexSettings(kind="hnsw", links=4, search=8)
    bundle = make_embedding_bundle(tmp_path / "bundle", items=table(1500), neighbours=narrow)
    result = refreshed(tmp_path, bundle, table(1501), min_recall=0.95)
    assert "of the exact neighbours (needed: 95.0%" in refusal(result, "recall")


def test_words_in_the_wrong_column_are_seen_by_the_canaries(tmp_path: Path) -> None:
    """Every title replaced by another item's: the same items, other vectors."""
    bundle = make_embedding_bundle(tmp_path / "bundle")
    weights = {f"i{row}": {"weight": 40.0 * (-1) ** row, "title": "love " * (row % 3)} for row in range(40)}
    result = refreshed(tmp_path, bundle, table(**weights), max_changed_share=1)
    assert "in training's order" in refusal(result, "agreement")


def test_a_canary_with_candidates_that_are_not_offered_is_refused(tmp_path: Path, created: Bundle) -> None:
    """The server leaves out what the catalogue says is withdrawn; here the catalogue does not say so."""
    gone = table(**{f"i{row}": {"available": False} for row in range(40)})
    canaries, _ = checks.check_canaries(created, gone, folder=tmp_path, config=CatalogueConfig())
    assert not canaries.met
    assert "which is not available" in canaries.sentence


def test_a_model_that_does_not_answer_is_refused(tmp_path: Path) -> None:
    bundle = make_embedding_bundle(tmp_path / "bundle")
    flip_byte(bundle.folder / "scorer.onnx")  # its digest no longer holds: the server does not start on it
    result = refreshed(tmp_path, bundle, table(41))
    assert result["outcome"] == "refused"
    assert any("the server did not start" in sentence for sentence in result["failures"])


def test_no_canary_left_to_compare_is_refused(tmp_path: Path, created: Bundle) -> None:
    other = table(45).slice(40)
    catalogues.build(created, other, tmp_path / "out")
    joined = catalogues.assemble_bundle(created, tmp_path / "out", tmp_path / "joined")
    canaries, agreement = checks.check_canaries(joined, other, folder=tmp_path, config=CatalogueConfig())
    assert canaries.met, canaries.sentence
    assert not agreement.met
    assert "No canary has two candidates left" in agreement.sentence


# Publishing -------------------------------------------------------------------------------------------------------


def test_a_published_revision_is_what_is_served_over(tmp_path: Path, created: Bundle) -> None:
    promote(tmp_path / "repository", created)
    result = refreshed(tmp_path, created, table(41))
    done = publish(tmp_path / "revision", repository=str(tmp_path / "repository"), run_id="r1")
    models = ModelRegistry(tmp_path / "repository")
    record = models.champion_record()
    assert record is not None
    assert done["revision"] == record.revision == result["revision"]
    assert served_revision(created.model_id, repository=str(tmp_path / "repository")) == result["revision"]
    event = models.history()[-1]
    assert (event.kind, event.run_id, event.details["counts"]["added"]) == ("catalogue_published", "r1", 1)
    assert event.details["checks"]["recall"] == 1.0
    assert models.bundle(created.model_id).revision == result["revision"]


@pytest.mark.integration
def test_there_and_back_is_the_catalogue_it_was_exported_with(tmp_path: Path, created: Bundle) -> None:
    promote(tmp_path / "repository", created)
    refreshed(tmp_path / "there", created, table(41))
    publish(tmp_path / "there" / "revision", repository=str(tmp_path / "repository"))
    models = ModelRegistry(tmp_path / "repository")
    serves = models.bundle(created.model_id)
    raw = write_raw(tmp_path / "raw", table())
    result = catalogue(
        raw, tmp_path / "revision", config=CatalogueConfig(whole=True), bundle=serves, serves_over=serves.revision
    )
    assert (result["counts"]["gone"], result["embedded"], result["revision"]) == (1, 0, created.revision)
    publish(tmp_path / "revision", repository=str(tmp_path / "repository"))
    assert models.bundle(created.model_id).revision == created.revision
    assert served_revision(created.model_id, repository=str(tmp_path / "repository")) == ""


@pytest.mark.integration
def test_a_refresh_that_was_overtaken_is_not_published(
    tmp_path: Path, created: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at once, from the same catalogue: the later one would undo the first one's items."""
    promote(tmp_path / "repository", created)
    refreshed(tmp_path / "first", created, table(41))
    refreshed(tmp_path / "second", created, table(1, i0={"item_id": "other"}))
    publish(tmp_path / "first" / "revision", repository=str(tmp_path / "repository"))
    before = ModelRegistry(tmp_path / "repository").history()
    with pytest.raises(StaleEvidence, match="the catalogue changed since this one was made") as refusal:
        publish(tmp_path / "second" / "revision", repository=str(tmp_path / "repository"))
    assert refusal.value.hint.startswith("refresh again: ")
    monkeypatch.setenv("ARGO_NODE_ID", "rankline-smoke-v8n6p-1")
    with pytest.raises(StaleEvidence) as refusal:
        publish(tmp_path / "second" / "revision", repository=str(tmp_path / "repository"))
    assert refusal.value.hint.startswith("`rankline submit --flow refresh` again: ")
    assert ModelRegistry(tmp_path / "repository").history() == before


def test_a_damaged_catalogue_is_not_published(tmp_path: Path, created: Bundle) -> None:
    promote(tmp_path / "repository", created)
    refreshed(tmp_path, created, table(41))
    flip_byte(tmp_path / "revision" / CATALOGUE_FOLDER / "vectors.fp32.npy")
    with pytest.raises(IntegrityError):
        publish(tmp_path / "revision", repository=str(tmp_path / "repository"))
    assert served_revision(created.model_id, repository=str(tmp_path / "repository")) == ""
