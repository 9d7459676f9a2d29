"""The files of a catalogue folder: their names, the manifest that lists them, and the revision it gives.

catalogue.json  items.parquet  vectors.fp32.npy (and int8, fp16)  index.faiss
sources/covisit.npz  sources/popularity.npy  sources/bm25/ (with queries only)
sources/words.npz (with users only)
"""

from __future__ import annotations

import json
from pathlib import Path

from rankline.contracts import FrozenModel
from rankline.errors import IntegrityError, UsageError
from rankline.io import digest
from rankline.io.files import read_model

CATALOGUE_MANIFEST = "catalogue.json"
ITEMS, INDEX = "items.parquet", "index.faiss"
COVISIT, POPULARITY, BM25 = "sources/covisit.npz", "sources/popularity.npy", "sources/bm25"
WORDS = "sources/words.npz"
ROLLBACK_HINT = "refresh the catalogue again, or return to an older revision with `rankline catalogue rollback`"


class CatalogueManifest(FrozenModel):
    """catalogue.json: path -> sha256."""

    files: dict[str, str]


def catalogue_files(folder: Path) -> dict[str, str]:
    """Path -> sha256 of the files of a catalogue, from its manifest; the files are not read.

    Raises:
        UsageError: the folder has no manifest.
        IntegrityError: the manifest cannot be read.
    """
    path = folder / CATALOGUE_MANIFEST
    if not path.is_file():
        raise UsageError(
            "this is not a catalogue",
            expected=f"a folder with {CATALOGUE_MANIFEST}, items.parquet, vectors and sources",
            found=f"no {CATALOGUE_MANIFEST}",
            where=str(folder),
            hint="give the catalogue/ folder of a bundle, or one written by a refresh",
        )
    return read_model(
        path,
        CatalogueManifest,
        what="the manifest of the catalogue",
        error=IntegrityError,
        missing=ROLLBACK_HINT,
        damaged=ROLLBACK_HINT,
    ).files


def write_catalogue_manifest(folder: Path) -> str:
    """Write catalogue.json for the files in a folder; return the revision."""
    (folder / CATALOGUE_MANIFEST).unlink(missing_ok=True)
    files = digest.file_digests(folder)
    (folder / CATALOGUE_MANIFEST).write_text(json.dumps({"files": files}, indent=2) + "\n")
    return revision_of(files)


def revision_of(files: dict[str, str]) -> str:
    """The revision of a catalogue with these files (path -> sha256)."""
    return digest.json_digest(files)[:16]


def verify_catalogue(folder: Path) -> str:
    """Verify every file of a catalogue; return the revision.

    Raises:
        UsageError: the folder has no manifest.
        IntegrityError: the manifest cannot be read, or a file is missing or differs from its sha256.
    """
    files = catalogue_files(folder)
    digest.verify(folder, files, hint=ROLLBACK_HINT)
    return revision_of(files)


def read_item_ids(folder: Path) -> list[str]:
    """The item ids of a catalogue, in the order of its vectors."""
    import pyarrow.parquet as parquet

    ids: list[str] = parquet.read_table(folder / ITEMS, columns=["item_id"])["item_id"].to_pylist()
    return ids
