"""The model bundle: a folder that can be served.

    manifest.json  tokenizer.json  policy.json  examples.jsonl
    text.onnx user.onnx scorer.onnx           fp32, with .int8.onnx and .fp16.onnx next to them
    profile.onnx profile.json                 declared fields of users and of requests, where there are any
    side.onnx own.parquet items.json          with text.onnx, these embed items (rankline/model/catalogue/)
    catalogue/                                the catalogue it was exported with (rankline/model/catalogue_files.py)

The model id is the sha256 of the sorted (path, sha256) pairs of the servable files. The catalogue has a revision of its
own, because items change all day and models once a night. `open_bundle` can combine a bundle with a later revision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rankline.contracts import Manifest
from rankline.errors import IntegrityError, UsageError
from rankline.features.bm25 import Bm25
from rankline.features.profile import ProfileEncoder
from rankline.features.transforms import category_matrix
from rankline.io import digest
from rankline.io.files import read_model
from rankline.model.catalogue_files import (
    BM25,
    CATALOGUE_MANIFEST,
    COVISIT,
    ITEMS,
    POPULARITY,
    ROLLBACK_HINT,
    WORDS,
    catalogue_files,
    revision_of,
    write_catalogue_manifest,
)
from rankline.model.policy import POLICY_FILE, ServingPolicy
from rankline.model.scoring import CandidateSettings, Catalogue

MANIFEST = "manifest.json"
PROFILE_FILE = "profile.json"
CATALOGUE = "catalogue"
DISPLAY_COLUMNS = ("item_id", "title", "category", "price", "available", "language")
EXPORT_HINT = "export the model again with this version of Rankline"
_FETCH_HINT = "fetch the bundle again from the model registry, or promote another model"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle; ``catalogue`` is the folder of the catalogue that it serves with."""

    folder: Path
    manifest: Manifest
    model_id: str
    revision: str
    catalogue: Path

    @property
    def is_own_catalogue(self) -> bool:
        """Whether it serves with the catalogue it was exported with."""
        return self.catalogue == self.folder / CATALOGUE

    def file(self, name: str) -> Path:
        """The path of a file of the manifest; those of the catalogue are in the present one."""
        relative = name.removeprefix(f"{CATALOGUE}/")
        return self.folder / name if relative == name else self.catalogue / relative

    @property
    def policy(self) -> ServingPolicy:
        """Calibration and abstention.

        Raises:
            IntegrityError: policy.json cannot be read.
        """
        return read_model(
            self.folder / POLICY_FILE,
            ServingPolicy,
            what="the bundle's policy",
            error=IntegrityError,
            missing=EXPORT_HINT,
            damaged=EXPORT_HINT,
        )

    @property
    def profile_encoder(self) -> ProfileEncoder:
        """How the declared fields of requests are encoded; without fields where none are declared.

        Raises:
            IntegrityError: profile.json cannot be read.
        """
        if PROFILE_FILE not in self.manifest.files:
            return ProfileEncoder(columns=[])
        return read_model(
            self.folder / PROFILE_FILE,
            ProfileEncoder,
            what="the bundle's declared fields",
            error=IntegrityError,
            missing=EXPORT_HINT,
            damaged=EXPORT_HINT,
        )

    @property
    def candidate_settings(self) -> CandidateSettings:
        """How candidates are drawn for this model."""
        return CandidateSettings(
            candidates_per_source=self.manifest.candidates_per_source,
            covisit_decay=self.manifest.covisit_decay,
            max_history=self.manifest.max_history,
        )


def model_id(files: dict[str, str]) -> str:
    """The id of a model with these servable files (path -> sha256)."""
    return digest.json_digest(dict(sorted(files.items())))[:16]


def write_bundle_manifest(folder: Path, manifest: Manifest) -> Bundle:
    """Write both manifests for the files in ``folder`` and open the bundle."""
    catalogue = folder / CATALOGUE
    write_catalogue_manifest(catalogue)
    servable = [
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if p.is_file() and p != folder / MANIFEST and catalogue not in p.parents and p.name != "files.json"
    ]
    complete = manifest.model_copy(update={"files": digest.file_digests(folder, servable)})
    (folder / MANIFEST).write_text(complete.model_dump_json(indent=2) + "\n")
    return open_bundle(folder)


