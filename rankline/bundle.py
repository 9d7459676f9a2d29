"""The bundle: what is served, as a folder with a manifest. Anyone holding one can serve it.

    manifest.json  tokenizer.json  policy.json  examples.jsonl
    text.onnx user.onnx scorer.onnx           fp32, with .int8.onnx and .fp16.onnx beside them
    side.onnx own.parquet items.json          what makes items' vectors, with text.onnx (rankline/catalogue.py)
    catalogue/  catalogue.json  items.parquet  vectors.fp32.npy (and int8, fp16)  index.faiss
                sources/covisit.npz  sources/popularity.npy  sources/bm25/ (where there are queries)

The model id is the sha256 over the sorted (path, sha256) of the servable files; the catalogue has a revision
of its own, made the same way, since items change all day and a model once a night.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from rankline import digest
from rankline.bm25 import Bm25
from rankline.contracts import Frozen, Manifest
from rankline.errors import IntegrityError, RanklineError, UsageError
from rankline.features import category_matrix
from rankline.policy import POLICY, Policy
from rankline.scoring import Catalogue, Knobs

MANIFEST = "manifest.json"
CATALOGUE = "catalogue"
REVISION = "catalogue.json"
SHOWN = ("item_id", "title", "category", "price", "available", "language")  # what people see of an item


class _Revision(Frozen):
    """What catalogue.json holds: path -> sha256."""

    files: dict[str, str]


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: its folder, manifest and ids."""

    folder: Path
    manifest: Manifest
    model_id: str
    revision: str

    @property
    def policy(self) -> Policy:
        """What is done with its scores.

        Raises:
            IntegrityError: policy.json cannot be read.
        """
        try:
            return Policy.model_validate_json((self.folder / POLICY).read_text())
        except (OSError, ValidationError, ValueError) as error:
            raise IntegrityError(
                "the bundle's policy cannot be read",
                expected=f"{POLICY} of this version of Rankline",
                found=str(error).splitlines()[0],
                where=str(self.folder / POLICY),
                hint="export the model again",
            ) from error

    @property
    def knobs(self) -> Knobs:
        """How candidates are drawn for this model."""
        return Knobs(
            candidates_per_source=self.manifest.candidates_per_source,
            covisit_decay=self.manifest.covisit_decay,
            max_history=self.manifest.max_history,
        )


def model_id(files: dict[str, str]) -> str:
    """The id of a model made of these servable files (path -> sha256)."""
    return digest.of_value(dict(sorted(files.items())))[:16]


def seal(folder: Path, manifest: Manifest) -> Bundle:
    """Write the catalogue's revision and the manifest for the files that lie in ``folder``."""
    catalogue = folder / CATALOGUE
    seal_catalogue(catalogue)
    servable = [
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if p.is_file() and p != folder / MANIFEST and catalogue not in p.parents and p.name != "files.json"
    ]
    sealed = manifest.model_copy(update={"files": digest.of_files(folder, servable)})
    (folder / MANIFEST).write_text(sealed.model_dump_json(indent=2) + "\n")
    return open_bundle(folder)


def seal_catalogue(folder: Path) -> str:
    """Write the list of a catalogue's files; its revision is the digest of that."""
    (folder / REVISION).unlink(missing_ok=True)
    files = digest.of_files(folder)
    (folder / REVISION).write_text(json.dumps({"files": files}, indent=2) + "\n")
    return digest.of_value(files)[:16]


def open_bundle(folder: Path, *, verify: bool = True) -> Bundle:
    """Read a bundle and, unless told otherwise, check every byte against its digests.

    Raises:
        UsageError: ``folder`` is no bundle.
        IntegrityError: the manifest cannot be read; a file is missing, differs from its sha256, or is served
            without having one.
    """
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_text())
        revision_files = _Revision.model_validate_json((folder / CATALOGUE / REVISION).read_text()).files
    except FileNotFoundError as error:
        raise UsageError(
            "this is not a model bundle",
            expected=f"{MANIFEST} and {CATALOGUE}/{REVISION}",
            found=f"no {Path(error.filename).name}",
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
    _refuse_unlisted(folder, manifest, {*manifest.files, *(f"{CATALOGUE}/{name}" for name in revision_files)})
    if verify:
        hint = "fetch the bundle again from the model repository, or promote another"
        digest.verify(folder, manifest.files, hint=hint)
        digest.verify(folder / CATALOGUE, revision_files, hint=hint)
    return Bundle(folder, manifest, model_id(manifest.files), digest.of_value(revision_files)[:16])


def claimed_id(folder: Path) -> str:
    """The model id that a folder's manifest claims, unchecked; empty where it is no bundle."""
    try:
        return open_bundle(folder, verify=False).model_id
    except RanklineError:
        return ""


def _refuse_unlisted(folder: Path, manifest: Manifest, listed: set[str]) -> None:
    """Stop where the manifest has a file served whose digest nobody wrote down."""
    for name, precision in manifest.precisions.items():
        for file in (precision.text, precision.side, precision.user, precision.scorer, precision.item_vectors):
            if file is not None and file not in listed:
                raise IntegrityError(
                    f"the bundle's manifest names a {name} file that has no digest",
                    expected="every served file among the manifest's files",
                    found=file,
                    where=str(folder / MANIFEST),
                    hint="fetch the bundle again from the model repository, or promote another",
                )


def read_catalogue(bundle: Bundle, precision: str) -> tuple[Catalogue, list[dict[str, Any]]]:
    """The catalogue part in memory, and the items as people see them (title, category…), in the same order."""
    import pyarrow.parquet as parquet
    import scipy.sparse as sparse

    folder = bundle.folder / CATALOGUE
    table = parquet.ParquetFile(folder / "items.parquet")
    shown = table.read(columns=[name for name in SHOWN if name in table.schema_arrow.names]).to_pylist()
    ids = [item["item_id"] for item in shown]
    categories = [item.get("category") or [] for item in shown]
    vocabulary = sorted({name for names in categories for name in names})
    withdrawn = [row for row, item in enumerate(shown) if item.get("available") is False]
    bm25 = folder / "sources" / "bm25"
    catalogue = Catalogue(
        item_ids=ids,
        index={item: row for row, item in enumerate(ids)},
        vectors_ID=np.load(bundle.folder / bundle.manifest.precisions[precision].item_vectors),
        categories_IC=category_matrix(categories, vocabulary),
        vocabulary=vocabulary,
        covisit=sparse.load_npz(folder / "sources" / "covisit.npz"),
        popularity_I=np.load(folder / "sources" / "popularity.npy"),
        bm25=Bm25.load(bm25) if bm25.is_dir() else None,
        withdrawn=np.array(withdrawn, np.int64),
    )
    return catalogue, shown
