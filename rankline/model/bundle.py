"""The bundle: what is served, as a folder with a manifest. Anyone holding one can serve it.

    manifest.json  tokenizer.json  policy.json  examples.jsonl
    text.onnx user.onnx scorer.onnx           fp32, with .int8.onnx and .fp16.onnx beside them
    side.onnx own.parquet items.json          what makes items' vectors, with text.onnx (rankline/model/catalogue.py)
    catalogue/  catalogue.json  items.parquet  vectors.fp32.npy (and int8, fp16)  index.faiss
                sources/covisit.npz  sources/popularity.npy  sources/bm25/ (where there are queries)

The model id is the sha256 over the sorted (path, sha256) of the servable files; the catalogue has a revision
of its own, made the same way, since items change all day and a model once a night. A later revision lies elsewhere,
as a folder of the same files as ``catalogue/``, and takes its place when the bundle is opened.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from rankline.contracts import FrozenModel, Manifest
from rankline.errors import IntegrityError, RanklineError, UsageError
from rankline.features.bm25 import Bm25
from rankline.features.transforms import category_matrix
from rankline.io import digest
from rankline.model.policy import POLICY_FILE, ServingPolicy
from rankline.model.scoring import CandidateSettings, Catalogue

MANIFEST = "manifest.json"
CATALOGUE = "catalogue"
CATALOGUE_MANIFEST = "catalogue.json"
DISPLAY_COLUMNS = ("item_id", "title", "category", "price", "available", "language")  # what people see of an item
_FETCH_HINT = "fetch the bundle again from the model repository, or promote another"
_ROLLBACK_HINT = "refresh the catalogue anew, or go back to an older revision: `rankline catalogue rollback`"


class _CatalogueManifest(FrozenModel):
    """What catalogue.json holds: path -> sha256."""

    files: dict[str, str]


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: its folder, manifest and ids, and where the catalogue lies that it is served with."""

    folder: Path
    manifest: Manifest
    model_id: str
    revision: str
    catalogue: Path

    @property
    def is_own_catalogue(self) -> bool:
        """Whether that is the catalogue it was exported with."""
        return self.catalogue == self.folder / CATALOGUE

    def file(self, name: str) -> Path:
        """Where a file lies that the manifest names; those of the catalogue are looked up in the one it has now."""
        relative = name.removeprefix(f"{CATALOGUE}/")
        return self.folder / name if relative == name else self.catalogue / relative

    @property
    def policy(self) -> ServingPolicy:
        """What is done with its scores.

        Raises:
            IntegrityError: policy.json cannot be read.
        """
        try:
            return ServingPolicy.model_validate_json((self.folder / POLICY_FILE).read_text())
        except (OSError, ValidationError, ValueError) as error:
            raise IntegrityError(
                "the bundle's policy cannot be read",
                expected=f"{POLICY_FILE} of this version of Rankline",
                found=str(error).splitlines()[0],
                where=str(self.folder / POLICY_FILE),
                hint="export the model again",
            ) from error

    @property
    def candidate_settings(self) -> CandidateSettings:
        """How candidates are drawn for this model."""
        return CandidateSettings(
            candidates_per_source=self.manifest.candidates_per_source,
            covisit_decay=self.manifest.covisit_decay,
            max_history=self.manifest.max_history,
        )


def model_id(files: dict[str, str]) -> str:
    """The id of a model made of these servable files (path -> sha256)."""
    return digest.json_digest(dict(sorted(files.items())))[:16]


def write_bundle_manifest(folder: Path, manifest: Manifest) -> Bundle:
    """Write the catalogue's revision and the manifest for the files that lie in ``folder``."""
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
    """Read a bundle and, unless told otherwise, check every byte against its digests.

    ``catalogue`` is a later revision's folder, in place of the bundle's own (which is then not looked at).

    Raises:
        UsageError: ``folder`` is no bundle, or ``catalogue`` no catalogue.
        IntegrityError: the manifest cannot be read; a file is missing, differs from its sha256, or is served
            without having one.
    """
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_text())
    except FileNotFoundError as error:
        raise UsageError(
            "this is not a model bundle",
            expected=f"{MANIFEST} and {CATALOGUE}/{CATALOGUE_MANIFEST}",
            found=f"no {MANIFEST}",
            where=str(folder),
            hint="give the folder that `rankline step export` wrote, or one under repository/bundles/",
        ) from error
    except (ValidationError, ValueError) as error:
        raise IntegrityError(
            "the bundle's manifest cannot be read",
            expected="manifest schema version 1",
            found=str(error).splitlines()[0],
            where=str(folder),
            hint="export the model again with this version of Rankline",
        ) from error
    catalogue_folder = catalogue or folder / CATALOGUE
    files = catalogue_files(catalogue_folder)
    refuse_unlisted(manifest, files, where=catalogue or folder / MANIFEST)
    if verify:
        digest.verify(folder, manifest.files, hint=_FETCH_HINT)
        digest.verify(catalogue_folder, files, hint=_ROLLBACK_HINT if catalogue else _FETCH_HINT)
    return Bundle(folder, manifest, model_id(manifest.files), revision_of(files), catalogue_folder)


def revision_of(files: dict[str, str]) -> str:
    """The revision of a catalogue made of these files (path -> sha256)."""
    return digest.json_digest(files)[:16]