def open_bundle(folder: Path, *, catalogue: Path | None = None, verify: bool = True) -> Bundle:
    """Open a bundle and, by default, verify every file.

    ``catalogue`` is the folder of a later revision to use instead of the bundle's own catalogue.

    Raises:
        UsageError: ``folder`` is no bundle, or ``catalogue`` no catalogue.
        IntegrityError: a manifest cannot be read, or a file is missing, differs from its sha256 or has none.
    """
    if not (folder / MANIFEST).is_file():
        raise UsageError(
            "this is not a model bundle",
            expected=f"{MANIFEST} and {CATALOGUE}/{CATALOGUE_MANIFEST}",
            found=f"no {MANIFEST}",
            where=str(folder),
            hint="give the folder written by `rankline step export`, or one in repository/bundles/",
        )
    manifest = read_model(
        folder / MANIFEST,
        Manifest,
        what="the bundle's manifest",
        error=IntegrityError,
        missing=_FETCH_HINT,
        damaged=EXPORT_HINT,
    )
    catalogue_folder = catalogue or folder / CATALOGUE
    files = catalogue_files(catalogue_folder)
    refuse_unlisted(manifest, files, where=catalogue or folder / MANIFEST)
    if verify:
        digest.verify(folder, manifest.files, hint=_FETCH_HINT)
        digest.verify(catalogue_folder, files, hint=ROLLBACK_HINT if catalogue else _FETCH_HINT)
    return Bundle(folder, manifest, model_id(manifest.files), revision_of(files), catalogue_folder)


def unverified_model_id(manifest: bytes) -> str:
    """The model id by the content of a bundle's manifest, without verifying a file; empty if it is no manifest."""
    try:
        return model_id(Manifest.model_validate_json(manifest).files)
    except ValueError:
        return ""


def refuse_unlisted(manifest: Manifest, revision_files: dict[str, str], *, where: Path) -> None:
    """Refuse a manifest that serves a file without a digest.

    Raises:
        IntegrityError: naming the first such file.
    """
    listed = {*manifest.files, *(f"{CATALOGUE}/{name}" for name in revision_files)}
    for name, precision in manifest.precisions.items():
        for file in precision.served_files:
            if file is not None and file not in listed:
                raise IntegrityError(
                    f"the bundle's manifest names a {name} file that has no digest",
                    expected="every served file in the manifest's files or the catalogue's",
                    found=file,
                    where=str(where),
                    hint=_FETCH_HINT,
                )


def read_catalogue(
    bundle: Bundle, precision: str, *, numbers: Sequence[str] = ()
) -> tuple[Catalogue, list[dict[str, Any]]]:
    """Load a bundle's catalogue, and its items with their display columns and ``numbers`` in the same order.

    Raises:
        IntegrityError: the parts of the catalogue do not fit each other or the model.
    """
    import pyarrow.parquet as parquet
    import scipy.sparse as sparse

    folder = bundle.catalogue
    table = parquet.ParquetFile(folder / ITEMS)
    columns = dict.fromkeys([*DISPLAY_COLUMNS, *numbers])
    items = table.read(columns=[name for name in columns if name in table.schema_arrow.names]).to_pylist()
    if missing := [name for name in numbers if name not in table.schema_arrow.names]:
        raise IntegrityError(
            "the catalogue has no number that the order of answers reads",
            expected=", ".join(numbers),
            found=f"no {missing[0]}",
            where=str(folder / ITEMS),
            hint="read the items with this column, or return to an older revision with `rankline catalogue rollback`",
        )
    ids = [item["item_id"] for item in items]
    categories = [item.get("category") or [] for item in items]
    vocabulary = sorted({name for names in categories for name in names})
    withdrawn = [row for row, item in enumerate(items) if item.get("available") is False]
    catalogue = Catalogue(
        item_ids=ids,
        index={item: row for row, item in enumerate(ids)},
        vectors_ID=np.load(bundle.file(bundle.manifest.precisions[precision].item_vectors)),
        categories_IC=category_matrix(categories, vocabulary),
        vocabulary=vocabulary,
        covisit=sparse.load_npz(folder / COVISIT),
        popularity_I=np.load(folder / POPULARITY),
        bm25=Bm25.load(folder / BM25) if (folder / BM25).is_dir() else None,
        words_IV=sparse.load_npz(folder / WORDS) if (folder / WORDS).is_file() else None,
        withdrawn=np.array(withdrawn, np.int64),
    )
    _refuse_inconsistent_parts(bundle, catalogue)
    return catalogue, items


def _refuse_inconsistent_parts(bundle: Bundle, catalogue: Catalogue) -> None:
    items = len(catalogue.item_ids)
    shapes = {
        "vectors": (catalogue.vectors_ID.shape, (items, bundle.manifest.vector_size)),
        "distinct items": (len(catalogue.index), items),
        "covisit": (catalogue.covisit.shape, (items, items)),
        "popularity": (catalogue.popularity_I.shape, (items,)),
    }
    if catalogue.words_IV is not None:
        shapes["words"] = (catalogue.words_IV.shape[:1], (items,))
    for name, (actual, expected) in shapes.items():
        if actual != expected:
            raise IntegrityError(
                "the parts of a catalogue do not fit each other and the model",
                expected=f"{name}: {expected}, for {items} items in {ITEMS}",
                found=f"{actual}",
                where=str(bundle.catalogue),
                hint=ROLLBACK_HINT,
            )
