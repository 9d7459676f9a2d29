"""Embeds items and writes a catalogue.

Shapes: I items, K items with an embedding of their own, W tokens, S side size, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rankline.contracts import Precision
from rankline.errors import IntegrityError
from rankline.features.bm25 import Bm25
from rankline.features.words import word_vectors
from rankline.io.files import link_or_copy
from rankline.model.bundle import CATALOGUE, MANIFEST, Bundle, open_bundle
from rankline.model.catalogue.index import RECALL_DEPTH, index_recall, write_index
from rankline.model.catalogue.interaction_counts import Floats, InteractionCounts, Ints, match_rows
from rankline.model.catalogue.settings import (
    CATALOGUE_SETTINGS,
    ITEM_EMBEDDINGS,
    CatalogueSettings,
    read_catalogue_settings,
)
from rankline.model.catalogue_files import (
    BM25,
    CATALOGUE_MANIFEST,
    COVISIT,
    ITEMS,
    POPULARITY,
    WORDS,
    catalogue_files,
    write_catalogue_manifest,
)
from rankline.runtime.lazy_imports import import_onnxruntime
from rankline.runtime.progress import Progress
from rankline.runtime.threads import session_threads
from rankline.text import Tokenizer, batches_by_length, item_text

_TEXT_COLUMNS = ["item_id", "title", "category", "text"]  # the columns that `item_text` reads


@dataclass(frozen=True)
class BuildResult:
    """A finished catalogue, and how much work it took."""

    revision: str
    items: int
    embedded: int  # items whose text was embedded; the vectors of the others were reused
    index: str
    recall: float

    @property
    def summary(self) -> dict[str, Any]:
        """The fields shown to users."""
        return {"items": self.items, "index": self.index, f"index_recall@{RECALL_DEPTH}": round(self.recall, 4)}


@dataclass(frozen=True)
class CatalogueBuilder:
    """The part of a model that embeds items; ``folder`` contains its files."""

    folder: Path
    precisions: dict[str, Precision]
    max_tokens: int
    settings: CatalogueSettings

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> CatalogueBuilder:
        """The builder of a bundle.

        Raises:
            IntegrityError: the bundle is from a version of Rankline whose bundles cannot embed items.
        """
        if not can_embed(bundle):
            raise IntegrityError(
                "this model cannot embed items by itself",
                expected=f"side.onnx, {ITEM_EMBEDDINGS} and {CATALOGUE_SETTINGS}, as this version of Rankline exports",
                found="a bundle of an earlier version",
                where=str(bundle.folder),
                hint="promote a model exported by this version; until then the catalogue stays as it is",
            )
        assert bundle.manifest.text is not None, "can_embed checks it"
        return cls(
            bundle.folder,
            bundle.manifest.precisions,
            bundle.manifest.text.max_tokens,
            read_catalogue_settings(bundle.folder),
        )

    def non_text_vectors(self, items: Any) -> Floats:
        """[I, D] the part of the items' vectors that does not come from text: side information and embeddings."""
        import pyarrow.parquet as parquet

        side = cpu_session(self.folder / str(self.precisions["fp32"].side))
        non_text_ID: Floats = side.run(None, {"side_IS": self.settings.side.matrix(items)})[0]
        embeddings = parquet.read_table(self.folder / ITEM_EMBEDDINGS)
        if len(embeddings):
            embeddings_KD = embeddings["vector"].combine_chunks().flatten().to_numpy().reshape(len(embeddings), -1)
            rows_K, embedding_rows_K = match_rows(items["item_id"].to_pylist(), embeddings["item_id"].to_pylist())
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
        """Write the catalogue of an Arrow table of items to ``out``.

        Texts that are unchanged since the catalogue ``before`` (of the same model) are not embedded again.

        Raises:
            IntegrityError: a declared column of the items has another type than in training.
        """
        import pyarrow.parquet as parquet
        import scipy.sparse as sparse

        items = items.replace_schema_metadata(None).combine_chunks()
        texts = [item_text(item) for item in items.select(_TEXT_COLUMNS).to_pylist()]
        non_text_ID = self.non_text_vectors(items)
        previous = _PreviousCatalogue.load(self, before) if before is not None else None
        rows = previous.changed_rows(items["item_id"].to_pylist(), texts) if previous else np.arange(len(texts))
        (out / "sources").mkdir(parents=True)
        # one chunk and no schema metadata: the same rows give the same bytes
        parquet.write_table(items, out / ITEMS, compression="zstd", store_schema=False)
        tokenizer = Tokenizer(self.folder / "tokenizer.json", max_tokens=self.max_tokens)
        changed_texts = [texts[row] for row in rows]
        counter = _Counter(progress, total=len(changed_texts) * len(self.precisions))
        for precision in self.precisions.values():
            assert precision.text is not None
            session, vectors_ID = cpu_session(self.folder / precision.text), np.empty_like(non_text_ID)
            vectors_ID[rows] = non_text_ID[rows]
            vectors_ID[rows] += embed(
                session, tokenizer, changed_texts, size=non_text_ID.shape[1], on_batch=counter.add
            )
            if previous:
                previous.fill(vectors_ID, non_text_ID, rows, name=vectors_file(precision))
            np.save(out / vectors_file(precision), vectors_ID)
        kind = write_index(out, self.settings.neighbours)
        interaction_counts = interaction_counts.reindex(items["item_id"].to_pylist())
        sparse.save_npz(out / COVISIT, interaction_counts.covisit)
        np.save(out / POPULARITY, interaction_counts.popularity_I)
        if self.settings.words is not None:
            Bm25.from_texts(texts, **self.settings.words.model_dump()).save(out / BM25)
        if self.settings.history_words is not None:
            sparse.save_npz(out / WORDS, word_vectors(texts, **self.settings.history_words.model_dump()))
        return BuildResult(
            revision=write_catalogue_manifest(out),
            items=len(texts),
            embedded=len(rows),
            index=kind,
            recall=index_recall(out),
        )


