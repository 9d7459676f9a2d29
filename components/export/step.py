"""export: the student as ONNX graphs and a catalogue, in one folder that can be served.

Reads    features/  student/
Writes   bundle/    see rankline/model/bundle.py
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.export.config import ExportConfig
from rankline.model.bundle import CATALOGUE
from rankline.runtime.progress import Progress

if TYPE_CHECKING:
    from components.export.student import Student
    from rankline.contracts import Manifest


def export(
    features: Path, student: Path, bundle: Path, *, config: ExportConfig, progress: Progress, code_digest: str = ""
) -> dict[str, Any]:
    """Write the bundle of the student in ``student``, with the difference of every graph from torch.

    Raises:
        IntegrityError: an fp32 graph differs from torch by more than ``config.max_difference``.
    """
    import pyarrow.parquet as parquet

    from components.export import catalogue, graphs, parity
    from components.export.student import Student
    from rankline.model import bundle as bundles
    from rankline.model.catalogue import CatalogueBuilder, InteractionCounts
    from rankline.model.policy import POLICY_FILE
    from rankline.text import item_text

    items = parquet.read_table(features / "items.parquet")
    item_ids = items["item_id"].to_pylist()
    loaded = Student.load(student)
    bundle.mkdir(parents=True)

    progress.phase("exporting graphs")
    precisions = graphs.write_graphs(loaded, bundle, config, progress=progress)
    shutil.copyfile(student / "encoder" / "tokenizer.json", bundle / "tokenizer.json")
    shutil.copyfile(student / POLICY_FILE, bundle / POLICY_FILE)
    if loaded.profile_encoder is not None:
        (bundle / bundles.PROFILE_FILE).write_text(loaded.profile_encoder.model_dump_json(indent=2) + "\n")
    catalogue_settings = catalogue.write_settings(loaded, bundle, item_ids, config=config)

    progress.phase("embedding the catalogue")  # each precision's vectors come from its own text tower
    builder = CatalogueBuilder(bundle, precisions, loaded.settings["max_tokens"], catalogue_settings)
    counts = InteractionCounts.load(student, item_ids)
    built = builder.build(items, bundle / CATALOGUE, interaction_counts=counts, progress=progress)

    progress.phase("comparing with torch")
    texts = [item_text(item) for item in items.to_pylist()]
    differences = parity.measure(loaded, bundle, precisions, texts, samples=config.parity_samples)
    parity.check_parity(differences, limit=config.max_difference)
    catalogue.write_canaries(features, student, bundle, count=config.canaries)

    manifest = _manifest(loaded, config, features, precisions=precisions, parity=differences, code_digest=code_digest)
    sealed = bundles.write_bundle_manifest(bundle, manifest)
    sizes = {name: (bundle / part.text).stat().st_size for name, part in precisions.items() if part.text}
    return {
        "model_id": sealed.model_id,
        "revision": sealed.revision,
        "max_abs_difference_fp32": max(each.max_abs_difference for each in differences if each.precision == "fp32"),
        **built.summary,
        "text_tower_bytes": sizes,
    }


def _manifest(student: Student, config: ExportConfig, features: Path, **measured: Any) -> Manifest:
    """The bundle's manifest, with the precisions, the parity and the code digest that the step ``measured``."""
    from rankline.contracts import FeatureNames, Manifest, TextSettings

    summary, settings = json.loads((features / "summary.json").read_text()), student.settings
    return Manifest(
        recipe=config.recipe,
        catalogue=config.catalogue,
        heads=settings["heads"],
        features=FeatureNames(**settings["features"]),
        text=TextSettings(max_tokens=settings["max_tokens"], turns=settings["turns"]),
        vector_size=settings["vector_size"],
        max_history=settings["tower"]["max_history"],
        **settings["knobs"],
        data_digest=summary["data_digest"],
        ranks_by=settings["ranks_by"],
        train_end=summary["train_end"],
        data_end=summary.get("data_end", ""),
        **measured,
    )
