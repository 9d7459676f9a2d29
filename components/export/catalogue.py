"""The parts of a bundle that its catalogue is built from, and the canaries."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from components.export.config import ExportConfig
from components.export.student import Student
from rankline.model.catalogue import CATALOGUE_SETTINGS, CatalogueSettings, IndexSettings, write_item_embeddings


def write_settings(student: Student, bundle: Path, item_ids: list[str], *, config: ExportConfig) -> CatalogueSettings:
    """Write items.json, how catalogues are built, and own.parquet, the embeddings of items seen in training."""
    known = np.flatnonzero(student.known_I)
    write_item_embeddings(bundle, [item_ids[row] for row in known], student.own_ID[known])
    catalogue_settings = CatalogueSettings(
        side=student.settings["side"],
        words=student.settings["bm25"],
        history_words=student.settings["history_words"],
        neighbours=IndexSettings(kind=config.index, links=config.hnsw_links, search=config.hnsw_search),
    )
    (bundle / CATALOGUE_SETTINGS).write_text(catalogue_settings.model_dump_json(indent=2) + "\n")
    return catalogue_settings


def write_canaries(features: Path, student: Path, bundle: Path, *, count: int) -> None:
    """Write a few test requests with torch's logits, with which a server checks itself."""
    import pyarrow.parquet as parquet

    from rankline.evaluation import snapshot_requests

    expected = {row["request_id"]: row for row in parquet.read_table(student / "parity.parquet").to_pylist()}
    with (bundle / "examples.jsonl").open("w") as stream:
        for request, _ in zip(snapshot_requests.read_snapshot_requests(features, "test"), range(count)):
            scored = expected[request.request_id]
            canary = {
                "query": request.query,
                "frozen": request.state.model_dump(),
                "candidates": scored["item_ids"],
                "logits": scored["logits"],
            }
            stream.write(json.dumps(canary) + "\n")
