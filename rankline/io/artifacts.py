"""Artifacts: folders that carry the digests of their own files."""

from __future__ import annotations

import json
from pathlib import Path

from rankline.errors import IntegrityError
from rankline.io import digest, files

DIGESTS_FILE = "files.json"  # in every artifact folder: relative path -> sha256 of its other files


def write_digests(path: Path) -> None:
    """Write the digests of an artifact's files into its folder."""
    if path.is_dir():
        files.write_json(path / DIGESTS_FILE, digest.file_digests(path))


def declared_digest(path: Path) -> str:
    """The digest of an artifact by its own list of files; without a list, of the files themselves."""
    digests_file = path / DIGESTS_FILE
    if not digests_file.is_file():
        return digest.tree_digest(path)
    return digest.json_digest(json.loads(digests_file.read_text()))


def verify_artifact(path: Path) -> str:
    """The digest of an artifact whose files match their digests.

    Raises:
        IntegrityError: the artifact is incomplete, or a file of it has changed.
    """
    digests_file = path / DIGESTS_FILE
    if not digests_file.is_file():
        raise IntegrityError(
            "an input of this step is not complete",
            expected=f"a folder with {DIGESTS_FILE}",
            found="no such file" if path.exists() else "no such folder",
            where=str(path),
            hint="run the pipeline again: the step that writes this folder runs first",
        )
    hint = "run the pipeline again: it computes damaged artifacts again"
    digest.verify(path, json.loads(digests_file.read_text()), hint=hint)
    return declared_digest(path)


def link_or_copy(source: Path, target: Path) -> None:
    """Give an artifact a second name: hard links to its files, or copies where the file system has no links."""
    if source.is_file():
        files.link_or_copy(source, target)
        return
    target.mkdir(parents=True, exist_ok=True)
    for path in source.rglob("*"):
        if path.is_file():
            files.link_or_copy(path, target / path.relative_to(source))
