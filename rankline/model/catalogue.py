"""A catalogue of items as a model sees them: made in one way at export, at a refresh, and beside a candidate.

What of a model makes an item's vector lies in its bundle and needs no torch:

    text.onnx     the item's words            -> what they say of it
    side.onnx     its side information        -> what is added to that
    own.parquet   what training met the item as, by item id; an item of tomorrow has none and lives from the other two
    items.json    how side information is read, how words are counted (BM25), and how neighbours are indexed

So a catalogue is a function of a model and a table of items. What was counted of events, co-visitation and
popularity, was counted when the model was trained, on what it learnt to weigh it by; a catalogue takes it over by
item id from the bundle's own one, and is therefore the same whatever catalogues came in between.

Shapes: I items, W tokens, S side size, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from rankline.contracts import FrozenModel, Precision
from rankline.errors import IntegrityError
from rankline.features.bm25 import Bm25
from rankline.features.side_features import SideFeatures
from rankline.io import artifacts
from rankline.model.bundle import CATALOGUE, MANIFEST, Bundle, open_bundle, write_catalogue_manifest
from rankline.runtime.progress import Progress
from rankline.text import Tokenizer, batches_by_length, item_text

Floats = npt.NDArray[np.float32]
CATALOGUE_SETTINGS, ITEM_EMBEDDINGS, ITEMS = "items.json", "own.parquet", "items.parquet"
COVISIT, POPULARITY, BM25 = "sources/covisit.npz", "sources/popularity.npy", "sources/bm25"
MAX_EXACT_ITEMS = 100_000
RECALL_QUERIES, RECALL_DEPTH = 200, 100  # vectors that the index is asked for, and how many neighbours of each


class Bm25Settings(FrozenModel):
    """How the words of items are counted."""

    stemmer: str
    k1: float
    b: float


class IndexSettings(FrozenModel):
    """How the nearest-neighbour index is made."""

    kind: Literal["auto", "exact", "hnsw"] = "auto"
    links: int = 32
    search: int = 128


class CatalogueSettings(FrozenModel):
    """What items.json holds."""

    side: SideFeatures
    words: Bm25Settings | None = Field(default=None, description="none where nothing is asked in words")
    neighbours: IndexSettings = IndexSettings()


@dataclass(frozen=True)
class InteractionCounts:
    """What was counted of the events of training, for the items of then."""

    item_ids: Sequence[str]
    covisit: Any
    popularity_I: Floats

    @classmethod
    def of(cls, folder: Path, item_ids: Sequence[str]) -> InteractionCounts:
        """What lies in a catalogue, or in the student that one is made of."""
        import scipy.sparse as sparse

        return cls(item_ids, sparse.load_npz(folder / COVISIT), np.load(folder / POPULARITY))

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> InteractionCounts:
        """What lies in the catalogue that a bundle was exported with."""
        own = bundle.folder / CATALOGUE
        return cls.of(own, read_item_ids(own))

    def reindex(self, item_ids: Sequence[str]) -> InteractionCounts:
        """The same for other items; of those that nobody had met nothing was counted."""
        import scipy.sparse as sparse

        if list(item_ids) == list(self.item_ids):
            return self
        old_row_of = {item: row for row, item in enumerate(self.item_ids)}
        matches = [(new_row, old_row_of[item]) for new_row, item in enumerate(item_ids) if item in old_row_of]
        new_K, old_K = np.array(matches, np.int64).reshape(-1, 2).T
        selection = sparse.csr_matrix(
            (np.ones(len(matches), np.float32), (new_K, old_K)), shape=(len(item_ids), len(self.item_ids))
        )
        popularity_I = np.zeros(len(item_ids), self.popularity_I.dtype)
        popularity_I[new_K] = self.popularity_I[old_K]
        covisit = (selection @ self.covisit @ selection.T).tocsr().astype(self.covisit.dtype)
        covisit.sort_indices()
        return InteractionCounts(item_ids, covisit, popularity_I)


@dataclass(frozen=True)
class BuildResult:
    """What became of some items: a sealed catalogue, and how much work it was."""

    revision: str
    items: int
    embedded: int  # texts that were read anew; the others' vectors were there
    index: str
    recall: float

    @property
    def summary(self) -> dict[str, Any]:
        """For people."""
        return {"items": self.items, "index": self.index, f"index_recall@{RECALL_DEPTH}": round(self.recall, 4)}


@dataclass(frozen=True)
class CatalogueBuilder:
    """What of a model makes a catalogue of items; ``folder`` holds its files."""

    folder: Path
    precisions: dict[str, Precision]
    max_tokens: int
    settings: CatalogueSettings

    @classmethod
    def of(cls, bundle: Bundle) -> CatalogueBuilder:
        """The maker that a bundle holds.

        Raises:
            IntegrityError: the bundle is of a version of Rankline whose bundles hold none.
        """
        if not can_embed(bundle):
            raise IntegrityError(
                "this model cannot embed items by itself",
                expected=f"side.onnx, {ITEM_EMBEDDINGS} and {CATALOGUE_SETTINGS} among its files, as this version of Rankline exports them",
                found="a bundle of an earlier version",
                where=str(bundle.folder),
                hint="promote a model that this version exported; until then the catalogue stays as it is",
            )
        assert bundle.manifest.text is not None, "can_embed asks for it"
        return cls(
            bundle.folder,
            bundle.manifest.precisions,
            bundle.manifest.text.max_tokens,
            read_catalogue_settings(bundle.folder),
        )

    def non_text_vectors(self, items: Any) -> Floats:
        """[I, D] what an item has besides its words: its side information, and a vector of its own if it has one."""
        import pyarrow.parquet as parquet

        side = cpu_session(self.folder / str(self.precisions["fp32"].side))
        non_text_ID: Floats = side.run(None, {"side_IS": self.settings.side.matrix(items)})[0]
        embeddings = parquet.read_table(self.folder / ITEM_EMBEDDINGS)
        if len(embeddings):
            embeddings_KD = embeddings["vector"].combine_chunks().flatten().to_numpy().reshape(len(embeddings), -1)
            row_of = {item: row for row, item in enumerate(embeddings["item_id"].to_pylist())}
            matches = [
                (new_row, row_of[item]) for new_row, item in enumerate(items["item_id"].to_pylist()) if item in row_of
            ]
            rows_K, embedding_rows_K = np.array(matches, np.int64).reshape(-1, 2).T
            non_text_ID[rows_K] += embeddings_KD[embedding_rows_K]
        return non_text_ID

    def build(
        self,
        items: Any,
        out: Path,
        *,
        interaction_counts: InteractionCounts,
        before: Path | None = None,
        progress: Progress = Progress(),
    ) -> BuildResult:
        """Write the catalogue of an Arrow table of items into ``out`` and seal it.

        Of items whose words are those in the catalogue ``before`` (of the same model) no text is read again.

        Raises:
            IntegrityError: a declared column of the items is not what it was in training.
        """
        import pyarrow.parquet as parquet
        import scipy.sparse as sparse

        items = items.replace_schema_metadata(None).combine_chunks()
        words = [item_text(item) for item in items.select(_TEXT_COLUMNS).to_pylist()]
        non_text_ID = self.non_text_vectors(items)
        previous = _PreviousCatalogue.load(self, before) if before is not None else None
        rows = previous.changed_rows(items["item_id"].to_pylist(), words) if previous else np.arange(len(words))
        (out / "sources").mkdir(parents=True)
        # the same rows are the same bytes, whatever a list's parts were called where they came from
        parquet.write_table(items, out / ITEMS, compression="zstd", store_schema=False)
        tokenizer = Tokenizer(self.folder / "tokenizer.json", max_tokens=self.max_tokens)
        unread, read = [words[row] for row in rows], 0

        def on_batch(count: int) -> None:
            nonlocal read
            read += count
            progress.update(read, len(unread) * len(self.precisions))

        for precision in self.precisions.values():
            assert precision.text is not None
            session, vectors_ID = cpu_session(self.folder / precision.text), np.empty_like(non_text_ID)
            vectors_ID[rows] = non_text_ID[rows]
            vectors_ID[rows] += embed(session, tokenizer, unread, size=non_text_ID.shape[1], on_batch=on_batch)
            if previous:
                previous.fill(vectors_ID, non_text_ID, rows, name=vectors_file(precision))
            np.save(out / vectors_file(precision), vectors_ID)
        kind = write_index(out, self.settings.neighbours)
        interaction_counts = interaction_counts.reindex(items["item_id"].to_pylist())
        sparse.save_npz(out / COVISIT, interaction_counts.covisit)
        np.save(out / POPULARITY, interaction_counts.popularity_I)
        if self.settings.words is not None:
            Bm25.from_texts(words, **self.settings.words.model_dump()).save(out / BM25)
        return BuildResult(
            revision=write_catalogue_manifest(out),
            items=len(words),
            embedded=len(rows),
            index=kind,
            recall=index_recall(out),
        )


_TEXT_COLUMNS = ["item_id", "title", "category", "text"]  # what item_words reads


@dataclass
class _PreviousCatalogue:
    """The vectors of a catalogue of the same model, for what of it is still true."""

    folder: Path
    row_of: dict[str, int]
    words: list[str]
    non_text_ID: Floats
    rows_I: npt.NDArray[np.int64]  # of each item of now, or -1

    @classmethod
    def load(cls, maker: CatalogueBuilder, folder: Path) -> _PreviousCatalogue:
        import pyarrow.parquet as parquet

        items = parquet.read_table(folder / ITEMS)
        rows = items.select(_TEXT_COLUMNS).to_pylist()
        row_of = {item["item_id"]: row for row, item in enumerate(rows)}
        words = [item_text(item) for item in rows]
        return cls(folder, row_of, words, maker.non_text_vectors(items), np.zeros(0, np.int64))

    def changed_rows(self, item_ids: Sequence[str], words: Sequence[str]) -> npt.NDArray[np.int64]:
        """The rows of the items whose words were not read before."""
        known = (self.row_of.get(item, -1) for item in item_ids)
        self.rows_I = np.array(
            [row if row >= 0 and self.words[row] == text else -1 for row, text in zip(known, words)], np.int64
        )
        return np.flatnonzero(self.rows_I < 0)

    def fill(self, vectors_ID: Floats, non_text_ID: Floats, changed: npt.NDArray[np.int64], *, name: str) -> None:
        """Put in the vectors of the others; where only what is beside the words changed, by as much as that did."""
        rows = np.setdiff1d(np.arange(len(vectors_ID)), changed)
        previous_rows = self.rows_I[rows]
        previous_ID = np.load(self.folder / name)
        # nothing is added where nothing changed: such a vector keeps its very bytes
        vectors_ID[rows] = previous_ID[previous_rows] + (non_text_ID[rows] - self.non_text_ID[previous_rows])


# -- what a bundle holds -----------------------------------------------------------------------------------------


def can_embed(bundle: Bundle) -> bool:
    """Whether a bundle holds what makes items' vectors."""
    has_files = {
        ITEM_EMBEDDINGS,
        CATALOGUE_SETTINGS,
    } <= bundle.manifest.files.keys() and bundle.manifest.text is not None
    return has_files and all(precision.side and precision.text for precision in bundle.manifest.precisions.values())


