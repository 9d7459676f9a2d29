"""The catalogue part of a bundle: item vectors, the nearest-neighbour index, the other sources, canaries."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.export.config import ExportConfig
from components.export.student import Student
from rankline.contracts import Precision
from rankline.progress import Progress
from rankline.text import batches

Floats = npt.NDArray[np.float32]
SHOWN = ("item_id", "title", "category", "price", "available", "language")


def embed(session: Any, student: Student, words: list[str], *, batch_size: int = 64) -> Floats:
    """[I, D] what a text tower's session makes of some words, in their order."""
    out_ID = np.zeros((len(words), student.tower.size), np.float32)
    for rows in batches(words, batch_size):
        ids_BW, mask_BW = student.tokenizer([words[row] for row in rows])
        out_ID[rows] = session.run(None, {"input_ids": ids_BW, "attention_mask": mask_BW})[0]
    return out_ID


def session_of(path: Path) -> Any:
    """An ONNX Runtime session on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def write_vectors(
    student: Student, bundle: Path, precisions: dict[str, Precision], words: list[str], *, progress: Progress
) -> None:
    """Each precision's item vectors: its text tower's word, plus what the item has besides words."""
    for done, precision in enumerate(precisions.values()):
        assert precision.text is not None
        path = bundle / precision.item_vectors
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, embed(session_of(bundle / precision.text), student, words) + student.beside_words_ID)
        progress.update(done + 1, len(precisions))


def write_index(bundle: Path, *, config: ExportConfig, exact_below: int) -> dict[str, Any]:
    """The nearest-neighbour index over the fp32 vectors, and its recall@100 against exact search."""
    import faiss

    vectors_ID = np.load(bundle / "catalogue" / "vectors.fp32.npy")
    count, size = vectors_ID.shape
    kind = config.index if config.index != "auto" else ("exact" if count < exact_below else "hnsw")
    exact = faiss.IndexFlatIP(size)
    exact.add(vectors_ID)
    if kind == "exact":
        index = exact
    else:
        index = faiss.IndexHNSWFlat(size, config.hnsw_links, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 2 * config.hnsw_search
        index.hnsw.efSearch = config.hnsw_search
        index.add(vectors_ID)
    faiss.write_index(index, str(bundle / "catalogue" / "index.faiss"))
    asked = vectors_ID[np.linspace(0, count - 1, min(count, 200)).astype(int)]
    depth = min(100, count)
    found, truth = index.search(asked, depth)[1], exact.search(asked, depth)[1]
    recall = float(np.mean([len(np.intersect1d(a, b)) / depth for a, b in zip(found, truth)]))
    return {"index": kind, "index_recall@100": round(recall, 4)}


def write_items_and_sources(items: Any, student: Path, bundle: Path) -> None:
    """What people see of each item, in the order of the vectors, and the counted sources."""
    import pyarrow.parquet as parquet

    shown = items.select([name for name in SHOWN if name in items.column_names])
    parquet.write_table(shown, bundle / "catalogue" / "items.parquet", compression="zstd")
    shutil.copytree(student / "sources", bundle / "catalogue" / "sources")


def write_canaries(features: Path, student: Path, bundle: Path, *, count: int) -> None:
    """A few frozen requests with the answers torch gave, for whoever serves the bundle to check itself."""
    import pyarrow.parquet as parquet

    from rankline import frozen

    expected = {row["request_id"]: row for row in parquet.read_table(student / "parity.parquet").to_pylist()}
    with (bundle / "examples.jsonl").open("w") as stream:
        for request, _ in zip(frozen.requests(features, "test"), range(count)):
            answer = expected[request.request_id]
            line = {
                "query": request.query,
                "frozen": request.state.model_dump(),
                "candidates": answer["item_ids"],
                "logits": answer["logits"],
            }
            stream.write(json.dumps(line) + "\n")
