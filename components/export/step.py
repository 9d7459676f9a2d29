"""export: the student as ONNX graphs and a catalogue, in one folder that anybody can serve.

Reads    features/  student/
Writes   bundle/    see rankline/model/bundle.py

Shapes: B requests, L history events, C candidates, I items, W tokens, D vector size, F features, H heads.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from components.export.config import ExportConfig
from rankline.model.bundle import CATALOGUE
from rankline.runtime.progress import Progress


def export(
    features: Path,
    student: Path,
    bundle: Path,
    *,
    config: ExportConfig,
    progress: Progress,
    code_digest: str = "",
) -> dict[str, Any]:
    """Write the bundle of the student in ``student``; the difference of every graph from torch is recorded.

    Raises:
        IntegrityError: an fp32 graph differs from torch by more than ``config.max_difference``.
    """
    import pyarrow.parquet as parquet

    from components.export import catalogue, graphs, parity
    from components.export.student import Student
    from rankline.contracts import FeatureNames, Manifest, Precision, TextSettings
    from rankline.model import bundle as bundles
    from rankline.model import catalogue as catalogues
    from rankline.model.policy import POLICY_FILE
    from rankline.text import item_text

    items = parquet.read_table(features / "items.parquet")
    words = [item_text(item) for item in items.to_pylist()]
    summary = json.loads((features / "summary.json").read_text())
    loaded = Student.read(student)
    bundle.mkdir(parents=True)

    # The graphs, each precision beside the others
    towers = ("text", "user", "scorer") if loaded.settings["users"] else ("text", "scorer")
    fp32 = {name: f"{name}.onnx" for name in (*towers, "side")}
    stages = 3 + config.int8 + config.fp16
    progress.phase("exporting graphs")
    graphs.write_text(loaded, bundle / "text.onnx", opset=config.opset, fuse=config.fuse)
    graphs.write_side(loaded, bundle / "side.onnx", opset=config.opset)
    progress.update(1, stages)
    if "user" in towers:
        graphs.write_user(loaded, bundle / "user.onnx", opset=config.opset)
    progress.update(2, stages)
    graphs.write_scorer(loaded, bundle / "scorer.onnx", opset=config.opset)
    progress.update(3, stages)
    vectors = {name: f"catalogue/vectors.{name}.npy" for name in ("fp32", "int8", "fp16")}
    precisions = {"fp32": Precision(**fp32, item_vectors=vectors["fp32"])}
    if config.int8:
        graphs.write_int8(bundle / "text.onnx", bundle / "text.int8.onnx")
        precisions["int8"] = precisions["fp32"].model_copy(
            update={"text": "text.int8.onnx", "item_vectors": vectors["int8"]}
        )
        progress.update(4, stages)
    if config.fp16:
        for name in towers:
            graphs.write_fp16(bundle / f"{name}.onnx", bundle / f"{name}.fp16.onnx")
        halved = {name: f"{name}.fp16.onnx" for name in towers}
        precisions["fp16"] = Precision(**{**fp32, **halved}, item_vectors=vectors["fp16"])
        progress.update(stages, stages)

    # Beside the graphs: tokens, policy, how items are read
    shutil.copyfile(student / "encoder" / "tokenizer.json", bundle / "tokenizer.json")
    shutil.copyfile(student / POLICY_FILE, bundle / POLICY_FILE)
    item_ids = items["item_id"].to_pylist()
    catalogue_settings = catalogue.write_making(loaded, bundle, item_ids, config=config)

    # The catalogue: each precision's vectors come from that precision's own text tower
    progress.phase("embedding the catalogue")
    maker = catalogues.CatalogueBuilder(bundle, precisions, loaded.settings["max_tokens"], catalogue_settings)
    interaction_counts = catalogues.InteractionCounts.load(student, item_ids)
    built = maker.build(items, bundle / CATALOGUE, interaction_counts=interaction_counts, progress=progress)

    # How far from torch
    progress.phase("comparing with torch")
    differences = parity.measure(loaded, bundle, precisions, words, samples=config.parity_samples)
    parity.check_parity(differences, limit=config.max_difference)
    catalogue.write_canaries(features, student, bundle, count=config.canaries)

    sealed = bundles.write_bundle_manifest(
        bundle,
        Manifest(
            recipe=config.recipe,
            catalogue=config.catalogue,
            heads=loaded.settings["heads"],
            features=FeatureNames(**loaded.settings["features"]),
            text=TextSettings(max_tokens=loaded.settings["max_tokens"], turns=loaded.settings["turns"]),
            vector_size=loaded.settings["vector_size"],
            max_history=loaded.settings["tower"]["max_history"],
            **loaded.settings["knobs"],
            precisions=precisions,
            parity=differences,
            data_digest=summary["data_digest"],
            code_digest=code_digest,
            train_end=summary["train_end"],
            data_end=summary.get("data_end", ""),
        ),
    )
    fp32_differences = [each.max_abs_difference for each in differences if each.precision == "fp32"]
    sizes = {name: (bundle / part.text).stat().st_size for name, part in precisions.items() if part.text}
    return {
        "model_id": sealed.model_id,
        "revision": sealed.revision,
        "max_abs_difference_fp32": max(fp32_differences),
        **built.summary,
        "text_tower_bytes": sizes,
    }
