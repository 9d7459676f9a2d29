"""A catalogue depends on a model and a table of items alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from rankline.errors import IntegrityError
from rankline.model import bundle as bundles
from rankline.model import catalogue as catalogues
from rankline.model.bundle import CATALOGUE, Bundle
from rankline.model.catalogue import IndexSettings, InteractionCounts, write_index
from rankline.text import Tokenizer, item_text
from serving.engine import BundleEngine
from tests.serving.embedding_bundle import make_embedding_bundle, table, without_embedding

CHANGES = {
    "i3": {"title": "A love of the river"},  # text, of an item with an embedding
    "i5": {"price": 900.0},
    "i30": {"title": "The dream of a ship", "weight": 3.0},
    "i31": {"available": False},
    "i32": {"category": ["Action", "Unheard of"]},  # text as well: the encoder reads categories
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_embedding_bundle(tmp_path_factory.mktemp("made") / "bundle", precisions=("fp32", "int8"), queries=True)


def vectors(folder: Path) -> np.ndarray:
    actual: np.ndarray = np.load(folder / "vectors.fp32.npy")
    return actual


def test_the_same_items_make_the_same_revision(bundle: Bundle, tmp_path: Path) -> None:
    built = catalogues.build(bundle, table(), tmp_path / "again")
    assert built.revision == bundle.revision
    assert built.embedded == built.items == 40


def test_a_vector_is_words_and_side_and_what_training_met(bundle: Bundle, tmp_path: Path) -> None:
    """Computed by hand for an item with an embedding and for one that is new since training."""
    items = pa.concat_tables([table(), table(1, i0={"item_id": "new", "title": "night story"})])
    catalogues.build(bundle, items, tmp_path / "out")
    actual = vectors(tmp_path / "out")
    session = catalogues.cpu_session(bundle.folder / "text.onnx")
    side = catalogues.cpu_session(bundle.folder / "side.onnx")
    side_IS = catalogues.read_catalogue_settings(bundle.folder).side.matrix(items)
    own = parquet.read_table(bundle.folder / catalogues.ITEM_EMBEDDINGS).to_pylist()
    tokenizer = Tokenizer(bundle.folder / "tokenizer.json", max_tokens=16)
    for row, own_D in ((4, np.array(own[4]["vector"], np.float32)), (40, np.zeros(8, np.float32))):
        ids_BW, mask_BW = tokenizer([item_text(items.slice(row, 1).to_pylist()[0])])
        text_D = session.run(None, {"input_ids": ids_BW, "attention_mask": mask_BW})[0][0]
        side_D = side.run(None, {"side_IS": side_IS[row : row + 1]})[0][0]
        np.testing.assert_allclose(actual[row], text_D + side_D + own_D, atol=1e-6)
    assert own[4]["item_id"] == "i4"


def test_only_changed_words_are_read_and_it_is_as_from_scratch(bundle: Bundle, tmp_path: Path) -> None:
    new = table(1, i0={"item_id": "new", "title": "night story"})
    items = pa.concat_tables([table(**CHANGES).slice(1), new])  # i0 is gone
    patched = catalogues.build(bundle, items, tmp_path / "patched", before=bundle.catalogue)
    scratch = catalogues.build(bundle, items, tmp_path / "scratch")
    assert (patched.embedded, scratch.embedded) == (4, 40)
    for name, vectors_ID in catalogues.load_vectors(tmp_path / "patched", bundle.manifest.precisions).items():
        whole_ID = np.load(tmp_path / "scratch" / f"vectors.{name}.npy")
        np.testing.assert_allclose(vectors_ID, whole_ID, atol=1e-5)
    as_before = [row for row in range(1, 40) if f"i{row}" not in CHANGES]
    before, after = vectors(bundle.catalogue), vectors(tmp_path / "patched")
    assert np.array_equal(before[as_before], after[[row - 1 for row in as_before]])  # bit by bit
    changed = [3, 5, 30, 32]
    assert (np.abs(before[changed] - after[[row - 1 for row in changed]]).max(1) > 1e-3).all()
    for name in ("sources/popularity.npy", catalogues.COVISIT, catalogues.ITEMS, "sources/bm25/params.index.json"):
        assert (tmp_path / "patched" / name).read_bytes() == (tmp_path / "scratch" / name).read_bytes(), name


def test_counts_follow_the_item(bundle: Bundle, tmp_path: Path) -> None:
    """Also after a catalogue without the item: counts come from the bundle's own."""
    less = table().take(list(range(39, 4, -1)))  # another order, five items gone
    catalogues.build(bundle, less, tmp_path / "less")
    first = InteractionCounts.from_bundle(bundle)
    actual = InteractionCounts.load(tmp_path / "less", catalogues.read_item_ids(tmp_path / "less"))
    rows = [int(item[1:]) for item in actual.item_ids]
    assert np.array_equal(actual.popularity_I, first.popularity_I[rows])
    assert np.array_equal(actual.covisit.toarray(), first.covisit.toarray()[np.ix_(rows, rows)])
    back = catalogues.build(bundle, table(), tmp_path / "back", before=tmp_path / "less")
    assert back.embedded == 5
    assert np.array_equal(
        InteractionCounts.load(tmp_path / "back", first.item_ids).covisit.toarray(), first.covisit.toarray()
    )


