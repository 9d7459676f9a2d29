"""The digest of a step's code: of its module and of every module of this project that it imports.

It is computed over syntax trees, so that comments, docstrings and formatting do not change it.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from pathlib import Path

from rankline.io import digest

PACKAGES = ("rankline", "components", "feature_repo", "serving", "review", "pipelines")


def of_code(*modules: str) -> str:
    """The digest of these modules and of all modules of this project that they import."""
    sources: dict[str, str] = {}
    for module in modules:
        for name, path in closure(module, packages=PACKAGES).items():
            sources[name] = of_source(path.read_text())
            for template in sorted(path.parent.glob("*.html")):  # a template is part of the module beside it
                sources[f"{name}/{template.name}"] = digest.file_digest(template)
    return digest.json_digest(sources)


def closure(module: str, *, packages: tuple[str, ...]) -> dict[str, Path]:
    """Module name -> file, for ``module`` and all modules of ``packages`` that it imports, directly or indirectly."""
    files: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in files or name.split(".")[0] not in packages:
            continue
        path = _file_of(name)
        if path is None:
            continue
        files[name] = path
        waiting.extend(_parsed(path.read_text())[1])
    return files


def of_source(source: str) -> str:
    """The digest of a module's syntax tree, the same in every version of Python."""
    return _parsed(source)[0]


@functools.lru_cache(maxsize=1024)  # a plan needs the digests of seven steps, which share most of their modules
def _parsed(source: str) -> tuple[str, tuple[str, ...]]:
    """The digest of a module, and the modules that it imports."""
    tree, tokens = ast.parse(source), list[str]()
    names = tuple(name for each in _imported_names(tree) for name in _with_parents(each))
    _append_tokens(_without_docstrings(tree), tokens)
    return hashlib.sha256("\0".join(tokens).encode("utf-8", "surrogatepass")).hexdigest(), names


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and type(first.value.value) is str:
                del node.body[0]
    return tree


def _append_tokens(node: ast.AST, tokens: list[str]) -> None:
    """Append a tree as text, without empty fields: newer versions of Python add fields that are mostly empty."""
    tokens.append(type(node).__name__)
    for name in node._fields:
        value = getattr(node, name, None)
        if value is None or value == [] or name in ("kind", "type_comment"):
            continue
        tokens.append(name)
        for item in value if isinstance(value, list) else (value,):
            if isinstance(item, ast.AST):
                _append_tokens(item, tokens)
            else:
                tokens.append(f"{type(item).__name__}={item!r}")
    tokens.append(")")


def _imported_names(tree: ast.Module) -> list[str]:
    """The names of possible modules that a module imports, except for a type checker."""
    names: list[str] = []
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
            names.extend(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and _is_type_checking(node.test):
            waiting.extend(node.orelse)
        elif isinstance(node, ast.stmt | ast.excepthandler | ast.match_case | ast.Module):  # expressions import nothing
            waiting.extend(child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr))
    return names


def _with_parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _file_of(module: str) -> Path | None:
    """The file of a module of this project, without importing it."""
    package, *rest = module.split(".")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    root = Path(spec.submodule_search_locations[0]).joinpath(*rest)
    for path in (root.with_suffix(".py"), root / "__init__.py"):
        if path.is_file():
            return path
    return None
