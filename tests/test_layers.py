"""Imports point one way: the layers, the packages inside of `rankline`, and no cycles anywhere."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# package -> which of our packages it may import
LAYERS: dict[str, set[str]] = {
    "rankline": set(),
    "feature_repo": {"rankline"},
    "serving": {"rankline"},
    "components": {"rankline", "feature_repo"},
    "pipelines": {"rankline", "components"},
    "onboarding": {"rankline", "components", "pipelines"},
    "review": {"rankline", "components", "pipelines"},
    "cli": {"rankline", "components", "pipelines", "onboarding", "review", "serving"},
}
NEVER_IN_SERVING = {"torch", "kfp", "transformers", "great_expectations"}
# feature_repo is copied beside Feast's own command line: it needs little of rankline
IN_FEATURE_REPO = {"contracts", "errors", "features", "io", "runtime"}
# cycle of packages that stays -> why
PACKAGE_CYCLES = {
    "onboarding.inference -> onboarding.survey -> onboarding.inference": "columns are grouped by the words of names",
    "pipelines.retention -> pipelines.schedules -> pipelines.retention": "a schedule has a retention, and is retained",
    "rankline.evaluation -> rankline.gates -> rankline.evaluation": "gates judge reports, decisions consist of gates",
}


def modules(root: Path) -> dict[str, Path]:
    """Module name -> file, for every module of our packages below ``root``."""
    files = (path for package in LAYERS for path in sorted((root / package).rglob("*.py")))
    return {".".join(_without_init(path.relative_to(root).with_suffix("").parts)): path for path in files}


def _without_init(parts: tuple[str, ...]) -> tuple[str, ...]:
    return parts[:-1] if parts[-1] == "__init__" else parts


def imported_names(path: Path) -> Iterator[tuple[str, ...]]:
    """What each import of a file names, at the top or inside a function: candidates, the most specific first."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name,) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((f"{node.module}.{alias.name}", node.module) for alias in node.names)


def imports(root: Path) -> dict[str, set[str]]:
    """Module -> the modules of ours that it imports, lazily or not, for a type checker or not."""
    known = modules(root)
    return {
        module: {
            next(name for name in names if name in known)
            for names in imported_names(path)
            if any(name in known for name in names)
        }
        - {module}
        for module, path in known.items()
    }


def cycles(graph: dict[str, set[str]]) -> list[str]:
    """Import cycles, one for each place where a walk along the imports comes back to where it has been."""
    trails, finished = [], set()

    def walk(module: str, trail: list[str]) -> None:
        if module in trail:
            cycle = trail[trail.index(module) :]
            first = cycle.index(min(cycle))  # a cycle has one name, wherever the walk came into it
            trails.append(" -> ".join([*cycle[first:], *cycle[:first], cycle[first]]))
        elif module not in finished:
            for name in sorted(graph[module]):
                walk(name, [*trail, module])
            finished.add(module)

    for module in sorted(graph):
        walk(module, [])
    return trails


def package_graph(graph: dict[str, set[str]], root: Path) -> dict[str, set[str]]:
    """Package -> the packages beside it that its modules import; modules above them are left out."""

    def package(module: str) -> str:
        name = ".".join(module.split(".")[:2])
        return name if (root / name.replace(".", "/")).is_dir() and "." in name else ""

    packages: dict[str, set[str]] = {package(module): set() for module in graph}
    for module, imported in graph.items():
        own = package(module)
        packages[own] |= {each for each in map(package, imported) if each.split(".")[0] == own.split(".")[0]} - {own}
    return {name: imported for name, imported in packages.items() if name}


