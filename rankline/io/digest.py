"""Digests of files, folders and JSON values.

That of a folder is the sha256 over its sorted (relative path, sha256) pairs, so it does not depend on where it is.
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
    """The sha256 of a JSON value, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digests(root: Path, names: Iterable[str] | None = None) -> dict[str, str]:
    """Relative path -> sha256 of every file below ``root``, or only of ``names``, sorted by path."""
    if names is None:
        if root.is_file():
            return {root.name: file_digest(root)}
        names = (p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    return {name: file_digest(root / name) for name in sorted(names)}


def tree_digest(root: Path) -> str:
    """The digest of a folder or a file."""
    return json_digest(file_digests(root))


def verify(root: Path, files: dict[str, str], *, hint: str) -> None:
    """Check that the files of a folder match their digests.

    Raises:
        IntegrityError: a file is missing or has changed; the message names the first one.
    """
    for name, expected in files.items():
        path = root / name
        actual = file_digest(path) if path.is_file() else "no such file"
        if actual != expected:
            raise IntegrityError(
                f"{name} does not match its digest",
                expected=f"sha256 {expected}",
                found=actual,
                where=str(path),
                hint=hint,
            )