def read_catalogue_settings(folder: Path) -> CatalogueSettings:
    """What items.json of a bundle says.

    Raises:
        IntegrityError: it cannot be read.
    """
    try:
        return CatalogueSettings.model_validate_json((folder / CATALOGUE_SETTINGS).read_text())
    except (OSError, ValidationError, ValueError) as error:
        raise IntegrityError(
            "the bundle does not say how its items are read",
            expected=f"{CATALOGUE_SETTINGS} of this version of Rankline",
            found=str(error).splitlines()[0],
            where=str(folder / CATALOGUE_SETTINGS),
            hint="export the model again",
        ) from error


def write_item_embeddings(folder: Path, item_ids: Sequence[str], vectors_KD: Floats) -> None:
    """Write own.parquet: the vectors that training gave to items."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    flat = pa.array(np.ascontiguousarray(vectors_KD, np.float32).ravel())
    vectors = pa.FixedSizeListArray.from_arrays(flat, vectors_KD.shape[1])
    table = pa.table({"item_id": pa.array(item_ids, pa.string()), "vector": vectors})
    parquet.write_table(table, folder / ITEM_EMBEDDINGS, compression="zstd")


# -- catalogues --------------------------------------------------------------------------------------------------


def build(
    bundle: Bundle, items: Any, out: Path, *, before: Path | None = None, progress: Progress = Progress()
) -> BuildResult:
    """Write the catalogue that a model makes of an Arrow table of items into ``out``, and seal it.

    What was counted of events is taken over, by item id, from the bundle's own catalogue. ``before`` is a catalogue
    of the same model: of items whose words have not changed since, no text is read again.

    Raises:
        IntegrityError: the bundle is of an earlier version and cannot embed items, or a declared column of the items
            is not what it was in training.
    """
    maker = CatalogueBuilder.of(bundle)
    return maker.build(
        items, out, interaction_counts=InteractionCounts.from_bundle(bundle), before=before, progress=progress
    )


def read_item_ids(folder: Path) -> list[str]:
    """The items of a catalogue, in the order of their vectors."""
    import pyarrow.parquet as parquet

    ids: list[str] = parquet.read_table(folder / ITEMS, columns=["item_id"])["item_id"].to_pylist()
    return ids


def item_texts(items: Any) -> dict[str, str]:
    """Item id -> its words as a model reads them, of an Arrow table of items."""
    return {item["item_id"]: item_text(item) for item in items.select(_TEXT_COLUMNS).to_pylist()}


def assemble_bundle(bundle: Bundle, catalogue: Path, folder: Path) -> Bundle:
    """A model and a catalogue in one folder, as a server is given them; the files are the same ones, not copies."""
    for name in (MANIFEST, *bundle.manifest.files):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        artifacts.link_or_copy(bundle.folder / name, folder / name)
    artifacts.link_or_copy(catalogue, folder / CATALOGUE)
    (folder / CATALOGUE / artifacts.DIGESTS_FILE).unlink(missing_ok=True)  # a door's own list is no part of it
    return open_bundle(folder, verify=False)  # whoever serves it reads every byte


def vectors_file(precision: Precision) -> str:
    """Where in a catalogue the vectors of a precision lie."""
    return precision.item_vectors.removeprefix(f"{CATALOGUE}/")


def load_vectors(folder: Path, precisions: dict[str, Precision]) -> dict[str, Floats]:
    """Precision -> [I, D] the vectors of a catalogue."""
    return {name: np.load(folder / vectors_file(precision)) for name, precision in precisions.items()}


# -- words to vectors, vectors to neighbours ---------------------------------------------------------------------


def cpu_session(path: Path) -> Any:
    """An ONNX Runtime session on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def embed(
    session: Any,
    tokenizer: Tokenizer,
    words: Sequence[str],
    *,
    size: int,
    batch_size: int = 64,
    on_batch: Callable[[int], None] = lambda count: None,
) -> Floats:
    """[I, D] what a text tower's session makes of some words, in their order; ``another`` hears of each batch."""
    out_ID = np.zeros((len(words), size), np.float32)
    for rows in batches_by_length(words, batch_size):
        ids_BW, mask_BW = tokenizer([words[row] for row in rows])
        out_ID[rows] = session.run(None, {"input_ids": ids_BW, "attention_mask": mask_BW})[0]
        on_batch(len(rows))
    return out_ID


