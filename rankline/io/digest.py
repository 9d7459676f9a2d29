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


def of_file(path: Path) -> str:
    """The sha256 of a file's bytes, as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def of_value(value: Any) -> str:
    """The sha256 of a JSON-able value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def of_files(root: Path, names: Iterable[str] | None = None) -> dict[str, str]:
    """Relative path -> sha256 of every file below ``root`` (or only of ``names``), sorted by path."""
    if names is None:
        if root.is_file():
            return {root.name: of_file(root)}
        names = (p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    return {name: of_file(root / name) for name in sorted(names)}


def of_tree(root: Path) -> str:
    """One digest for a folder (or a file): the sha256 over its sorted (path, sha256) pairs."""
    return of_value(of_files(root))


def verify(root: Path, files: dict[str, str], *, hint: str) -> None:
    """Refuse a folder in which a file is missing or differs from its sha256.

    Raises:
        IntegrityError: naming the first file that is not what it should be.
    """
    for name, expected in files.items():
        path = root / name
        found = of_file(path) if path.is_file() else "no such file"
        if found != expected:
            raise IntegrityError(
                f"{name} is not the file its digest promises",
                expected=f"sha256 {expected}",
                found=found,
                where=str(path),
                hint=hint,
            )
