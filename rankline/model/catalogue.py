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

from rankline.contracts import Frozen, Precision
from rankline.errors import IntegrityError
from rankline.features.bm25 import Bm25
from rankline.features.side_features import Side
from rankline.model.bundle import CATALOGUE, MANIFEST, Bundle, open_bundle, seal_catalogue
from rankline.runtime import step_cache
from rankline.runtime.progress import Progress
from rankline.text import Tokenizer, batches, item_words

Floats = npt.NDArray[np.float32]
MAKING, OWN, ITEMS = "items.json", "own.parquet", "items.parquet"
COVISIT, POPULARITY, BM25 = "sources/covisit.npz", "sources/popularity.npy", "sources/bm25"
EXACT_BELOW = 100_000
ASKED, DEPTH = 200, 100  # vectors that the index is asked for, and how many neighbours of each


class Words(Frozen):
    """How the words of items are counted."""

    stemmer: str
    k1: float
    b: float


class Neighbours(Frozen):
    """How the nearest-neighbour index is made."""

    kind: Literal["auto", "exact", "hnsw"] = "auto"
    links: int = 32
    search: int = 128


class Making(Frozen):
    """What items.json holds."""

    side: Side
    words: Words | None = Field(default=None, description="none where nothing is asked in words")
    neighbours: Neighbours = Neighbours()


@dataclass(frozen=True)
class Counted:
    """What was counted of the events of training, for the items of then."""

    item_ids: Sequence[str]
    covisit: Any
    popularity_I: Floats

    @classmethod
    def of(cls, folder: Path, item_ids: Sequence[str]) -> Counted:
        """What lies in a catalogue, or in the student that one is made of."""
        import scipy.sparse as sparse

        return cls(item_ids, sparse.load_npz(folder / COVISIT), np.load(folder / POPULARITY))

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> Counted:
        """What lies in the catalogue that a bundle was exported with."""
        own = bundle.folder / CATALOGUE
        return cls.of(own, item_ids_of(own))

    def among(self, item_ids: Sequence[str]) -> Counted:
        """The same for other items; of those that nobody had met nothing was counted."""
        import scipy.sparse as sparse

        if list(item_ids) == list(self.item_ids):
            return self
        then = {item: row for row, item in enumerate(self.item_ids)}
        met = [(now, then[item]) for now, item in enumerate(item_ids) if item in then]
        now_K, then_K = np.array(met, np.int64).reshape(-1, 2).T
        place = sparse.csr_matrix(
            (np.ones(len(met), np.float32), (now_K, then_K)), shape=(len(item_ids), len(self.item_ids))
        )
        popularity_I = np.zeros(len(item_ids), self.popularity_I.dtype)
        popularity_I[now_K] = self.popularity_I[then_K]
        moved = (place @ self.covisit @ place.T).tocsr().astype(self.covisit.dtype)
        moved.sort_indices()
        return Counted(item_ids, moved, popularity_I)


@dataclass(frozen=True)
class Built:
    """What became of some items: a sealed catalogue, and how much work it was."""

    revision: str
    items: int
    embedded: int  # texts that were read anew; the others' vectors were there
    index: str
    recall: float

    @property
    def told(self) -> dict[str, Any]:
        """For people."""
        return {"items": self.items, "index": self.index, f"index_recall@{DEPTH}": round(self.recall, 4)}