def write_index(folder: Path, settings: IndexSettings, *, exact_below: int = MAX_EXACT_ITEMS) -> str:
    """Write the nearest-neighbour index over a catalogue's fp32 vectors; which kind it is."""
    import faiss

    index: Any
    vectors_ID = np.load(folder / "vectors.fp32.npy")
    count, size = vectors_ID.shape
    kind = settings.kind if settings.kind != "auto" else ("exact" if count < exact_below else "hnsw")
    if kind == "exact":
        index = faiss.IndexFlatIP(size)
    else:
        index = faiss.IndexHNSWFlat(size, settings.links, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 2 * settings.search
        index.hnsw.efSearch = settings.search
    index.add(vectors_ID)
    faiss.write_index(index, str(folder / "index.faiss"))
    return kind


def index_recall(folder: Path) -> float:
    """Share of the hundred nearest neighbours by exact search that a catalogue's index finds, for some of its items.

    Zero where the index is of another number of vectors.
    """
    import faiss

    vectors_ID = np.load(folder / "vectors.fp32.npy")
    index, (count, size) = faiss.read_index(str(folder / "index.faiss")), vectors_ID.shape
    if index.ntotal != count or index.d != size:
        return 0.0
    exact = faiss.IndexFlatIP(size)
    exact.add(vectors_ID)
    queries = vectors_ID[np.linspace(0, count - 1, min(count, RECALL_QUERIES)).astype(int)]
    depth = min(RECALL_DEPTH, count)
    approximate, nearest = index.search(queries, depth)[1], exact.search(queries, depth)[1]
    return float(np.mean([len(np.intersect1d(a, b)) / depth for a, b in zip(approximate, nearest)]))