def test_bm25_of_a_new_catalogue_knows_new_words(bundle: Bundle, tmp_path: Path) -> None:
    catalogues.build(bundle, table(i7={"title": "Zeppelin"}), tmp_path / "out")
    joined = catalogues.assemble_bundle(bundle, tmp_path / "out", tmp_path / "joined")
    catalogue, _ = bundles.read_catalogue(joined, "fp32")
    assert catalogue.bm25 is not None
    assert np.flatnonzero(catalogue.bm25.scores("zeppelin")).tolist() == [7]


def test_a_model_and_a_catalogue_in_one_folder_are_served(bundle: Bundle, tmp_path: Path) -> None:
    built = catalogues.build(bundle, table(41), tmp_path / "out")
    joined = catalogues.assemble_bundle(bundle, tmp_path / "out", tmp_path / "joined")
    assert (joined.model_id, joined.revision) == (bundle.model_id, built.revision)
    engine = BundleEngine.load(bundles.open_bundle(joined.folder), precision="int8", provider="cpu", threads=1)
    assert len(engine.item_ids) == 41


def test_a_bundle_of_an_earlier_version_cannot_embed(tmp_path: Path) -> None:
    make_embedding_bundle(tmp_path / "bundle")
    older = without_embedding(tmp_path / "bundle")
    assert not catalogues.can_embed(older)
    with pytest.raises(IntegrityError, match="cannot embed items by itself") as caught:
        catalogues.build(older, table(), tmp_path / "out")
    assert "promote a model" in caught.value.hint


def test_unreadable_catalogue_settings_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / catalogues.CATALOGUE_SETTINGS).write_text('{"side": 3}')
    with pytest.raises(IntegrityError, match="catalogue settings cannot be read"):
        catalogues.read_catalogue_settings(tmp_path)


# -- index ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "items", "index"), [("hnsw", 2000, "hnsw"), ("auto", 2000, "hnsw"), ("auto", 900, "exact")]
)
def test_the_index_finds_what_exact_search_finds(tmp_path: Path, kind: str, items: int, index: str) -> None:
    import faiss

    rng = np.random.default_rng(0)
    vectors_ID = rng.standard_normal((items, 16)).astype(np.float32)
    np.save(tmp_path / "vectors.fp32.npy", vectors_ID)
    assert write_index(tmp_path, IndexSettings.model_validate({"kind": kind}), exact_below=1000) == index
    assert 0.9 < catalogues.index_recall(tmp_path) <= 1
    written = faiss.read_index(str(tmp_path / "index.faiss"))
    assert isinstance(written, faiss.IndexHNSWFlat) == (index == "hnsw")
    asked = rng.standard_normal((20, 16)).astype(np.float32)
    truth = np.argsort(-asked @ vectors_ID.T, axis=1)[:, :10]
    actual = written.search(asked, 10)[1]
    assert np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(actual, truth)]) > 0.9


def test_the_recall_of_a_narrow_search_is_lower(tmp_path: Path) -> None:
    """With few links the recall is lower; for another catalogue's index it is 0."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "vectors.fp32.npy", rng.standard_normal((3000, 16)).astype(np.float32))
    write_index(tmp_path, IndexSettings(kind="hnsw", links=4, search=8))
    assert catalogues.index_recall(tmp_path) < 0.9
    np.save(tmp_path / "vectors.fp32.npy", rng.standard_normal((2999, 16)).astype(np.float32))
    assert catalogues.index_recall(tmp_path) == 0


def test_counts_come_from_the_own_catalogue(bundle: Bundle) -> None:
    assert InteractionCounts.from_bundle(bundle).item_ids == catalogues.read_item_ids(bundle.folder / CATALOGUE)
