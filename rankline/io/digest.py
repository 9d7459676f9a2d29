"""Digests: what a file, a folder or a value is, in one short string.

A sha256 over sorted (relative path, sha256) pairs stands for a folder, so the same bytes give the same
digest wherever they lie.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rankline.errors import IntegrityError


def file_digest(path: Path) -> str:
    """The sha256 of a file's bytes, as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def json_digest(value: Any) -> str:
    """The sha256 of a JSON-able value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digests(root: Path, names: Iterable[str] | None = None) -> dict[str, str]:
    """Relative path -> sha256 of every file below ``root`` (or only of ``names``), sorted by path."""
    if names is None:
        if root.is_file():
            return {root.name: file_digest(root)}
        names = (p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    return {name: file_digest(root / name) for name in sorted(names)}


def tree_digest(root: Path) -> str:
    """One digest for a folder (or a file): the sha256 over its sorted (path, sha256) pairs."""
    return json_digest(file_digests(root))


def verify(root: Path, files: dict[str, str], *, hint: str) -> None:
    """Refuse a folder in which a file is missing or differs from its sha256.

    Raises:
        IntegrityError: naming the first file that is not what it should be.
    """
    for name, expected in files.items():
        path = root / name
        found = file_digest(path) if path.is_file() else "no such file"
        if found != expected:
            raise IntegrityError(
                f"{name} is not the file its digest promises",
                expected=f"sha256 {expected}",
                found=found,
                where=str(path),
                hint=hint,
            )