@dataclass
class _Counter:
    """Reports how many texts are embedded."""

    progress: Progress
    total: int
    done: int = 0

    def add(self, count: int) -> None:
        self.done += count
        self.progress.update(self.done, self.total)


@dataclass
class _PreviousCatalogue:
    """The vectors of an earlier catalogue of the same model."""

    folder: Path
    texts: list[str]
    row_of: dict[str, int]
    non_text_ID: Floats
    rows_I: Ints = field(default_factory=lambda: np.zeros(0, np.int64))  # the row of each new item here, or -1

    @classmethod
    def load(cls, builder: CatalogueBuilder, folder: Path) -> _PreviousCatalogue:
        import pyarrow.parquet as parquet

        items = parquet.read_table(folder / ITEMS)
        rows = items.select(_TEXT_COLUMNS).to_pylist()
        row_of = {item["item_id"]: row for row, item in enumerate(rows)}
        return cls(folder, [item_text(item) for item in rows], row_of, builder.non_text_vectors(items))

    def changed_rows(self, item_ids: Sequence[str], texts: Sequence[str]) -> Ints:
        """The rows of items that are new or whose text changed."""
        known = (self.row_of.get(item, -1) for item in item_ids)
        self.rows_I = np.array(
            [row if row >= 0 and self.texts[row] == text else -1 for row, text in zip(known, texts)], np.int64
        )
        return np.flatnonzero(self.rows_I < 0)

    def fill(self, vectors_ID: Floats, non_text_ID: Floats, changed: Ints, *, name: str) -> None:
        """Fill in the vectors of unchanged texts, moved by the change of their non-text part."""
        rows = np.setdiff1d(np.arange(len(vectors_ID)), changed)
        previous_rows = self.rows_I[rows]
        previous_ID = np.load(self.folder / name)
        # without a change the difference is exactly 0, and the vector keeps its bytes
        vectors_ID[rows] = previous_ID[previous_rows] + (non_text_ID[rows] - self.non_text_ID[previous_rows])


def can_embed(bundle: Bundle) -> bool:
    """Whether a bundle contains what it needs to embed items."""
    if bundle.manifest.text is None or not {ITEM_EMBEDDINGS, CATALOGUE_SETTINGS} <= bundle.manifest.files.keys():
        return False
    return all(precision.side and precision.text for precision in bundle.manifest.precisions.values())


def build(
    bundle: Bundle, items: Any, out: Path, *, before: Path | None = None, progress: Progress = Progress()
) -> BuildResult:
    """Write a bundle's catalogue of an Arrow table of items to ``out``; see `CatalogueBuilder.build`.

    Raises:
        IntegrityError: the bundle is of an earlier version and cannot embed items, or a declared column of the items
            has another type than in training.
    """
    return CatalogueBuilder.from_bundle(bundle).build(
        items, out, interaction_counts=InteractionCounts.from_bundle(bundle), before=before, progress=progress
    )


def assemble_bundle(bundle: Bundle, catalogue: Path, folder: Path) -> Bundle:
    """Combine a model and a catalogue in one folder, with hard links where possible; nothing is verified."""
    for name in (MANIFEST, *bundle.manifest.files):
        link_or_copy(bundle.folder / name, folder / name)
    for name in (CATALOGUE_MANIFEST, *catalogue_files(catalogue)):
        link_or_copy(catalogue / name, folder / CATALOGUE / name)
    return open_bundle(folder, verify=False)


def write_item_embeddings(folder: Path, item_ids: Sequence[str], vectors_KD: Floats) -> None:
    """Write own.parquet: the item embeddings learnt in training."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    flat = pa.array(np.ascontiguousarray(vectors_KD, np.float32).ravel())
    vectors = pa.FixedSizeListArray.from_arrays(flat, vectors_KD.shape[1])
    table = pa.table({"item_id": pa.array(item_ids, pa.string()), "vector": vectors})
    parquet.write_table(table, folder / ITEM_EMBEDDINGS, compression="zstd")


def item_texts(items: Any) -> dict[str, str]:
    """Item id -> its text, for an Arrow table of items."""
    return {item["item_id"]: item_text(item) for item in items.select(_TEXT_COLUMNS).to_pylist()}


def vectors_file(precision: Precision) -> str:
    """The vectors of a precision, relative to the catalogue's folder."""
    return precision.item_vectors.removeprefix(f"{CATALOGUE}/")


def load_vectors(folder: Path, precisions: dict[str, Precision]) -> dict[str, Floats]:
    """Precision -> [I, D] the vectors of a catalogue."""
    return {name: np.load(folder / vectors_file(precision)) for name, precision in precisions.items()}


def cpu_session(path: Path) -> Any:
    """An ONNX Runtime session on the CPU."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = session_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def embed(
    session: Any,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    size: int,
    batch_size: int = 64,
    on_batch: Callable[[int], None] = lambda count: None,
) -> Floats:
    """[I, D] the text tower's vectors, in the order of ``texts``; ``on_batch`` gets the size of each batch."""
    out_ID = np.zeros((len(texts), size), np.float32)
    for rows in batches_by_length(texts, batch_size):
        ids_BW, mask_BW = tokenizer([texts[row] for row in rows])
        out_ID[rows] = session.run(None, {"input_ids": ids_BW, "attention_mask": mask_BW})[0]
        on_batch(len(rows))
    return out_ID