def write_catalogue_manifest(folder: Path) -> str:
    """Write the list of the files that lie in a catalogue's folder; its revision."""
    (folder / CATALOGUE_MANIFEST).unlink(missing_ok=True)
    files = digest.file_digests(folder)
    (folder / CATALOGUE_MANIFEST).write_text(json.dumps({"files": files}, indent=2) + "\n")
    return revision_of(files)


def catalogue_files(folder: Path) -> dict[str, str]:
    """Path -> sha256 of the files of a catalogue, as it lists them; no byte of them is read.

    Raises:
        UsageError: there is no list.
        IntegrityError: it cannot be read.
    """
    try:
        return _CatalogueManifest.model_validate_json((folder / CATALOGUE_MANIFEST).read_text()).files
    except FileNotFoundError as error:
        raise UsageError(
            "this is not a catalogue",
            expected=f"a folder with {CATALOGUE_MANIFEST}, items.parquet, vectors and sources",
            found=f"no {CATALOGUE_MANIFEST}",
            where=str(folder),
            hint="give the catalogue/ folder of a bundle, or one that a refresh wrote",
        ) from error
    except (ValidationError, ValueError) as error:
        raise IntegrityError(
            "a catalogue's list of files cannot be read",
            expected="path -> sha256",
            found=str(error).splitlines()[0],
            where=str(folder / CATALOGUE_MANIFEST),
            hint=_ROLLBACK_HINT,
        ) from error


def verify_catalogue(folder: Path) -> str:
    """The revision of a catalogue, every byte of which was checked against its digests.

    Raises:
        UsageError: ``folder`` is no catalogue.
        IntegrityError: its list cannot be read; a file is missing, or differs from its sha256.
    """
    files = catalogue_files(folder)
    digest.verify(folder, files, hint=_ROLLBACK_HINT)
    return revision_of(files)


def unverified_model_id(folder: Path) -> str:
    """The model id that a folder's manifest claims, unchecked; empty where it is no bundle."""
    try:
        return open_bundle(folder, verify=False).model_id
    except RanklineError:
        return ""


def refuse_unlisted(manifest: Manifest, revision_files: dict[str, str], *, where: Path) -> None:
    """Stop where the manifest has a file served whose digest neither it nor the catalogue wrote down.

    Raises:
        IntegrityError: naming the first such file.
    """
    listed = {*manifest.files, *(f"{CATALOGUE}/{name}" for name in revision_files)}
    for name, precision in manifest.precisions.items():
        for file in (precision.text, precision.side, precision.user, precision.scorer, precision.item_vectors):
            if file is not None and file not in listed:
                raise IntegrityError(
                    f"the bundle's manifest names a {name} file that has no digest",
                    expected="every served file among the manifest's files and the catalogue's",
                    found=file,
                    where=str(where),
                    hint=_FETCH_HINT,
                )


def read_catalogue(bundle: Bundle, precision: str) -> tuple[Catalogue, list[dict[str, Any]]]:
    """The catalogue part in memory, and the items as people see them (title, category…), in the same order.

    Raises:
        IntegrityError: its parts are not of the same items, or not of this model's size.
    """
    import pyarrow.parquet as parquet
    import scipy.sparse as sparse

    folder = bundle.catalogue
    table = parquet.ParquetFile(folder / "items.parquet")
    items = table.read(columns=[name for name in DISPLAY_COLUMNS if name in table.schema_arrow.names]).to_pylist()
    ids = [item["item_id"] for item in items]
    categories = [item.get("category") or [] for item in items]
    vocabulary = sorted({name for names in categories for name in names})
    withdrawn = [row for row, item in enumerate(items) if item.get("available") is False]
    bm25 = folder / "sources" / "bm25"
    catalogue = Catalogue(
        item_ids=ids,
        index={item: row for row, item in enumerate(ids)},
        vectors_ID=np.load(bundle.file(bundle.manifest.precisions[precision].item_vectors)),
        categories_IC=category_matrix(categories, vocabulary),
        vocabulary=vocabulary,
        covisit=sparse.load_npz(folder / "sources" / "covisit.npz"),
        popularity_I=np.load(folder / "sources" / "popularity.npy"),
        bm25=Bm25.load(bm25) if bm25.is_dir() else None,
        withdrawn=np.array(withdrawn, np.int64),
    )
    _refuse_inconsistent_parts(bundle, catalogue)
    return catalogue, items


def _refuse_inconsistent_parts(bundle: Bundle, catalogue: Catalogue) -> None:
    """Stop where the parts of a catalogue do not fit each other, or not the model."""
    items = len(catalogue.item_ids)
    found = {
        "vectors": (catalogue.vectors_ID.shape, (items, bundle.manifest.vector_size)),
        "items that differ": (len(catalogue.index), items),
        "covisit": (catalogue.covisit.shape, (items, items)),
        "popularity": (catalogue.popularity_I.shape, (items,)),
    }
    for name, (actual, expected) in found.items():
        if actual != expected:
            raise IntegrityError(
                "the parts of a catalogue do not fit each other and the model",
                expected=f"{name}: {expected}, for {items} items in items.parquet",
                found=f"{actual}",
                where=str(bundle.catalogue),
                hint=_ROLLBACK_HINT,
            )
