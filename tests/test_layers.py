"""Imports point inward: the house's plan, read off the code."""

import ast
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parent.parent
OURS = {"rankline", "components", "pipelines", "feature_repo", "serving", "cli"}

# folder -> which of our folders it may import
MAY = {
    "rankline": set(),
    "feature_repo": {"rankline"},
    "serving": {"rankline"},
    "components": {"rankline", "feature_repo"},
    "pipelines": {"rankline", "components"},
    "cli": {"rankline", "components", "pipelines", "serving"},
}
NEVER_IN_SERVING = {"torch", "kfp", "transformers", "great_expectations"}


def imported(path: Path) -> set[str]:
    """Every module a file imports, at the top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def offences(folder: Path, name: str) -> list[str]:
    """Imports of a folder that its place in the house does not allow."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        inside = path.relative_to(folder).parts
        room = inside[0] if name == "components" and len(inside) > 1 else None
        for module in imported(path):
            first, *rest = module.split(".")
            if first in OURS - MAY[name] - {name}:
                found.append(f"{path.name} imports {module}")
            if room and first == "components" and rest and rest[0] not in (room, "images"):
                found.append(f"room {room}: {path.name} imports {module}")
            if name == "serving" and first in NEVER_IN_SERVING:
                found.append(f"{path.name} imports {module}")
    return found


@pytest.mark.parametrize("name", sorted(MAY))
def test_imports_point_inward(name: str) -> None:
    assert offences(HOUSE / name, name) == []


def test_feature_repo_knows_only_what_features_are() -> None:
    allowed = {"contracts", "errors", "features", "lazy", "ledger", "storage", "watermark"}
    for path in (HOUSE / "feature_repo").rglob("*.py"):
        for module in imported(path):
            if module.startswith("rankline."):
                assert module.split(".")[1] in allowed, f"{path.name} imports {module}"


@pytest.mark.parametrize(
    ("name", "file", "line"),
    [
        ("rankline", "x.py", "import components.ingest"),
        ("serving", "x.py", "def f():\n    import torch"),
        ("components", "ingest/step.py", "from components.validate import step"),
        ("pipelines", "x.py", "from cli import main"),
    ],
)
def test_a_wrong_import_is_seen(tmp_path: Path, name: str, file: str, line: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(line + "\n")
    assert offences(tmp_path, name)


def test_no_module_is_called_utils() -> None:
    nouns = {"utils", "helpers", "common", "misc"}
    found = [p for name in OURS for p in (HOUSE / name).rglob("*.py") if p.stem in nouns]
    assert found == []
