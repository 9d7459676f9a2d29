"""A tiny bundle that can embed items: the one of tiny_bundle.py plus the files that build a catalogue.

An item's vector is the mean of its words' vectors, plus its side information times a matrix, plus, for the first half
of the items, a vector of their own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rankline.contracts import ITEMS, FrozenState, History
from rankline.features.side_features import SideFeatures
from rankline.model import catalogue as catalogues
from rankline.model.bundle import CATALOGUE, Bundle, open_bundle, write_bundle_manifest
from rankline.model.catalogue import (
    Bm25Settings,
    CatalogueBuilder,
    CatalogueSettings,
    IndexSettings,
    InteractionCounts,
    write_item_embeddings,
)
from tests.serving.tiny_bundle import CATEGORIES, SIZE, _model, _save, _tensor, item_id, make_bundle, titles

SCHEMA = pa.schema([*ITEMS, pa.field("weight", pa.float64())])


def table(count: int = 40, **changes: dict[str, dict[str, Any]]) -> pa.Table:
    """The items of the tiny catalogue as ingest writes them; ``changes`` are values by item id."""
    rows = [
        {
            "item_id": item_id(row),
            "title": title,
            "text": None,
            "language": None,
            "category": [CATEGORIES[row % len(CATEGORIES)]],
            "price": 1.0 + row,
            "available": True,
            "created_at": None,
            "weight": float(row % 7),
        }
        for row, title in enumerate(titles(count))
    ]
    return pa.Table.from_pylist([row | changes.get(str(row["item_id"]), {}) for row in rows], schema=SCHEMA)


def make_embedding_bundle(
    folder: Path,
    *,
    items: pa.Table | None = None,
    seed: int = 0,
    precisions: tuple[str, ...] = ("fp32",),
    queries: bool = False,
    neighbours: IndexSettings = IndexSettings(),  # noqa: B008 (a frozen value)
    broken: Sequence[str] = (),
) -> Bundle:
    """Write such a bundle to ``folder``, with three canaries; the embeddings of ``broken`` items are NaN."""
    items = table() if items is None else items
    rng, count = np.random.default_rng(seed), len(items)
    tiny = make_bundle(folder, items=count, seed=seed, precisions=precisions, queries=queries)
    side = SideFeatures.of(items)
    weights_SD = rng.normal(scale=0.1, size=(side.size, SIZE)).astype(np.float32)
    _save(folder / "side.onnx", _side_graph(weights_SD))
    ids = items["item_id"].to_pylist()
    own_KD = rng.normal(scale=0.3, size=(count // 2, SIZE)).astype(np.float32)
    catalogue_settings = CatalogueSettings(
        side=side, words=Bm25Settings(stemmer="", k1=0.9, b=0.4) if queries else None, neighbours=neighbours
    )
    (folder / catalogues.CATALOGUE_SETTINGS).write_text(catalogue_settings.model_dump_json())
    changed = {
        name: precision.model_copy(update={"side": "side.onnx"}) for name, precision in tiny.manifest.precisions.items()
    }
    manifest = tiny.manifest.model_copy(update={"precisions": changed})
    interaction_counts = InteractionCounts.load(folder / CATALOGUE, ids)
    shutil.rmtree(folder / CATALOGUE)
    write_item_embeddings(folder, ids[: len(own_KD)], own_KD)
    CatalogueBuilder(folder, changed, 16, catalogue_settings).build(
        items, folder / CATALOGUE, interaction_counts=interaction_counts
    )
    sealed = _with_canaries(folder, write_bundle_manifest(folder, manifest), ids)
    if broken:
        own_KD[[ids.index(item) for item in broken]] = np.nan
        write_item_embeddings(folder, ids[: len(own_KD)], own_KD)
        sealed = write_bundle_manifest(folder, manifest)
    return sealed


def _with_canaries(folder: Path, sealed: Bundle, ids: list[str]) -> Bundle:
    from serving.engine import BundleEngine, EngineRequest, run_request

    engine = BundleEngine.load(sealed, precision="fp32", provider="cpu", threads=1)
    lines = []
    for n in range(3):
        history = History(item_ids=ids[n : n + 3], times=[1.0, 2.0, 3.0], ratings=[5.0, 4.0, 3.0])
        state = FrozenState(at=4.0, history=history, seen=history.item_ids)
        items = run_request(engine, EngineRequest("recommend", state, k=12)).items
        lines.append(
            {
                "query": None,
                "frozen": state.model_dump(),
                "candidates": [item.item_id for item in items],
                "logits": [item.logits["click"] for item in items],
            }
        )
    (folder / "examples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return write_bundle_manifest(folder, sealed.manifest)


def _side_graph(weights_SD: Any) -> Any:
    from onnx import helper

    return _model(
        [helper.make_node("MatMul", ["side_IS", "weights_SD"], ["beside_ID"])],
        [_tensor("side_IS", ["I", len(weights_SD)])],
        [_tensor("beside_ID", ["I", SIZE])],
        {"weights_SD": weights_SD},
    )


def without_ranges(folder: Bundle) -> Bundle:
    """Remove the value ranges, which items.json of an earlier version did not have."""
    path = folder.folder / catalogues.CATALOGUE_SETTINGS
    changed = json.loads(path.read_text())
    del changed["side"]["prices"]
    for precision in changed["side"]["declared"]:
        del precision["range"]
    path.write_text(json.dumps(changed))
    return write_bundle_manifest(folder.folder, folder.manifest)


def without_embedding(folder: Path) -> Bundle:
    """Remove the files that a bundle of an earlier version did not have."""
    manifest = open_bundle(folder).manifest
    changed = {name: precision.model_copy(update={"side": None}) for name, precision in manifest.precisions.items()}
    for name in ("side.onnx", catalogues.ITEM_EMBEDDINGS, catalogues.CATALOGUE_SETTINGS):
        (folder / name).unlink()
    return write_bundle_manifest(folder, manifest.model_copy(update={"precisions": changed}))