def violations(root: Path, package: str) -> list[str]:
    """Imports of a package that its layer does not allow."""
    messages = []
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root / package).parts
        component = parts[0] if package == "components" and len(parts) > 1 else None
        for name in {names[0] for names in imported_names(path)}:
            first, *rest = name.split(".")
            if first in LAYERS.keys() - LAYERS[package] - {package}:
                messages.append(f"{path.name} imports {name}")
            if component and first == "components" and rest and rest[0] not in (component, "images"):
                messages.append(f"component {component}: {path.name} imports {name}")
            if package == "serving" and first in NEVER_IN_SERVING:
                messages.append(f"{path.name} imports {name}")
            if package == "feature_repo" and first == "rankline" and rest[0] not in IN_FEATURE_REPO:
                messages.append(f"{path.name} imports {name}")
    return messages


@pytest.mark.parametrize("package", sorted(LAYERS))
def test_imports_point_one_way(package: str) -> None:
    assert any((ROOT / package).rglob("*.py"))
    assert violations(ROOT, package) == []


@pytest.mark.integration
def test_there_are_no_import_cycles() -> None:
    graph = imports(ROOT)
    assert "pipelines.training" in graph
    assert graph["pipelines.training"]
    assert cycles(graph) == []


@pytest.mark.integration
def test_packages_import_each_other_one_way() -> None:
    graph = package_graph(imports(ROOT), ROOT)
    assert "rankline.io" in graph["rankline.registry"]
    assert set(cycles(graph)) == PACKAGE_CYCLES.keys()


@pytest.mark.parametrize(
    ("package", "file", "line"),
    [
        ("rankline", "x.py", "import components.ingest"),
        ("serving", "x.py", "def f():\n    import torch"),
        ("serving", "x.py", "from components.ingest import step"),
        ("components", "ingest/step.py", "from components.validate import step"),
        ("components", "ingest/step.py", "def f():\n    from pipelines import recipes"),
        ("pipelines", "x.py", "from cli import main"),
        ("pipelines", "runs/x.py", "from onboarding.survey import survey"),
        ("feature_repo", "x.py", "from rankline.model import networks"),
    ],
)
def test_a_wrong_import_is_seen(tmp_path: Path, package: str, file: str, line: str) -> None:
    (tmp_path / package / file).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / package / file).write_text(line + "\n")
    assert violations(tmp_path, package)


@pytest.mark.parametrize(
    ("files", "cycle"),
    [
        ({"a": "from rankline import b", "b": "def f():\n    import rankline.a"}, ("a", "b", "a")),
        (
            {"a": "from rankline.b import x", "b": "from rankline import c", "c": "from rankline.a import y"},
            ("a", "b", "c", "a"),
        ),
        (
            {"a": "import typing\nif typing.TYPE_CHECKING:\n    from rankline.b import x", "b": "import rankline.a"},
            ("a", "b", "a"),
        ),
        ({"a": "import json", "b": "from rankline.a import x"}, ()),
    ],
)
def test_a_cycle_is_seen(tmp_path: Path, files: dict[str, str], cycle: tuple[str, ...]) -> None:
    (tmp_path / "rankline").mkdir()
    for name, text in files.items():
        (tmp_path / "rankline" / f"{name}.py").write_text(text + "\n")
    assert cycles(imports(tmp_path)) == ([" -> ".join(f"rankline.{name}" for name in cycle)] if cycle else [])


def test_no_module_is_called_utils() -> None:
    assert [name for name in modules(ROOT) if name.split(".")[-1] in {"utils", "helpers", "common", "misc"}] == []


def test_a_cycle_of_packages_is_seen(tmp_path: Path) -> None:
    files = {"io/a": "from rankline.model import b", "model/b": "", "model/c": "import rankline.io.a", "top": ""}
    for name, text in files.items():
        (tmp_path / "rankline" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "rankline" / f"{name}.py").write_text(text + "\n")
    assert cycles(imports(tmp_path)) == []
    graph = package_graph(imports(tmp_path), tmp_path)
    assert cycles(graph) == ["rankline.io -> rankline.model -> rankline.io"]
    (tmp_path / "rankline" / "model" / "c.py").write_text("import rankline.top\n")
    assert cycles(package_graph(imports(tmp_path), tmp_path)) == []
