"""Digests: what a file, a folder, a value or a piece of code is, in one short string.

A sha256 over sorted (relative path, sha256) pairs stands for a folder, so the same bytes give the same
digest wherever they lie.
"""

import ast
import functools
import hashlib
import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rankline.errors import IntegrityError

OURS = ("rankline", "components", "feature_repo", "serving", "review", "pipelines")


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


def closure(module: str, *, packages: tuple[str, ...]) -> dict[str, Path]:
    """Module name -> file of ``module`` and all it imports, directly or not, from ``packages``."""
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name.split(".")[0] not in packages:
            continue
        path = _source(name)
        if path is None:
            continue
        found[name] = path
        waiting.extend(_imported(path.read_text()))
    return found


@functools.lru_cache(maxsize=1024)  # a plan asks for the code of seven steps, which share most of their modules
def _imported(source: str) -> tuple[str, ...]:
    """What may be a module among the names that a source imports."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
            names.extend(f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(names)


def _source(module: str) -> Path | None:
    """The file of one of our modules, without importing it."""
    package, *rest = module.split(".")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    root = Path(spec.submodule_search_locations[0]).joinpath(*rest)
    for path in (root.with_suffix(".py"), root / "__init__.py"):
        if path.is_file():
            return path
    return None


def of_code(*modules: str) -> str:
    """One digest for the source of some modules and all of ours that they import.

    A change of code that a step uses is seen as a change of that step, and of no other.
    """
    sources: dict[str, str] = {}
    for module in modules:
        for name, path in closure(module, packages=OURS).items():
            sources[name] = of_file(path)
            # templates and defaults that lie beside a module are part of it
            for extra in sorted(path.parent.glob("*.html")):
                sources[f"{name}/{extra.name}"] = of_file(extra)
    return of_value(sources)