@dataclass(frozen=True)
class Maker:
    """What of a model makes a catalogue of items; ``folder`` holds its files."""

    folder: Path
    precisions: dict[str, Precision]
    max_tokens: int
    making: Making

    @classmethod
    def of(cls, bundle: Bundle) -> Maker:
        """The maker that a bundle holds.

        Raises:
            IntegrityError: the bundle is of a version of Rankline whose bundles hold none.
        """
        if not can_embed(bundle):
            raise IntegrityError(
                "this model cannot embed items by itself",
                expected=f"side.onnx, {OWN} and {MAKING} among its files, as this version of Rankline exports them",
                found="a bundle of an earlier version",
                where=str(bundle.folder),
                hint="promote a model that this version exported; until then the catalogue stays as it is",
            )
        assert bundle.manifest.text is not None, "can_embed asks for it"
        return cls(
            bundle.folder, bundle.manifest.precisions, bundle.manifest.text.max_tokens, read_making(bundle.folder)
        )

    def beside_words(self, items: Any) -> Floats:
        """[I, D] what an item has besides its words: its side information, and a vector of its own if it has one."""
        import pyarrow.parquet as parquet

        side = session_of(self.folder / str(self.precisions["fp32"].side))
        beside_ID: Floats = side.run(None, {"side_IS": self.making.side.matrix(items)})[0]
        own = parquet.read_table(self.folder / OWN)
        if len(own):
            own_KD = own["vector"].combine_chunks().flatten().to_numpy().reshape(len(own), -1)
            row_of = {item: row for row, item in enumerate(own["item_id"].to_pylist())}
            met = [(now, row_of[item]) for now, item in enumerate(items["item_id"].to_pylist()) if item in row_of]
            now_K, then_K = np.array(met, np.int64).reshape(-1, 2).T
            beside_ID[now_K] += own_KD[then_K]
        return beside_ID

    def build(
        self, items: Any, out: Path, *, counted: Counted, before: Path | None = None, progress: Progress = Progress()
    ) -> Built:
        """Write the catalogue of an Arrow table of items into ``out`` and seal it.

        Of items whose words are those in the catalogue ``before`` (of the same model) no text is read again.

        Raises:
            IntegrityError: a declared column of the items is not what it was in training.
        """
        import pyarrow.parquet as parquet
        import scipy.sparse as sparse

        items = items.replace_schema_metadata(None).combine_chunks()
        words = [item_words(item) for item in items.select(_READ).to_pylist()]
        beside_ID = self.beside_words(items)
        past = _Past.read(self, before) if before is not None else None
        rows = past.unread(items["item_id"].to_pylist(), words) if past else np.arange(len(words))
        (out / "sources").mkdir(parents=True)
        # the same rows are the same bytes, whatever a list's parts were called where they came from
        parquet.write_table(items, out / ITEMS, compression="zstd", store_schema=False)
        tokenizer = Tokenizer(self.folder / "tokenizer.json", max_tokens=self.max_tokens)
        unread, read = [words[row] for row in rows], 0

        def another(count: int) -> None:
            nonlocal read
            read += count
            progress.update(read, len(unread) * len(self.precisions))

        for precision in self.precisions.values():
            assert precision.text is not None
            session, vectors_ID = session_of(self.folder / precision.text), np.empty_like(beside_ID)
            vectors_ID[rows] = beside_ID[rows]
            vectors_ID[rows] += embed(session, tokenizer, unread, size=beside_ID.shape[1], another=another)
            if past:
                past.fill(vectors_ID, beside_ID, rows, name=file_of(precision))
            np.save(out / file_of(precision), vectors_ID)
        kind = write_index(out, self.making.neighbours)
        counted = counted.among(items["item_id"].to_pylist())
        sparse.save_npz(out / COVISIT, counted.covisit)
        np.save(out / POPULARITY, counted.popularity_I)
        if self.making.words is not None:
            Bm25.of(words, **self.making.words.model_dump()).save(out / BM25)
        return Built(
            revision=seal_catalogue(out), items=len(words), embedded=len(rows), index=kind, recall=recall_of(out)
        )


_READ = ["item_id", "title", "category", "text"]  # what item_words reads


@dataclass
class _Past:
    """The vectors of a catalogue of the same model, for what of it is still true."""

    folder: Path
    row_of: dict[str, int]
    words: list[str]
    beside_ID: Floats
    rows_I: npt.NDArray[np.int64]  # of each item of now, or -1

    @classmethod
    def read(cls, maker: Maker, folder: Path) -> _Past:
        import pyarrow.parquet as parquet

        items = parquet.read_table(folder / ITEMS)
        told = items.select(_READ).to_pylist()
        row_of = {item["item_id"]: row for row, item in enumerate(told)}
        words = [item_words(item) for item in told]
        return cls(folder, row_of, words, maker.beside_words(items), np.zeros(0, np.int64))

    def unread(self, item_ids: Sequence[str], words: Sequence[str]) -> npt.NDArray[np.int64]:
        """The rows of the items whose words were not read before."""
        known = (self.row_of.get(item, -1) for item in item_ids)
        self.rows_I = np.array(
            [row if row >= 0 and self.words[row] == told else -1 for row, told in zip(known, words)], np.int64
        )
        return np.flatnonzero(self.rows_I < 0)

    def fill(self, vectors_ID: Floats, beside_ID: Floats, unread: npt.NDArray[np.int64], *, name: str) -> None:
        """Put in the vectors of the others; where only what is beside the words changed, by as much as that did."""
        rows = np.setdiff1d(np.arange(len(vectors_ID)), unread)
        then = self.rows_I[rows]
        past_ID = np.load(self.folder / name)
        # nothing is added where nothing changed: such a vector keeps its very bytes
        vectors_ID[rows] = past_ID[then] + (beside_ID[rows] - self.beside_ID[then])


# -- what a bundle holds -----------------------------------------------------------------------------------------


def can_embed(bundle: Bundle) -> bool:
    """Whether a bundle holds what makes items' vectors."""
    there = {OWN, MAKING} <= bundle.manifest.files.keys() and bundle.manifest.text is not None
    return there and all(each.side and each.text for each in bundle.manifest.precisions.values())


def read_making(folder: Path) -> Making:
    """What items.json of a bundle says.

    Raises:
        IntegrityError: it cannot be read.
    """
    try:
        return Making.model_validate_json((folder / MAKING).read_text())
    except (OSError, ValidationError, ValueError) as error:
        raise IntegrityError(
            "the bundle does not say how its items are read",
            expected=f"{MAKING} of this version of Rankline",
            found=str(error).splitlines()[0],
            where=str(folder / MAKING),
            hint="export the model again",
        ) from error


def write_own(folder: Path, item_ids: Sequence[str], vectors_KD: Floats) -> None:
    """Write own.parquet: the vectors that training gave to items."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    flat = pa.array(np.ascontiguousarray(vectors_KD, np.float32).ravel())
    vectors = pa.FixedSizeListArray.from_arrays(flat, vectors_KD.shape[1])
    table = pa.table({"item_id": pa.array(item_ids, pa.string()), "vector": vectors})
    parquet.write_table(table, folder / OWN, compression="zstd")


# -- catalogues --------------------------------------------------------------------------------------------------


def build(
    bundle: Bundle, items: Any, out: Path, *, before: Path | None = None, progress: Progress = Progress()
) -> Built:
    """Write the catalogue that a model makes of an Arrow table of items into ``out``, and seal it.

    What was counted of events is taken over, by item id, from the bundle's own catalogue. ``before`` is a catalogue
    of the same model: of items whose words have not changed since, no text is read again.

    Raises:
        IntegrityError: the bundle is of an earlier version and cannot embed items, or a declared column of the items
            is not what it was in training.
    """
    maker = Maker.of(bundle)
    return maker.build(items, out, counted=Counted.of_bundle(bundle), before=before, progress=progress)


def item_ids_of(folder: Path) -> list[str]:
    """The items of a catalogue, in the order of their vectors."""
    import pyarrow.parquet as parquet

    ids: list[str] = parquet.read_table(folder / ITEMS, columns=["item_id"])["item_id"].to_pylist()
    return ids


def words_of(items: Any) -> dict[str, str]:
    """Item id -> its words as a model reads them, of an Arrow table of items."""
    return {item["item_id"]: item_words(item) for item in items.select(_READ).to_pylist()}


def joined(bundle: Bundle, catalogue: Path, folder: Path) -> Bundle:
    """A model and a catalogue in one folder, as a server is given them; the files are the same ones, not copies."""
    for name in (MANIFEST, *bundle.manifest.files):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        step_cache.lay(bundle.folder / name, folder / name)
    step_cache.lay(catalogue, folder / CATALOGUE)
    (folder / CATALOGUE / step_cache.SUMS).unlink(missing_ok=True)  # a door's own list is no part of it
    return open_bundle(folder, verify=False)  # whoever serves it reads every byte


def file_of(precision: Precision) -> str:
    """Where in a catalogue the vectors of a precision lie."""
    return precision.item_vectors.removeprefix(f"{CATALOGUE}/")


def vectors_of(folder: Path, precisions: dict[str, Precision]) -> dict[str, Floats]:
    """Precision -> [I, D] the vectors of a catalogue."""
    return {name: np.load(folder / file_of(precision)) for name, precision in precisions.items()}


# -- words to vectors, vectors to neighbours ---------------------------------------------------------------------


def session_of(path: Path) -> Any:
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
    another: Callable[[int], None] = lambda count: None,
) -> Floats:
    """[I, D] what a text tower's session makes of some words, in their order; ``another`` hears of each batch."""
    out_ID = np.zeros((len(words), size), np.float32)
    for rows in batches(words, batch_size):
        ids_BW, mask_BW = tokenizer([words[row] for row in rows])
        out_ID[rows] = session.run(None, {"input_ids": ids_BW, "attention_mask": mask_BW})[0]
        another(len(rows))
    return out_ID


def write_index(folder: Path, told: Neighbours, *, exact_below: int = EXACT_BELOW) -> str:
    """Write the nearest-neighbour index over a catalogue's fp32 vectors; which kind it is."""
    import faiss

    index: Any
    vectors_ID = np.load(folder / "vectors.fp32.npy")
    count, size = vectors_ID.shape
    kind = told.kind if told.kind != "auto" else ("exact" if count < exact_below else "hnsw")
    if kind == "exact":
        index = faiss.IndexFlatIP(size)
    else:
        index = faiss.IndexHNSWFlat(size, told.links, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 2 * told.search
        index.hnsw.efSearch = told.search
    index.add(vectors_ID)
    faiss.write_index(index, str(folder / "index.faiss"))
    return kind


def recall_of(folder: Path) -> float:
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
    asked = vectors_ID[np.linspace(0, count - 1, min(count, ASKED)).astype(int)]
    depth = min(DEPTH, count)
    found, truth = index.search(asked, depth)[1], exact.search(asked, depth)[1]
    return float(np.mean([len(np.intersect1d(a, b)) / depth for a, b in zip(found, truth)]))
